"""Our metrics against the packages `scores` and `xskillscore` on the same data."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.evaluation.metrics.array_scores import ArrayScores

continuous = pytest.importorskip("scores.continuous")
xskillscore = pytest.importorskip("xskillscore")

RELATIVE = 1e-6  # they may sum in single precision; ours sums in double
SPACE_TIME = ["time", "latitude", "longitude"]
GRIDS = {
    "no-pole": regular_grid((12, 24)),
    "with-poles": Grid(np.linspace(90, -90, 13), np.arange(0, 360, 15.0)),
    "europe": Grid(np.arange(60, 29, -1.5), np.arange(-20, 15, 1.5)),
}


@pytest.fixture(params=GRIDS)
def case(request):
    """(grid, forecast, truth, climatology), fields [time, latitude, longitude] of geopotential's size."""
    grid = GRIDS[request.param]
    rng = np.random.default_rng(0)
    coords = {"latitude": grid.latitude, "longitude": grid.longitude}

    def field(spread):
        values = rng.normal(0, spread, (9, *grid.shape)) + 5.4e4 + 30 * grid.latitude[:, None]
        return xr.DataArray(values, coords, dims=SPACE_TIME)

    climatology = field(300)
    truth = climatology + field(500) - 5.4e4
    return grid, truth + 0.3 * (field(800) - 5.4e4) + 20, truth, climatology


def ours(grid, forecast, truth, climatology, region):
    verification = ArrayScores(grid, ["z500"], [24], [region])
    verification.update(*(x.values[:, None] for x in (forecast, truth, climatology)))
    return {name: values.item() for name, values in verification.metrics().items()}


def weights(grid, south=-90.0, north=90.0) -> xr.DataArray:
    """sin(upper) - sin(lower) of cells between midpoints, made here once more from the latitudes alone."""
    middle = (grid.latitude[1:] + grid.latitude[:-1]) / 2
    step = grid.latitude[0] - grid.latitude[1]
    edges = np.clip([grid.latitude[0] + step / 2, *middle, grid.latitude[-1] - step / 2], -90, 90)
    rows = xr.DataArray(-np.diff(np.sin(np.deg2rad(edges))), {"latitude": grid.latitude}, dims="latitude")
    rows = rows.where((rows.latitude >= south) & (rows.latitude <= north), 0)
    return rows.expand_dims(longitude=grid.longitude).transpose("latitude", "longitude")


def region_of(grid) -> str:
    return "global" if grid.periodic else "area"


def test_scores(case):
    grid, forecast, truth, _ = case
    metrics = ours(*case, region_of(grid))
    w = weights(grid)
    w = w / w.mean()
    for name, function in {
        "rmse": continuous.rmse,
        "mse": continuous.mse,
        "mae": continuous.mae,
        "bias": continuous.additive_bias,
    }.items():
        oracle = float(function(forecast, truth, reduce_dims=SPACE_TIME, weights=w))
        assert metrics[name] == pytest.approx(oracle, rel=RELATIVE), name


def test_xskillscore(case):
    grid, forecast, truth, _ = case
    metrics = ours(*case, region_of(grid))
    w = weights(grid).broadcast_like(truth)
    for name, function in {
        "rmse": xskillscore.rmse,
        "mse": xskillscore.mse,
        "mae": xskillscore.mae,
        "bias": xskillscore.me,
    }.items():
        oracle = float(function(forecast, truth, dim=SPACE_TIME, weights=w))
        assert metrics[name] == pytest.approx(oracle, rel=RELATIVE), name


def test_anomaly_correlation(case):
    """Pearson's correlation is centred, ours is not: among anomalies and their negatives both means are zero."""
    grid, forecast, truth, climatology = case
    metrics = ours(*case, region_of(grid))
    anomalies = [xr.concat([x - climatology, climatology - x], "time") for x in (forecast, truth)]
    w = weights(grid).broadcast_like(anomalies[0])
    oracle = float(xskillscore.pearson_r(*anomalies, dim=SPACE_TIME, weights=w))
    assert metrics["acc"] == pytest.approx(oracle, rel=RELATIVE)


@pytest.mark.parametrize(
    ("region", "limits"),
    [("northern_extratropics", (20, 90)), ("southern_extratropics", (-90, -20)), ("tropics", (-20, 20))],
)
def test_regions(region, limits):
    grid = GRIDS["no-pole"]
    rng = np.random.default_rng(1)
    coords = {"latitude": grid.latitude, "longitude": grid.longitude}
    forecast, truth = (xr.DataArray(rng.normal(0, 1, (9, *grid.shape)), coords, dims=SPACE_TIME) for _ in range(2))
    w = weights(grid, *limits).broadcast_like(truth)
    oracle = float(xskillscore.rmse(forecast, truth, dim=SPACE_TIME, weights=w))
    assert ours(grid, forecast, truth, truth * 0, region)["rmse"] == pytest.approx(oracle, rel=RELATIVE)
