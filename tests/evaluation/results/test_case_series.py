"""Scores of every case in the file of scores, and tests between forecasts of different files from them."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from small_store import SmallStore

from weatherfm.earth.grid import regular_grid
from weatherfm.evaluation.evaluate import evaluate
from weatherfm.evaluation.forecast_config import EvaluationConfig
from weatherfm.evaluation.forecasts.writer import ForecastContents, ForecastWriter
from weatherfm.evaluation.results.comparison import merge_scores
from weatherfm.evaluation.results.scores_file import read_scores, write_scores
from weatherfm.evaluation.scoring.cases_to_score import Choice

LEADS = (24, 48)
DIMS = ("forecast", "init_time", "lead_time", "region", "channel")
SETTINGS = EvaluationConfig(regions=["global", "northern_extratropics"], spectra=False, damped_persistence=False)


@pytest.fixture(scope="module")
def store():
    return SmallStore(regular_grid((4, 8)), 40)


@pytest.fixture(scope="module")
def paths(store, tmp_path_factory):
    """A forecast, a worse one, and an ensemble of both and a third."""
    folder, inits = tmp_path_factory.mktemp("series"), store.times[:36]
    truth = np.stack([store.state[np.arange(36) + hours // 24] for hours in LEADS], 1)  # [init, lead, channel, ...]
    rng = np.random.default_rng(0)
    spoilt = [truth + (size * store.std[:, None, None] * rng.standard_normal(truth.shape)) for size in (0.5, 0.6, 0.7)]
    for name, fields in zip(("a", "b"), spoilt, strict=False):
        writer = ForecastWriter(
            folder / f"{name}.zarr", ForecastContents(store.channels, store.grid, inits, LEADS, {"name": name})
        )
        for block in writer.remaining():
            for i in range(len(LEADS)):
                writer.write(block, i, fields[block, i].astype(np.float32))
            writer.block_done(block)
        writer.finish()
    data = xr.open_zarr(folder / "a.zarr", chunks=None, decode_timedelta=True)[["2m_temperature"]].load()
    members = np.stack([fields[:, :, 3] for fields in spoilt], 1).astype(np.float32)
    many = xr.concat([data] * 3, "number").transpose("time", "number", ...).assign_coords(number=range(3))
    many["2m_temperature"].values[:] = members
    many.attrs = {}
    many.drop_encoding().to_zarr(folder / "many.zarr", zarr_format=2, consolidated=True)
    return folder, members, truth


@pytest.fixture(scope="module")
def scores(store, paths):
    return evaluate(paths[0] / "a.zarr", store, settings=SETTINGS)


def test_their_mean_is_the_score(scores):
    assert scores["mse_by_case"].dims == DIMS
    assert scores["mse_by_case"].dtype == np.float32
    assert "crps_fair_by_case" not in scores
    mean = scores["mse_by_case"].astype(float).mean("init_time").transpose("forecast", "region", "lead_time", "channel")
    np.testing.assert_allclose(mean, scores["mse"].sel(period="all"), rtol=1e-6)
    assert "every case" in scores["mse_by_case"].attrs["long_name"]


def test_of_an_ensemble_by_hand(store, paths):
    found = evaluate(paths[0] / "many.zarr", store, settings=SETTINGS)
    members, truth = paths[1].astype(np.float64), paths[2][:, :, 3].astype(np.float64)
    weights = store.grid.area_weights / store.grid.area_weights.sum()
    pairs = np.abs(members[:, :, None] - members[:, None]).sum((1, 2)) / (2 * 3 * 2)
    crps = ((np.abs(members - truth[:, None]).mean(1) - pairs) * weights).sum((-2, -1))  # [init, lead]
    error = (np.square(members.mean(1) - truth) * weights).sum((-2, -1))
    own = found.sel(forecast="many", region="global").isel(channel=0)
    np.testing.assert_allclose(own["crps_fair_by_case"], crps, rtol=1e-5)
    np.testing.assert_allclose(own["mse_by_case"], error, rtol=1e-5)
    assert np.isnan(found["crps_fair_by_case"].sel(forecast="persistence")).all()
    assert found["crps_fair_by_case"].dtype == np.float32


def test_they_are_compressed_and_come_back(scores, tmp_path):
    again = read_scores(write_scores(scores, tmp_path / "s.nc"))
    xr.testing.assert_identical(again["mse_by_case"].drop_attrs(), scores["mse_by_case"].drop_attrs())
    told = again["mse_by_case"].encoding
    assert told["zlib"]
    assert told["chunksizes"] == (1, 36, 1, 2, 4)
    assert (tmp_path / "s.nc").read_bytes() == write_scores(scores, tmp_path / "t.nc").read_bytes()


def test_without_them(store, paths, scores):
    fewer = evaluate(paths[0] / "a.zarr", store, settings=SETTINGS.model_copy(update={"series": False}))
    xr.testing.assert_identical(fewer, scores.drop_vars("mse_by_case"))
    assert "series" not in EvaluationConfig().model_dump(mode="json")


def test_forecasts_of_two_files_are_tested_as_in_one(store, paths, scores):
    together = evaluate(paths[0] / "a.zarr", store, [paths[0] / "b.zarr"], SETTINGS)
    other = evaluate(paths[0] / "b.zarr", store, settings=SETTINGS)
    merged = merge_scores([scores, other], ["one", "two"])
    assert (
        merged["forecast"].values.tolist()
        == together["forecast"].values.tolist()
        == [*("a", "b", "persistence", "climatology")]
    )
    for what in ("rmse_p_value", "rmse_skill_low", "rmse_skill_high"):
        found = merged[what].transpose(*together[what].dims).sel(reference=together["reference"])
        np.testing.assert_allclose(found, together[what], rtol=1e-3, atol=1e-5)  # cases are in single precision
        assert np.isfinite(found.sel(forecast="a", reference="b")).all()
    assert (merged["rmse_skill_low"].sel(forecast="a", reference="b", region="global") > 0).all()


def test_files_of_before_and_forced_ones_are_not_tested(store, paths, scores):
    old = evaluate(paths[0] / "b.zarr", store, settings=SETTINGS.model_copy(update={"series": False}))
    merged = merge_scores([scores, old], ["one", "two"])
    assert np.isnan(merged["rmse_p_value"].sel(forecast="a", reference="b")).all()
    assert np.isnan(merged["mse_by_case"].sel(forecast="b")).all()
    fewer = evaluate(paths[0] / "b.zarr", store, settings=SETTINGS, choice=Choice(init="2020-01-01/2020-01-20"))
    forced = merge_scores([scores, fewer], ["one", "two"], force=True)
    assert forced.sizes["init_time"] == 36
    assert np.isnan(forced["rmse_p_value"].sel(forecast="a", reference="b")).all()
    assert np.isfinite(forced["mse_by_case"].sel(forecast="b")).sum("init_time").values.tolist() == [[[20] * 4] * 2] * 2
    turned = merge_scores([fewer, scores], ["one", "two"], force=True)
    assert turned.sizes["init_time"] == 20
