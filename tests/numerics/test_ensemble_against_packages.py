"""Ensemble metrics against the packages `properscoring`, `xskillscore` and `scores` on the same data."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import xarray as xr

from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.evaluation.metrics.ensemble import ensemble_means, ensemble_metrics
from weatherfm.evaluation.metrics.events import Event, event_means
from weatherfm.evaluation.regions import mean_weights

probability = pytest.importorskip("scores.probability")
xskillscore = pytest.importorskip("xskillscore")
properscoring = pytest.importorskip("properscoring")

RELATIVE = 1e-6  # ours takes differences in single precision where fields are; they are given the same in double
POINTS = ["time", "latitude", "longitude"]
DIMS = ("time", "member", "latitude", "longitude")


class Case(NamedTuple):
    grid: Grid
    channel: str
    members: np.ndarray  # [time, member, lat, lon]
    truth: np.ndarray
    threshold: float


def random_case(members: int, step: float) -> Case:
    """Single precision; values in multiples of `step`, so that some are equal, unless it is 0."""
    rng = np.random.default_rng(members)
    grid = regular_grid((12, 24))
    centre = rng.normal(280, 8, (5, 1, *grid.shape))
    fields = centre + rng.normal(0, 2, (5, members + 1, *grid.shape))
    fields = (np.round(fields / step) * step if step else fields).astype(np.float32)
    return Case(grid, "t2m", fields[:, 1:], fields[:, 0], 280.25)


def real_case(folder: Path, channel: str) -> Case:
    """ERA5 members: nine scored against the tenth, which is as good a truth as any of them."""
    cfgrib = pytest.importorskip("cfgrib")
    keys = {"shortName": channel[0], "level": int(channel[1:])}
    path = folder / "era5_members" / "era5-levels-members.grib"
    cube = cfgrib.open_dataset(str(path), indexpath="", filter_by_keys=keys, squeeze=False)[channel[0]]
    fields = cube.transpose("time", "number", "latitude", "longitude", ...).values.reshape(4, 10, 61, 120)
    grid = Grid(cube.latitude.values, cube.longitude.values)
    return Case(grid, channel, fields[:, 1:], fields[:, 0], float(np.median(fields[:, 0])))


RANDOM = {"m2": (2, 0), "m10": (10, 0), "m50": (50, 0), "m10-ties": (10, 0.5)}


@pytest.fixture(params=[*RANDOM, "z500", "t850"])
def case(request) -> Case:
    if request.param in RANDOM:
        return random_case(*RANDOM[request.param])
    return real_case(request.getfixturevalue("real_data"), request.param)


def means(case: Case, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Mean statistics over cases and points, without dims of length 1."""
    found = ensemble_means(case.members[:, :, None], case.truth[:, None], weights)
    return {name: values.mean(0)[0, 0] for name, values in found.items()}


def ours(case: Case) -> dict[str, float]:
    found = ensemble_metrics(means(case, mean_weights(case.grid, ["global"])), case.members.shape[1])
    return {name: float(value) for name, value in found.items()}


def theirs(case: Case) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """(members, truth, weights of mean 1) in double precision."""
    coords = {"latitude": case.grid.latitude, "longitude": case.grid.longitude}
    members = xr.DataArray(case.members.astype(np.float64), coords, dims=DIMS)
    truth = xr.DataArray(case.truth.astype(np.float64), coords, dims=POINTS)
    weights = xr.DataArray(np.broadcast_to(case.grid.area_weights, case.grid.shape), coords, dims=POINTS[1:])
    return members, truth, weights


def test_crps(case):
    members, truth, weights = theirs(case)
    metrics = ours(case)
    points = properscoring.crps_ensemble(truth.values, members.transpose(*POINTS, "member").values)
    assert metrics["crps"] == pytest.approx(np.average(points.mean(0), weights=weights), rel=RELATIVE)
    oracle = xskillscore.crps_ensemble(truth, members, dim=POINTS, weights=weights.broadcast_like(truth))
    assert metrics["crps"] == pytest.approx(float(oracle), rel=RELATIVE)
    for name, method in {"crps": "ecdf", "crps_fair": "fair"}.items():
        oracle = probability.crps_for_ensemble(members, truth, "member", method=method, weights=weights)
        assert metrics[name] == pytest.approx(float(oracle), rel=RELATIVE), name


def test_spread_and_error(case):
    members, truth, weights = theirs(case)
    metrics, size = ours(case), case.members.shape[1]
    w = weights.broadcast_like(truth)
    spread = float(np.sqrt(members.var("member", ddof=1).weighted(w).mean()))
    rmse = float(xskillscore.rmse(members.mean("member"), truth, dim=POINTS, weights=w))
    assert metrics["ensemble_spread"] == pytest.approx(spread, rel=RELATIVE)
    assert metrics["spread_skill_ratio"] == pytest.approx(np.sqrt((size + 1) / size) * spread / rmse, rel=RELATIVE)


def test_rank_histogram(case):
    """`scores` splits ties as we do and takes weights; `xskillscore` does neither."""
    members, truth, weights = theirs(case)
    size = case.members.shape[1]
    counts = means(case, mean_weights(case.grid, ["global"]))["rank_counts"]
    assert counts.sum() == pytest.approx(1, rel=1e-12)
    oracle = probability.rank_histogram(members, truth, "member", weights=weights)
    np.testing.assert_allclose(counts, oracle, rtol=RELATIVE, atol=1e-12)
    if not (members == truth).any():
        even = np.full((1, case.truth[0].size), 1 / case.truth[0].size)
        oracle = xskillscore.rank_histogram(truth, members, dim=POINTS)
        np.testing.assert_allclose(means(case, even)["rank_counts"] * case.truth.size, oracle, rtol=RELATIVE)
        assert oracle.sizes == {"rank": size + 1}


@pytest.mark.parametrize("sign", "<>")
def test_brier_score(case, sign):
    members, truth, weights = theirs(case)
    event = Event(case.channel, sign, case.threshold)
    means = event_means(
        case.members[:, :, None], case.truth[:, None], [event], [case.channel], mean_weights(case.grid, ["global"])
    )
    mine = means["brier"].mean()
    compare = {"<": operator.lt, ">": operator.gt}[sign]
    happened = [compare(x, case.threshold).astype(float) for x in (truth, members)]
    oracle = xskillscore.brier_score(*happened, dim=POINTS, weights=weights.broadcast_like(truth))
    assert mine == pytest.approx(float(oracle), rel=RELATIVE)
    oracle = probability.brier_score_for_ensemble(
        members,
        truth,
        "member",
        case.threshold,
        weights=weights,
        fair_correction=False,
        event_threshold_operator=compare,
    )
    assert mine == pytest.approx(oracle.item(), rel=RELATIVE)
