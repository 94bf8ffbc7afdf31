"""Forecasts from states that lack channels of the model: refused, or made as if nothing were known of these."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
import toy_run
import xarray as xr
from toy_model import scramble

import weatherfm
from weatherfm.earth.forcings import forcing_fields
from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.model import WeatherViT
from weatherfm.model.weights import save_weights

MODEL = {"patch_size": 2, "width": 16, "depth": 1, "heads": 2, "input_times": ["-6h", "0h"], "forcings": ["latitude"]}
INIT = "2000-01-03"
PLAIN = {"settings": {"training": {"lead_times": ["6h", "12h"]}}}
SAMPLED = {"settings": {"training": {"lead_times": ["6h", "12h"], "channel_sampling": 0.5}}}
NAMES = {"z500": "geopotential", "t850": "temperature", "u10": "10m_u_component_of_wind"}
UNITS = {"z500": "m2 s-2", "t850": "K", "u10": "m s-1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("missing")
    toy_run.make_store(folder)
    store = weatherfm.open_store(folder / "store.zarr")
    model = scramble(WeatherViT(ModelConfig(**MODEL), store.domain()))
    for name, provenance in (("sampled", SAMPLED), ("plain", PLAIN)):
        save_weights(folder / f"{name}.safetensors", model, provenance)
    return folder


@pytest.fixture
def store(folder):
    return weatherfm.open_store(folder / "store.zarr")


@pytest.fixture
def model(folder):
    return weatherfm.load(folder / "sampled.safetensors", "cpu")


def dataset(store, *channels: str) -> xr.Dataset:
    """The first days of a store, of some channels, as people have them."""
    rows, variables = np.arange(16), {}
    for name, field in zip(channels, store.read(rows, list(channels)).swapaxes(0, 1), strict=True):
        dims = ("time", "latitude", "longitude")
        array = xr.DataArray(field, dims=dims)
        if name != "u10":
            array = array.expand_dims(level=[int(name[1:])], axis=1)
        variables[NAMES[name]] = array.assign_attrs(units=UNITS[name])
    coordinates = {
        "time": store.times[rows].astype("datetime64[ns]"),
        "latitude": store.grid.latitude,
        "longitude": store.grid.longitude,
    }
    states = xr.merge([xr.Dataset({name: array}) for name, array in variables.items()], join="outer")
    if "level" in states:
        states["level"].attrs["units"] = "hPa"
    return states.assign_coords(coordinates).assign_attrs(simulated="true")


def by_hand(model, store, lacking: list[str], steps: list[tuple[int, int, list[bool]]]) -> torch.Tensor:
    """Fields of the last step, of (start, length, whether lacking channels are there at each input time)."""
    init, states = np.datetime64(INIT, "s"), {}
    channels = model.domain.channels
    for hours in (-6, 0):
        time = np.array([init + np.timedelta64(hours, "h")])
        states[hours] = model.normalize(torch.from_numpy(store.read(store.index_of(time), channels)))
    for start, length, there in steps:
        history = torch.stack([states[start - 6], states[start]], 1)
        present = torch.tensor([[name not in lacking or known for known in there for name in channels]])
        present = torch.cat([present, torch.ones(1, 1, dtype=torch.bool)], 1)  # the latitude
        for t, known in enumerate(there):
            if not known:  # whatever stands there
                history[:, t, [channels.index(name) for name in lacking]] = torch.nan
        time = np.array([init + np.timedelta64(start, "h")])
        forcings = torch.from_numpy(forcing_fields(model.forcings, time, model.domain.grid))
        with torch.no_grad():
            states[start + length] = model(history, forcings, torch.tensor([length]), present)
    return model.denormalize(states[start + length])[0]


def fields(forecast: xr.Dataset, lead: int) -> torch.Tensor:
    """[C, H, W]."""
    shown = forecast.isel(init_time=0, lead_time=lead)
    z, t = shown["geopotential"].sel(level=500), shown["temperature"].sel(level=850)
    return torch.from_numpy(np.stack([z, t, shown["10m_u_component_of_wind"]]))


@pytest.mark.parametrize("lacking", [["t850"], ["z500", "u10"]], ids=str)
def test_absent_channels_are_predicted_as_if_nothing_were_known_of_them(model, store, lacking, caplog):
    states = dataset(store, *(name for name in model.domain.channels if name not in lacking))
    with caplog.at_level(logging.WARNING):
        made = weatherfm.forecast(model, states, ["6h", "12h"], INIT, allow_missing=True)
    for lead in (0, 1):
        expected = by_hand(model, store, lacking, [(0, 6 + 6 * lead, [False, False])])
        torch.testing.assert_close(fields(made, lead), expected, rtol=1e-5, atol=1e-4)
    assert json.loads(made.attrs["provenance"])["missing_channels"] == lacking
    assert f"the Dataset lacks {', '.join(lacking)}: forecast as if nothing were known of them" in caplog.text
    assert "never learned" not in caplog.text


def test_after_a_step_the_models_own_are_there(model, store):
    states = dataset(store, "z500", "u10")
    made = weatherfm.forecast(model, states, ["6h", "12h", "18h"], INIT, rollout="6h", allow_missing=True)
    steps = [(0, 6, [False, False]), (6, 6, [False, True]), (12, 6, [True, True])]
    for lead in range(3):
        expected = by_hand(model, store, ["t850"], steps[: lead + 1])
        torch.testing.assert_close(fields(made, lead), expected, rtol=1e-5, atol=1e-4)


def test_nothing_changes_where_nothing_is_missing(model, store, caplog):
    plain = weatherfm.forecast(model, store, ["6h"], INIT)
    allowed = weatherfm.forecast(model, store, ["6h"], INIT, allow_missing=True)
    assert plain.identical(allowed)
    assert "lacks" not in caplog.text


def test_files_onto_disk_with_the_flag(folder, store, model, capsys, caplog):
    from weatherfm.cli import run_command

    states = dataset(store, "z500", "u10")
    states.to_netcdf(folder / "states.nc")
    arguments = ["forecast", str(folder / "plain.safetensors"), "--store", str(folder / "states.nc"), "--init", INIT]
    arguments += ["--lead", "6h", "--output", str(folder / "forecast.zarr"), "forecast.device=cpu"]
    assert run_command(arguments) == 2
    told = capsys.readouterr().err
    assert "the model needs t850, which" in told
    assert "allow-missing" not in told  # weights that never learned it
    assert run_command([*arguments, "--allow-missing"]) == 0
    assert "never learned to do without (training.channel_sampling)" in capsys.readouterr().err + caplog.text
    expected = weatherfm.forecast(model, states, "6h", INIT, allow_missing=True)
    with weatherfm.open_forecast(folder / "forecast.zarr") as written:
        torch.testing.assert_close(fields(written, 0), fields(expected, 0), rtol=1e-6, atol=1e-6)
        assert json.loads(written.attrs["provenance"])["missing_channels"] == ["t850"]


def test_refused(model, store):
    with pytest.raises(InputError, match=r"needs t850, which .* lacks .*channels, or without them: --allow-missing"):
        weatherfm.forecast(model, dataset(store, "z500", "u10"), "6h", INIT)
    others = dataset(store, "z500").rename(geopotential="temperature").sel(level=[500])
    others["temperature"].attrs["units"] = "K"
    with pytest.raises(InputError, match=r"needs z500, t850, u10, which .* lacks .*some of the model's channels"):
        weatherfm.forecast(model, others, "6h", INIT, allow_missing=True)


def test_a_channel_in_doubtful_units_is_not_one_that_is_missing(model, store):
    states = dataset(store, "z500", "t850", "u10")
    states["temperature"].attrs["units"] = "Pa"
    with pytest.raises(InputError, match="'Pa'"):
        weatherfm.forecast(model, states, "6h", INIT, allow_missing=True)
