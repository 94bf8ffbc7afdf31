"""SEEPS against the package `scores` on the same amounts and climatology."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.evaluation.baselines.seeps_climatology import dry_threshold
from weatherfm.evaluation.metrics.seeps import SeepsClimatology, seeps_means, seeps_metrics
from weatherfm.evaluation.regions import region_weights

categorical = pytest.importorskip("scores.categorical")

GRIDS = {"no-pole": regular_grid((12, 24)), "europe": Grid(np.arange(60, 29, -1.5), np.arange(-20, 15, 1.5))}
PLACE = ("latitude", "longitude")


@pytest.mark.parametrize("precision", [np.float32, np.float64], ids=str)
@pytest.mark.parametrize("hours", [6, 24])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_scores(grid, hours, precision):
    rng = np.random.default_rng(0)
    p1 = rng.uniform(0.02, 0.98, grid.shape)
    heavy = rng.uniform(1e-3, 5e-3, grid.shape).astype(np.float32)
    forecast, truth = rng.gamma(0.4, 3e-3, (2, 9, *grid.shape)).astype(precision)
    climatology = SeepsClimatology(
        np.broadcast_to(p1, (12, *grid.shape)), np.broadcast_to(heavy, (12, *grid.shape)), dry_threshold(hours), hours
    )
    regions = ["global", "tropics", "arctic"] if grid.periodic else ["area", "alps:48/5/44/14"]
    weights = region_weights(grid, regions)
    rows = (weights / weights.sum((1, 2), keepdims=True)).reshape(len(regions), -1)
    means = seeps_means(forecast, truth, np.full(9, 4), climatology, rows)
    found = seeps_metrics({name: values.mean(0) for name, values in means.items()})["seeps"]
    for ours, area in zip(found, weights, strict=True):
        oracle = categorical.seeps(
            *(xr.DataArray(x.astype(np.float64), dims=("time", *PLACE)) for x in (forecast, truth)),
            xr.DataArray(p1, dims=PLACE),
            xr.DataArray(heavy.astype(np.float64), dims=PLACE),
            dry_light_threshold=dry_threshold(hours),
            weights=xr.DataArray(area, dims=PLACE),
        )
        assert ours == pytest.approx(float(oracle), rel=1e-6)  # both in double precision; the aim of the suite
