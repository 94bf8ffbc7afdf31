from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from small_forecasts import ROUNDING, settings, small_blocks, values
from small_store import CHANNELS, EUROPE, SmallStore, TestModel, days, drift, identity

from weatherfm.earth.forcings import forcing_fields
from weatherfm.errors import InputError
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.on_disk import forecast_init_times, make_forecast, required_input_times
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.model import WeatherViT

torch.set_num_threads(1)

PROVENANCE = {"weights_sha256": "abc", "name": "tiny"}


@pytest.fixture
def store() -> SmallStore:
    return SmallStore()


@pytest.fixture
def inits(store) -> np.ndarray:
    return store.times[2:12]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("mode", ["direct", "rollout"])
def test_identity_is_persistence(store, inits, tmp_path, mode):
    path = make_forecast(
        TestModel(store.domain(), identity), store, inits, settings("24h", "72h", mode=mode), tmp_path / "f.zarr", {}
    )
    for hours in (24, 72):
        np.testing.assert_allclose(values(path, hours), store.state[2:12], rtol=ROUNDING)


@pytest.mark.parametrize("mode", ["direct", "rollout"])
def test_a_known_rule(store, inits, tmp_path, mode):
    model = TestModel(store.domain(), drift)
    path = make_forecast(model, store, inits, settings("24h", "72h", mode=mode), tmp_path / "f.zarr", {})
    for hours in (24, 72):
        expected = store.state[2:12] + (hours / 24) * store.std[:, None, None]
        np.testing.assert_allclose(values(path, hours), expected, rtol=ROUNDING)
    assert model.calls == ([24, 72] if mode == "direct" else [24, 24, 24])  # one call a lead time, or a step
    assert model.training  # as it was handed in


def test_rollout_feeds_back_every_input_time(store, inits, tmp_path):
    """Extrapolating the last two days' change linearly is exact after any number of steps."""
    model = TestModel(store.domain(), lambda x, lead: 2 * x[:, 1] - x[:, 0], input_times=("-48h", "0h"))
    path = make_forecast(model, store, inits, settings("24h", "96h", mode="rollout"), tmp_path / "f.zarr", {})
    state = {hours: store.state[2 + hours // 24 : 12 + hours // 24].astype(np.float64) for hours in (-48, -24, 0)}
    for hours in (24, 48, 72, 96):
        state[hours] = 2 * state[hours - 24] - state[hours - 72]
    for hours in (24, 96):
        np.testing.assert_allclose(values(path, hours), state[hours], rtol=10 * ROUNDING)


def test_history_is_in_the_order_of_the_model(store, inits, tmp_path):
    model = TestModel(store.domain(), lambda x, lead: x[:, 1], input_times=("0h", "-24h"))
    path = make_forecast(model, store, inits, settings("24h"), tmp_path / "f.zarr", {})
    np.testing.assert_allclose(values(path, 24), store.state[1:11], rtol=ROUNDING)


@pytest.mark.parametrize("mode", ["direct", "rollout"])
def test_forcings_are_those_of_the_time_a_step_starts_from(store, inits, tmp_path, mode):
    names = ["cos_time_of_year", "sin_time_of_day", "latitude"]
    model = TestModel(store.domain(), identity, forcings=names)
    make_forecast(model, store, inits, settings("24h", "48h", mode=mode), tmp_path / "f.zarr", {})
    for forcings, hours in zip(model.given_forcings, [0, 24] if mode == "rollout" else [0, 0], strict=True):
        expected = forcing_fields(names, inits + np.timedelta64(hours, "h"), store.grid)
        np.testing.assert_array_equal(forcings, expected)


def test_batches_do_not_matter(store, inits, tmp_path):
    model = TestModel(store.domain(), drift)
    for size in (3, 10):
        make_forecast(model, store, inits, settings("24h", batch_size=size), tmp_path / f"{size}.zarr", {})
    assert contents(tmp_path / "3.zarr") == contents(tmp_path / "10.zarr")


def test_a_real_model_untrained_is_persistence(tmp_path):
    store = SmallStore(EUROPE)
    model = WeatherViT(ModelConfig(width=16, depth=1, heads=2, forcings=["cos_time_of_year"]), store.domain())
    inits = store.times[1:4]
    path = make_forecast(model, store, inits, settings("24h", "48h", mode="rollout"), tmp_path / "f.zarr", PROVENANCE)
    np.testing.assert_allclose(values(path, 48), store.state[1:4], rtol=ROUNDING)
    assert ForecastFile(path).provenance["model"]["width"] == 16


def test_a_model_of_fewer_channels(store, inits, tmp_path):
    channels = ("t2m", "z500")
    path = make_forecast(TestModel(store.domain(channels), identity), store, inits, settings("24h"), tmp_path / "f", {})
    file = ForecastFile(path)
    assert file.channels == channels
    np.testing.assert_allclose(file.read([0], 24, channels), store.state[2:3, [3, 0]], rtol=ROUNDING)


def test_plain_xarray_finds_weatherbench2_names(store, inits, tmp_path):
    path = make_forecast(
        TestModel(store.domain(), identity), store, inits, settings("24h", "48h"), tmp_path / "f.zarr", PROVENANCE
    )
    with xr.open_zarr(path) as dataset:
        assert set(dataset.data_vars) == {"geopotential", "temperature", "2m_temperature"}
        assert dataset["temperature"].dims == ("time", "prediction_timedelta", "level", "latitude", "longitude")
        assert dataset["2m_temperature"].dims == ("time", "prediction_timedelta", "latitude", "longitude")
        np.testing.assert_array_equal(dataset["time"].values.astype("datetime64[s]"), inits)
        assert dataset["prediction_timedelta"].values.tolist() == [24 * 3600 * 10**9, 48 * 3600 * 10**9]
        assert dataset["prediction_timedelta"].dtype.kind == "m"
        assert dataset["level"].values.tolist() == [500, 850]
        np.testing.assert_array_equal(dataset["latitude"], store.grid.latitude)
        assert dataset["geopotential"].attrs["units"] == "m2 s-2"
        assert dataset["geopotential"].attrs["standard_name"] == "geopotential"
        assert dataset["geopotential"].dtype == np.float32
        assert dataset["geopotential"].encoding["shards"][0] == len(inits)
        assert np.isnan(dataset["geopotential"].sel(level=850)).all()  # not a channel
        np.testing.assert_allclose(
            dataset["temperature"].sel(level=850)[:, 1], store.state[2:12, CHANNELS.index("t850")], rtol=ROUNDING
        )
        assert dataset.attrs["simulated"] == "true"
        provenance = json.loads(dataset.attrs["provenance"])
    assert provenance["weights_sha256"] == "abc"
    assert provenance["channels"] == list(CHANNELS)
    assert provenance["store_source"]["kind"] == "planet"
    assert provenance["init_times"]["count"] == len(inits)


@pytest.mark.parametrize("calls_before_the_kill", [0, 1, 5, 6, 7])
def test_interrupted_and_started_again_gives_the_same_bytes(store, inits, tmp_path, monkeypatch, calls_before_the_kill):
    small_blocks(monkeypatch, store, 3)
    config = settings("24h", "48h", batch_size=3)
    whole = make_forecast(TestModel(store.domain(), drift), store, inits, config, tmp_path / "whole.zarr", PROVENANCE)

    def killed(history, lead):
        if len(model.calls) > calls_before_the_kill:
            raise KeyboardInterrupt
        return drift(history, lead)

    model, path = TestModel(store.domain(), killed), tmp_path / "f.zarr"
    with pytest.raises(KeyboardInterrupt):
        make_forecast(model, store, inits, config, path, PROVENANCE)
    with pytest.raises(InputError, match="unfinished"):
        ForecastFile(path)
    (path / "geopotential" / "c").mkdir(exist_ok=True)
    (path / "geopotential" / "c" / "0.__lock").touch()  # what a killed write leaves behind

    model = TestModel(store.domain(), drift)
    make_forecast(model, store, inits, config, path, PROVENANCE)
    assert contents(path) == contents(whole)
    assert len(model.calls) == 2 * (4 - calls_before_the_kill // 2)  # finished blocks are not made again


def test_a_finished_forecast_is_left_alone(store, inits, tmp_path):
    model = TestModel(store.domain(), drift)
    path = make_forecast(model, store, inits, settings("24h"), tmp_path / "f.zarr", PROVENANCE)
    before, calls = contents(path), len(model.calls)
    make_forecast(model, store, inits, settings("24h"), path, PROVENANCE)
    assert contents(path) == before
    assert len(model.calls) == calls


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"init_times": slice(3, 12)}, "init_times"),
        ({"lead_times": ["24h", "48h"]}, "lead_times_hours"),
        ({"provenance": {"weights_sha256": "other"}}, "weights_sha256"),
        ({"mode": "rollout"}, "mode"),
    ],
)
def test_another_request_on_the_same_path_is_refused(store, tmp_path, change, words, finished):
    def run(init_times=slice(2, 12), lead_times=("24h",), provenance=PROVENANCE, mode="direct", rule=drift):
        config = settings(*lead_times, mode=mode)
        make_forecast(TestModel(store.domain(), rule), store, store.times[init_times], config, path, provenance)

    def fails(history, lead):
        raise KeyboardInterrupt

    path = tmp_path / "f.zarr"
    if finished:
        run()
    else:
        with pytest.raises(KeyboardInterrupt):
            run(rule=fails)
    before = contents(path)
    with pytest.raises(InputError, match=f"holds another forecast.*{words}"):
        run(**change)
    assert contents(path) == before


def test_a_path_with_something_else_is_left_alone(store, inits, tmp_path):
    model = TestModel(store.domain(), drift)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    xr.Dataset({"a": ("x", [1])}).to_zarr(tmp_path / "other.zarr")
    (tmp_path / "file").write_text("mine")
    for name in ("notes", "other.zarr", "file"):
        with pytest.raises(InputError, match="no forecast of weatherfm"):
            make_forecast(model, store, inits, settings("24h"), tmp_path / name, {})
    assert (tmp_path / "notes" / "a.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_written(store, inits, tmp_path):
    def fails(history, lead):
        (path / "geopotential" / "zarr.json").unlink()
        (path / "geopotential" / "c").write_text("no folder")
        return drift(history, lead)

    path = tmp_path / "f.zarr"
    with pytest.raises(InputError, match=r"cannot write .*f\.zarr.*forecast again"):
        make_forecast(TestModel(store.domain(), fails), store, inits, settings("24h"), path, {})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_named(store, inits, tmp_path, value):
    def breaks(history, lead):
        out = history[:, 0].clone()
        out[4, 1, 3, 3] = value if lead[0] == 48 else 0
        return out

    with pytest.raises(InputError, match=r"t850 from 2020-01-07T00:00:00 at 48h \(1 of 40 fields\)"):
        make_forecast(TestModel(store.domain(), breaks), store, inits, settings("24h", "48h"), tmp_path / "f.zarr", {})


def test_refused_before_anything_is_computed(store, inits, tmp_path):
    model = TestModel(store.domain(), drift, input_times=("-24h", "0h"))
    path, config = tmp_path / "f.zarr", settings("24h")
    with pytest.raises(InputError, match="lacks 2019-12-31"):
        make_forecast(model, store, store.times[:3], config, path, {})
    with pytest.raises(InputError, match="ascend"):
        make_forecast(model, store, inits[::-1], config, path, {})
    with pytest.raises(InputError, match="at least one"):
        make_forecast(model, store, inits[:0], config, path, {})
    with pytest.raises(InputError, match="grid"):
        make_forecast(model, SmallStore(EUROPE), inits, config, path, {})
    other = SmallStore()
    other.channels = ("z500", "t850", "t500", "u10")
    with pytest.raises(InputError, match="needs t2m"):
        make_forecast(model, other, inits, config, path, {})
    assert not model.calls
    assert not path.exists()


def test_required_input_times():
    assert required_input_times([0, -24], settings("6h", "24h")) == [-24, 0]
    rollout = settings("24h", "72h", mode="rollout")
    assert required_input_times([0], rollout) == [0]
    assert required_input_times([-48, 0], rollout) == [-48, -24, 0]
    assert required_input_times([-6, 0], settings("24h", mode="rollout", rollout_step="24h")) == [-6, 0]
    with pytest.raises(InputError, match=r"-6h.*does not produce"):
        required_input_times([-6, 0], rollout)


def test_init_times_every_so_often():
    store = SmallStore(count=40, step_hours=12)
    daily = forecast_init_times(store, settings("24h", "48h"), [0])
    np.testing.assert_array_equal(daily, days("2020-01-01", 18))
    with_history = forecast_init_times(store, settings("24h", "48h"), [0, -12])
    np.testing.assert_array_equal(with_history, days("2020-01-02", 17))  # still at 00 UTC
    assert len(forecast_init_times(store, settings("24h", init_every="12h"), [0])) == 38
    with pytest.raises(InputError, match="no initial time"):
        forecast_init_times(store, settings("800h"), [0])
    store.periods["test"] = None
    with pytest.raises(InputError, match="no test period"):
        forecast_init_times(store, settings("24h"), [0])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lead_times": ["48h", "24h"]}, "ascend"),
        ({"lead_times": ["24h", "24h"]}, "each once"),
        ({"lead_times": [0, "24h"]}, "positive"),
        ({"rollout_step": "-6h"}, "rollout_step must be positive"),
        ({"init_every": 0}, "init_every must be positive"),
        ({"mode": "rollout", "lead_times": ["24h", "36h"]}, "36h are not multiples"),
    ],
)
def test_settings_refused(given, words):
    with pytest.raises(ValueError, match=words):
        ForecastConfig(**given)
