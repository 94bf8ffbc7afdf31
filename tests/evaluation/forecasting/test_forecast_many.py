"""Forecasts of many at once: batches, precision, ensembles of states, long rollouts, what goes on beside the model."""

from __future__ import annotations

import gc
import json
import shutil
import threading

import numpy as np
import pytest
import torch
import xarray as xr
from small_forecasts import ROUNDING, settings, small_blocks, values
from small_store import CHANNELS, SmallStore, TestModel, drift
from toy_model import scramble

from weatherfm.data_pipeline.store.states import StoreStates
from weatherfm.earth.forcings import forcing_fields
from weatherfm.errors import InputError
from weatherfm.evaluation.forecasting.on_disk import make_forecast
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.model import WeatherViT


@pytest.fixture
def store() -> SmallStore:
    return SmallStore()


@pytest.fixture
def inits(store) -> np.ndarray:
    return store.times[2:12]


def real_model(store, **more) -> WeatherViT:
    forcings = ["cos_time_of_year", "toa_solar", "latitude"]
    model = WeatherViT(ModelConfig(width=32, depth=2, heads=4, forcings=forcings, **more), store.domain())
    return scramble(model)


@pytest.mark.parametrize("mode", ["direct", "rollout"])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_sixteen_starts_at_once_are_each_alone(store, tmp_path, mode, precision, tolerance):
    """In bfloat16 another batch may round another way; 8 bits, a few layers, two steps."""
    model = real_model(store, input_times=["0h", "-24h"])
    config = settings("24h", "48h", mode=mode, precision=precision, device="cpu")
    inits = store.times[2:18]
    together = make_forecast(model, store, inits, config, tmp_path / "16.zarr", {})
    for i in (0, 7, 15):
        alone = make_forecast(model, store, inits[i : i + 1], config, tmp_path / f"{i}.zarr", {})
        for hours in (24, 48):
            change = (values(together, hours)[i] - values(alone, hours)[0]) / store.std[:, None, None]
            assert np.abs(change).max() < tolerance
    assert ForecastFile(together).provenance.get("precision") == (None if precision == "float32" else precision)


def test_it_is_what_the_model_says(store, tmp_path):
    """Against a plain loop over the model, without any of the package's machinery."""
    model = real_model(store).eval()
    inits = store.times[2:6]
    path = make_forecast(model, store, inits, settings("24h", "48h", mode="rollout"), tmp_path / "f.zarr", {})
    state = model.normalize(torch.from_numpy(store.state[2:6]))
    with torch.no_grad():
        for hours in (0, 24):
            times = inits + np.timedelta64(hours, "h")
            forcings = torch.from_numpy(forcing_fields(model.forcings, times, store.grid))
            state = model(state[:, None], forcings, torch.full((4,), 24))
    np.testing.assert_allclose(values(path, 48), model.denormalize(state).numpy(), rtol=ROUNDING)


def test_a_years_rollout(store, tmp_path):
    """365 steps: the states between are forgotten, and so is every lead time that is on disk."""
    held: dict[int, int] = {}

    def settle(history, lead):
        if len(model.calls) in (10, 200, 360):
            like = history[:, 0].shape
            held[len(model.calls)] = sum(type(x) is torch.Tensor and x.shape == like for x in gc.get_objects())
        return 0.99 * history[:, 1]

    model = TestModel(store.domain(), settle, input_times=("-24h", "0h"))
    config = settings("24h..365d/24h", mode="rollout")
    path = make_forecast(model, store, store.times[1:4], config, tmp_path / "year.zarr", {})
    file = ForecastFile(path)
    assert len(file.lead_times) == 365
    assert max(held.values()) < 12  # a few, whatever the lead time
    anomaly = (store.state[1:4] - store.mean[:, None, None]) / store.std[:, None, None]
    expected = store.mean[:, None, None] + store.std[:, None, None] * anomaly * 0.99**365
    np.testing.assert_allclose(values(path, 8760), expected, rtol=10 * ROUNDING)


class Members:
    """An ensemble of states: the store's, and three that are warmer by one spread each."""

    name, simulated, source = "three members", True, {"kind": "members"}

    def __init__(self, store: SmallStore) -> None:
        self.store, self.channels, self.grid, self.times = store, store.channels, store.grid, store.times
        self.numbers = (3, 5, 7)

    def read(self, times, channels):
        fields = self.store.read(self.store.index_of(times), channels)
        return np.stack([fields + i * self.store.std[:, None, None].astype(np.float32) for i in range(3)], axis=1)


@pytest.mark.parametrize("mode", ["direct", "rollout"])
def test_an_ensemble_is_written_along_number(store, inits, tmp_path, monkeypatch, mode):
    small_blocks(monkeypatch, store, 9)  # three initial times of three members
    config = settings("24h", "48h", mode=mode, batch_size=7)
    path = make_forecast(TestModel(store.domain(), drift), Members(store), inits, config, tmp_path / "f.zarr", {})
    file = ForecastFile(path)
    assert file.members == 3
    for hours in (24, 48):
        fields = file.read(np.arange(10), hours, CHANNELS)  # [init, member, channel, lat, lon]
        for i in range(3):
            expected = store.state[2:12] + (hours / 24 + i) * store.std[:, None, None]
            np.testing.assert_allclose(fields[:, i], expected, rtol=ROUNDING)
    with xr.open_zarr(path) as dataset:
        assert dataset["temperature"].dims == (
            "time",
            "number",
            "prediction_timedelta",
            "level",
            "latitude",
            "longitude",
        )
        assert dataset["number"].values.tolist() == [3, 5, 7]
        assert dataset["number"].attrs["standard_name"] == "realization"


def test_a_bad_member_is_named(store, inits, tmp_path):
    def breaks(history, lead):
        out = history[:, 0].clone()
        out[4, 1, 3, 3] = np.nan
        return out

    model = TestModel(store.domain(), breaks)
    with pytest.raises(InputError, match=r"t850 from 2020-01-04T00:00:00 at 24h, member 5 \(1 of 120 fields\)"):
        make_forecast(model, Members(store), inits, settings("24h", batch_size=30), tmp_path / "f.zarr", {})


def test_a_batch_reaches_over_blocks(store, inits, tmp_path, monkeypatch):
    """Files of large fields hold one initial time each; the model takes as many as it is allowed all the same."""
    small_blocks(monkeypatch, store, 3)
    sizes: list[int] = []

    def count(history, lead):
        sizes.append(len(history))
        return drift(history, lead)

    config = settings("24h", "48h", batch_size=7)
    path = make_forecast(TestModel(store.domain(), count), store, inits, config, tmp_path / "f.zarr", {})
    assert sizes == [6, 6, 4, 4]  # two blocks at once
    for hours in (24, 48):
        expected = store.state[2:12] + (hours / 24) * store.std[:, None, None]
        np.testing.assert_allclose(values(path, hours), expected, rtol=ROUNDING)


def test_too_little_memory_says_what_to_do(store, inits, tmp_path):
    def too_large(history, lead):
        raise torch.OutOfMemoryError("tried to allocate 80 GiB\nmore")

    model = TestModel(store.domain(), too_large)
    with pytest.raises(InputError, match=r"10 samples at once.*80 GiB\); lower forecast.batch_size \(now 16\)"):
        make_forecast(model, store, inits, settings("24h"), tmp_path / "f.zarr", {})
    assert model.training  # as it was handed in


def test_missing_values_in_states_are_named(store, inits, tmp_path):
    store.state[4, 1, 0, 0] = np.nan
    with pytest.raises(InputError, match=r"small\.zarr has missing values in t850 at 2020-01-05T00:00:00 \(1 of 40"):
        make_forecast(TestModel(store.domain(), drift), store, inits, settings("24h"), tmp_path / "f.zarr", {})


def test_a_forecast_begun_by_an_earlier_version_goes_on(store, inits, tmp_path, monkeypatch):
    small_blocks(monkeypatch, store, 3)
    config = settings("24h", batch_size=3)

    def killed(history, lead):
        if len(model.calls) > 2:
            raise KeyboardInterrupt
        return drift(history, lead)

    model, path = TestModel(store.domain(), killed), tmp_path / "f.zarr"
    with pytest.raises(KeyboardInterrupt):
        make_forecast(model, store, inits, config, path, {})
    note = json.loads((path / "progress.json").read_text())
    note["record"]["init_times_a_block"] = note.pop("init_times_a_block")
    (path / "progress.json").write_text(json.dumps(note | {"blocks_done": 2}))
    shutil.rmtree(path / "progress")
    model = TestModel(store.domain(), drift)
    make_forecast(model, store, inits, config, path, {})
    assert len(model.calls) == 2
    np.testing.assert_allclose(values(path, 24), store.state[2:12] + store.std[:, None, None], rtol=ROUNDING)


def test_states_are_read_while_the_model_computes(store, inits, tmp_path, monkeypatch):
    small_blocks(monkeypatch, store, 2)
    reading = threading.Event()

    class Waiting(StoreStates):
        def read(self, times, channels):
            if times[0] > inits[0]:
                reading.set()
            return super().read(times, channels)

    def wait(history, lead):
        assert reading.wait(240)  # for the states of the next block, while this one is computed
        return drift(history, lead)

    model = TestModel(store.domain(), wait)
    make_forecast(model, Waiting(store), inits, settings("24h", batch_size=2), tmp_path / "f.zarr", {})
    assert len(model.calls) == 5
