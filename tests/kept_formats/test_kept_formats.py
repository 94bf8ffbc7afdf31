"""What an earlier version wrote opens today, with the numbers it had: a change of format is a decision, never a slip.

`samples.tar.gz` (80 kB) holds a store, a checkpoint, weights, a forecast and scores of one small run, made by the code
of commit e84197f with `make_samples.py`, whose docstring tells how. A test that fails here says that files which people
have do not open any more, or mean something else now: then either mend the code, or decide it: raise the format's
version, let the message say what to do with older files, and add new samples beside these.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from kept_samples import unpack
from make_samples import CHANNELS, SETTINGS, wave
from safetensors.torch import load_file

import weatherfm

CASES = np.arange("2000-01-13", "2000-01-17", dtype="datetime64[D]")
FORECAST = {
    "geopotential": [53559.609375, 53927.03125, 54140.4765625, 53565.9921875, 53793.82421875],
    "2m_temperature": [276.6965637, 283.6874390, 284.4023132, 276.2720032, 279.2273254],
}
"""Values of the forecast in the file, as Zarr read them when it was made: numbers 0, 5, 17, 40 and the last."""
RMSE = [[184.30575999, 3.16673836], [260.54721249, 5.99200309]]
"""[lead_time, channel] of the model over the globe, as netCDF4 read them when they were made."""
LAST_STEP = 0.2225727780411641
"""Validation loss after the last step, from metrics.jsonl."""
ROUNDING = 2e-6
"""Relative: float32 through another processor's matrix products and sums, on fields of one size."""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    return unpack(tmp_path_factory.mktemp("formats"))


@pytest.fixture
def run(unpacked, tmp_path, monkeypatch) -> Path:
    """The folder of the run, where it was when it was made: in the working folder."""
    shutil.copytree(unpacked, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return Path("run")


def truth(times: np.ndarray, channel: str) -> np.ndarray:
    """The field that the samples were made from, by its formula."""
    hours = (times - np.datetime64("2000-01-01")) / np.timedelta64(1, "h")
    return wave(channel, hours, np.array([67.5, 22.5, -22.5, -67.5]), np.arange(0, 360, 45.0))


def mean_over_globe(fields: np.ndarray) -> np.ndarray:
    """[..., latitude, longitude] -> [...], by the areas of the four bands."""
    edges = np.sin(np.deg2rad([90, 45, 0, -45, -90]))
    return (fields.mean(-1) * -np.diff(edges) / 2).sum(-1)


def test_settings(run):
    assert weatherfm.read_run("run.yaml") == weatherfm.read_run(SETTINGS)


def test_a_store_is_sound_and_holds_what_it_held(run):
    findings = weatherfm.verify(run / "store.zarr")
    assert findings.ok
    assert findings.problems == []
    store = weatherfm.open_store(run / "store.zarr")
    assert store.channels == tuple(CHANNELS)
    assert store.static_names == ("lsm",)
    np.testing.assert_array_equal(store.times, np.datetime64("2000-01-01") + np.arange(64) * np.timedelta64(6, "h"))
    fields = store.read(np.arange(64))
    for i, channel in enumerate(CHANNELS):
        np.testing.assert_array_equal(fields[:, i], truth(store.times, channel).astype(np.float32))
        training = truth(store.times[:40], channel)
        np.testing.assert_allclose(store.mean[i], mean_over_globe(training).mean(), rtol=1e-6)
        np.testing.assert_allclose(store.climatology_at(store.times[:1])[0, i], training[::4].mean(0), rtol=1e-6)
    assert [str(store.periods[name]) for name in ("train", "test")] == [SETTINGS["data"][n] for n in ("train", "test")]


def test_a_store_is_finished_for_prepare(run):
    """Its source is gone, and not asked for."""
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert weatherfm.prepare("run.yaml").path.name == "store.zarr"
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_training_goes_on_from_a_checkpoint(run):
    """The last step once more: weights as they were made at once, and the loss that stood in the log."""
    made = load_file(run / "weights.safetensors")
    (run / "weights.safetensors").unlink()
    trained = weatherfm.train("run.yaml")
    assert (trained.resumed_from, trained.steps) == (39, 40)
    np.testing.assert_allclose(trained.validation["loss"], LAST_STEP, rtol=1e-5)
    again = load_file(run / "weights.safetensors")
    assert again.keys() == made.keys()
    for name, value in made.items():
        torch.testing.assert_close(again[name], value, rtol=1e-4, atol=1e-6)  # Adam divides what was rounded


def test_weights_forecast_what_they_did(run):
    model = weatherfm.load(run / "weights.safetensors", device="cpu")
    assert model.provenance["step"] == 40
    made = weatherfm.forecast(model, run / "store.zarr", ["6h", "12h"], CASES)
    kept = weatherfm.open_forecast(run / "forecast.zarr")
    for name, values in FORECAST.items():
        np.testing.assert_allclose(made[name].values.ravel()[[0, 5, 17, 40, -1]], values, rtol=ROUNDING)
        np.testing.assert_allclose(made[name], kept[name].transpose(*made[name].dims), rtol=ROUNDING)


def test_a_forecast_holds_what_it_held(run):
    kept = weatherfm.open_forecast(run / "forecast.zarr")
    assert dict(kept.sizes) == {"init_time": 4, "lead_time": 2, "level": 1, "latitude": 4, "longitude": 8}
    np.testing.assert_array_equal(kept["init_time"], CASES)
    np.testing.assert_array_equal(kept["lead_time"] / np.timedelta64(1, "h"), [6, 12])
    for name, values in FORECAST.items():
        np.testing.assert_allclose(kept[name].values.ravel()[[0, 5, 17, 40, -1]], values, rtol=1e-8)


def test_a_finished_forecast_is_left_as_it_is(run):
    before = {path: path.read_bytes() for path in (run / "forecast.zarr").rglob("*") if path.is_file()}
    weatherfm.write_forecast("run.yaml")
    assert {path: path.read_bytes() for path in (run / "forecast.zarr").rglob("*") if path.is_file()} == before


def test_scores_hold_what_they_held(run):
    """The baseline's by the formula of the waves, the model's as they were read then."""
    scores = weatherfm.open_scores(run / "scores.nc")
    rmse = scores["rmse"].sel(region="global").isel(period=0)
    np.testing.assert_allclose(rmse.sel(forecast="model"), RMSE, rtol=1e-8)
    for i, hours in enumerate((6, 12)):
        for channel in CHANNELS:
            error = truth(CASES, channel) - truth(CASES + np.timedelta64(hours, "h"), channel)
            expected = np.sqrt(mean_over_globe(error**2).mean())
            found = rmse.sel(forecast="persistence", channel=channel)[i]
            np.testing.assert_allclose(found, expected, rtol=1e-5)  # float32 fields of a large mean


def test_a_forecast_is_scored_as_it_was(run):
    again = weatherfm.evaluate("run.yaml", output="again.nc")
    kept = weatherfm.open_scores(run / "scores.nc")
    assert set(kept.data_vars) <= set(again.data_vars)
    for name in ("rmse", "bias", "acc"):
        np.testing.assert_allclose(again[name], kept[name], rtol=1e-6, atol=1e-9)


def test_the_report_opens_scores_and_log(run):
    page = weatherfm.report(run / "scores.nc").page.read_text()
    assert "Training" in page
    for words in ("z500", "t2m", "persistence"):
        assert words in page
