"""`weatherfm.forecast`: states of Datasets, files and stores in, a Dataset out; what does not fit is refused."""

from __future__ import annotations

import json
import warnings
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import toy_run
import xarray as xr
from small_store import EUROPE, SmallStore, TestModel, drift, identity
from toy_model import make_domain, make_model, scramble

import weatherfm
from weatherfm.data_pipeline.sources.file_states import open_dataset_states
from weatherfm.data_pipeline.store.states import StoreStates
from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError
from weatherfm.evaluation.evaluate import evaluate
from weatherfm.evaluation.forecast_config import EvaluationConfig, ForecastConfig
from weatherfm.evaluation.forecasting.on_disk import make_forecast
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.model import WeatherViT
from weatherfm.model.weights import save_weights, weights_hash

ROUNDING = 1e-5


class Rule(TestModel):
    provenance: dict = {}


@pytest.fixture
def store() -> SmallStore:
    return SmallStore(EUROPE, count=6)


def as_dataset(store: SmallStore, times=slice(None)) -> xr.Dataset:
    """The store's states as people have them: ERA5's names, hPa, latitude ascending."""
    z500, t850, t500, t2m = store.state[times].transpose(1, 0, 2, 3)
    surface, upper = ("time", "latitude", "longitude"), ("time", "level", "latitude", "longitude")
    empty = np.full_like(z500, np.nan)
    dataset = xr.Dataset(
        {
            "geopotential": (upper, np.stack([z500, empty], axis=1), {"units": "m**2 s**-2"}),
            "temperature": (upper, np.stack([t500, t850], axis=1), {"units": "K"}),
            "2m_temperature": (surface, t2m - 273.15, {"units": "degC"}),
        },
        {
            "time": store.times[times].astype("datetime64[ns]"),
            "level": ("level", [500, 850], {"units": "hPa"}),
            "latitude": store.grid.latitude,
            "longitude": store.grid.longitude,
        },
    )
    dataset.attrs["simulated"] = "true"  # noise that no Earth has
    return dataset.isel(latitude=slice(None, None, -1))


@pytest.fixture
def model(store) -> Rule:
    return Rule(store.domain(), drift)


def fields(forecast: xr.Dataset, lead: str) -> np.ndarray:
    """[init, channel, lat, lon] in the order of the store's channels."""
    at = forecast.sel(lead_time=np.timedelta64(lead.removesuffix("h"), "h"))
    upper = [at["geopotential"].sel(level=500), *(at["temperature"].sel(level=level) for level in (850, 500))]
    return np.stack([*upper, at["2m_temperature"]], axis=1)


def test_a_dataset_made_by_hand(store, model):
    states = as_dataset(store)
    before = states.copy(deep=True)
    forecast = weatherfm.forecast(model, states, lead_times=["24h", timedelta(days=3)])
    xr.testing.assert_identical(states, before)  # what is given is not changed
    assert forecast["temperature"].dims == ("init_time", "lead_time", "level", "latitude", "longitude")
    assert forecast["2m_temperature"].dims == ("init_time", "lead_time", "latitude", "longitude")
    assert forecast["init_time"].values == store.times[-1]  # the latest
    assert (forecast["lead_time"] / np.timedelta64(1, "h")).values.tolist() == [24, 72]
    assert forecast["valid_time"].values.tolist() == (forecast["init_time"] + forecast["lead_time"]).values.tolist()
    np.testing.assert_array_equal(forecast["latitude"], store.grid.latitude)
    np.testing.assert_array_equal(forecast["longitude"], store.grid.longitude)
    for lead in ("24h", "72h"):
        days = int(lead[:-1]) / 24
        expected = store.state[-1:] + days * store.std[:, None, None]
        np.testing.assert_allclose(fields(forecast, lead), expected, rtol=ROUNDING)
    assert np.isnan(forecast["geopotential"].sel(level=850)).all()
    assert forecast["2m_temperature"].attrs["units"] == "K"
    assert forecast["geopotential"].attrs["standard_name"] == "geopotential"
    assert forecast["temperature"].attrs["long_name"] == "temperature"
    assert forecast.attrs["simulated"] == "true"


@pytest.mark.parametrize(
    ("init", "days"),
    [
        ("latest", [5]),
        ("2020-01-03T00", [2]),
        (["2020-01-05", "2020-01-02"], [1, 4]),
        (np.datetime64("2020-01-03"), [2]),
        ([datetime(2020, 1, 2), datetime(2020, 1, 4)], [1, 3]),
        (np.array(["2020-01-02", "2020-01-04"], "datetime64[ns]"), [1, 3]),
        ("2020-01-02/2020-01-04", [1, 2, 3]),
        (pd.DatetimeIndex(["2020-01-02", "2020-01-04"]), [1, 3]),
        (pd.DatetimeIndex(["2020-01-02T05", "2020-01-04T05"], tz="Etc/GMT-5"), [1, 3]),
        (pd.Series(pd.to_datetime(["2020-01-02"])), [1]),
        (pd.Timestamp("2020-01-02"), [1]),
        (date(2020, 1, 2), [1]),
        (datetime(2020, 1, 2, 3, tzinfo=timezone(timedelta(hours=3))), [1]),
        ((datetime(2020, 1, day) for day in (2, 3)), [1, 2]),
        (lambda states: states.indexes["time"][-2:], [4, 5]),
        (lambda states: states.time[-1], [5]),
        (lambda states: states.time[-2:], [4, 5]),
        (lambda states: states.time[-2:].values, [4, 5]),
    ],
)
def test_initial_times(store, model, init, days):
    states = as_dataset(store)
    with warnings.catch_warnings(action="error"):
        forecast = weatherfm.forecast(model, states, init=init(states) if callable(init) else init)
    np.testing.assert_array_equal(forecast["init_time"], store.times[days])
    np.testing.assert_allclose(fields(forecast, "24h"), store.state[days] + store.std[:, None, None], rtol=ROUNDING)


@pytest.mark.parametrize(
    "lead_times",
    [
        pd.to_timedelta(["1D", "48h"]),
        xr.DataArray(np.array([24, 48], "timedelta64[h]").astype("timedelta64[ns]"), dims="lead"),
        (f"{hours}h" for hours in (24, 48)),
        np.array([1, 2], "timedelta64[D]"),
        [pd.Timedelta("1D"), np.timedelta64(48, "h")],
        "24h..2d/24h",
    ],
)
def test_lead_times(store, model, lead_times):
    forecast = weatherfm.forecast(model, as_dataset(store), lead_times, rollout=timedelta(days=1))
    assert (forecast["lead_time"] / np.timedelta64(1, "h")).values.tolist() == [24, 48]


def test_members_without_numbers_are_counted(store, model):
    states = xr.concat([as_dataset(store)] * 3, "number")
    assert "number" not in states.coords
    assert weatherfm.forecast(model, states)["number"].values.tolist() == [0, 1, 2]


def test_a_path_is_no_model(store):
    with pytest.raises(InputError, match=r"'w.safetensors' \(str\), no model; give what weatherfm.load"):
        weatherfm.forecast("w.safetensors", as_dataset(store))


def test_every_kind_of_place_gives_the_same(store, tmp_path):
    model = scramble(WeatherViT(ModelConfig(patch_size=3, width=16, depth=1, heads=2), store.domain()))
    dataset = as_dataset(store)
    dataset.to_netcdf(tmp_path / "all.nc")
    dataset[["geopotential", "temperature"]].to_netcdf(tmp_path / "part-a.nc")
    dataset[["2m_temperature"]].to_netcdf(tmp_path / "part-b.nc")
    dataset.chunk({"time": 2}).to_zarr(tmp_path / "states.zarr", zarr_format=2)
    expected = weatherfm.forecast(model, StoreStates(store), ["24h", "48h"], "2020-01-02,2020-01-05", rollout="24h")
    with xr.open_dataset(tmp_path / "all.nc", chunks={}) as lazy:
        for place in (
            dataset,
            lazy,
            tmp_path / "all.nc",
            str(tmp_path / "part-*.nc"),
            [tmp_path / "part-a.nc", tmp_path / "part-b.nc"],
            tmp_path / "states.zarr",
        ):
            given = weatherfm.forecast(model, place, ["24h", "48h"], "2020-01-02,2020-01-05", rollout="24h")
            for name in expected.data_vars:
                spread = float(expected[name].std())
                np.testing.assert_allclose(given[name], expected[name], atol=1e-4 * spread)  # degC and back


def test_from_a_store_with_weights_from_a_file(tmp_path):
    """The five lines of the README."""
    toy_run.make_store(tmp_path)
    store = weatherfm.open_store(tmp_path / "store.zarr")
    trained = WeatherViT(ModelConfig(patch_size=2, width=16, depth=1, heads=2), store.domain())
    save_weights(tmp_path / "w.safetensors", trained, {})  # untrained it is persistence
    model = weatherfm.load(tmp_path / "w.safetensors", device="cpu")
    by_store = weatherfm.forecast(model, store, lead_times=["6h"])
    by_path = weatherfm.forecast(model, tmp_path / "store.zarr", lead_times=["6h"])
    xr.testing.assert_identical(by_store, by_path)
    assert by_store.attrs["simulated"] == "true"
    with xr.open_zarr(tmp_path / "store.zarr") as plain:
        last = plain["state"].isel(time=-1)
        assert by_store["init_time"].values == last["time"].values
        for given, channel in (
            (by_store["geopotential"].sel(level=500), "z500"),
            (by_store["10m_u_component_of_wind"], "u10"),
        ):
            np.testing.assert_allclose(given.squeeze(), last.sel(channel=channel), rtol=1e-4, atol=1e-4)


def test_what_comes_out_can_go_in(store, model):
    first = weatherfm.forecast(model, as_dataset(store), lead_times="24h")
    again = weatherfm.forecast(model, first, lead_times="24h")
    assert again["init_time"].values == first["valid_time"].values.ravel()
    np.testing.assert_allclose(fields(again, "24h"), store.state[-1:] + 2 * store.std[:, None, None], rtol=ROUNDING)


def test_an_ensemble_of_states(store, model):
    members = [as_dataset(store).assign_coords(number=n) for n in (0, 4)]
    members[1]["temperature"] = members[1]["temperature"] + 2
    states = xr.concat(members, "number")
    forecast = weatherfm.forecast(model, states, init="2020-01-02,2020-01-03", batch_size=3)
    assert forecast["temperature"].dims == ("init_time", "number", "lead_time", "level", "latitude", "longitude")
    assert forecast["number"].values.tolist() == [0, 4]
    single = weatherfm.forecast(model, as_dataset(store), init="2020-01-02,2020-01-03")
    for i, warmer in enumerate((0, 2)):
        one = forecast.isel(number=i)
        np.testing.assert_allclose(one["temperature"], single["temperature"] + warmer, rtol=ROUNDING)
        np.testing.assert_allclose(one["2m_temperature"], single["2m_temperature"], rtol=ROUNDING)


@pytest.fixture(params=[2, 3], ids=lambda version: f"zarr {version}")
def written(store, model, tmp_path, request) -> Path:
    """A forecast that its user has written with xarray; its levels are uneven: z500, t850, t500."""
    made = weatherfm.forecast(model, as_dataset(store), ["24h", "48h"], init="2020-01-02/2020-01-04")
    made.to_zarr(tmp_path / "f.zarr", zarr_format=request.param)
    return tmp_path / "f.zarr"


def test_scored_like_any_other(store, model, written, tmp_path):
    """`weatherfm evaluate` gives the scores of the same forecast by the command."""
    inits = store.times[1:4]
    config = ForecastConfig(lead_times=["24h", "48h"])
    by_command = make_forecast(model, store, inits, config, tmp_path / "command.zarr", {"weights_sha256": "abc"})
    settings = EvaluationConfig(spectra=False, damped_persistence=False)
    expected, given = (evaluate(path, store, settings=settings) for path in (by_command, written))
    assert given["channel"].values.tolist() == list(store.channels)
    np.testing.assert_allclose(given["rmse"], expected["rmse"], rtol=1e-3)


def test_a_forecast_tells_how_it_came_about(store, model, written):
    model.provenance = {"settings": {"training": {"lead_times": ["24h"]}}}
    made = weatherfm.forecast(model, as_dataset(store), ["24h", "48h"], precision="bfloat16")
    told = json.loads(made.attrs["provenance"])
    assert told["training"] == model.provenance
    assert (told["mode"], told["precision"], told["untrained_steps_hours"]) == ("direct", "bfloat16", [48])
    assert told["store_source"] == {"kind": "xarray.Dataset"}
    file = ForecastFile(written)
    assert file.simulated  # so that its scores say it, too
    assert file.name == "model"


@pytest.mark.parametrize("version", [2, 3])
def test_a_field_of_zeros_is_no_missing_field(store, model, tmp_path, version):
    """Zarr leaves out chunks that hold nothing but its fill value; a file that lacks chunks is damaged."""
    made = weatherfm.forecast(model, as_dataset(store))
    made["2m_temperature"][:] = 0.0
    made.to_zarr(tmp_path / "f.zarr", zarr_format=version)
    made.to_netcdf(tmp_path / "f.nc")
    assert (ForecastFile(tmp_path / "f.zarr").read([0], 24, ["t2m"]) == 0).all()


def test_what_its_user_has_left_out_is_not_asked_for(store, model, tmp_path):
    made = weatherfm.forecast(model, as_dataset(store))
    made.drop_vars("temperature").to_zarr(tmp_path / "f.zarr", zarr_format=2)
    assert ForecastFile(tmp_path / "f.zarr").channels == ("z500", "t2m")


def test_the_weights_file_is_named_while_they_are_its_weights(store, tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, WeatherViT(ModelConfig(patch_size=3, width=16, depth=1, heads=2), store.domain()), {})
    loaded = weatherfm.load(path, "cpu")
    for _ in range(2):
        told = json.loads(weatherfm.forecast(loaded, as_dataset(store)).attrs["provenance"])
        assert told["weights_sha256"] == weights_hash(path)
    with torch.no_grad():
        next(loaded.parameters()).mul_(2)  # as fine-tuning does
    assert "weights_sha256" not in json.loads(weatherfm.forecast(loaded, as_dataset(store)).attrs["provenance"])


# --- refused, before anything is computed ----------------------------------------------------------------------


def no_level(states: xr.Dataset) -> xr.Dataset:
    return states.sel(level=[500])


def other_units(states: xr.Dataset) -> xr.Dataset:
    states["2m_temperature"].attrs["units"] = "Pa"
    return states


def no_units(states: xr.Dataset) -> xr.Dataset:
    del states["temperature"].attrs["units"]
    return states


def coarser(states: xr.Dataset) -> xr.Dataset:
    return states.isel(latitude=slice(None, None, 2))


def no_time(states: xr.Dataset) -> xr.Dataset:
    return states.isel(time=slice(0, 0))


def not_a_grid(states: xr.Dataset) -> xr.Dataset:
    return states.drop_vars("latitude")


def several_leads(states: xr.Dataset) -> xr.Dataset:
    return states.expand_dims(lead_time=np.array([0, 24], "timedelta64[h]").astype("timedelta64[ns]"))


def a_hole(states: xr.Dataset) -> xr.Dataset:
    states["2m_temperature"][-1, 2, 3] = np.nan
    return states


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda states: states.drop_vars("2m_temperature"),
            r"model needs t2m, which the Dataset lacks \(it has .*t850",
        ),
        (no_level, r"model needs t850, which the Dataset lacks"),
        (other_units, r"2m_temperature has units 'Pa', which do not convert to K; set the attribute units"),
        (no_units, r"temperature does not say its units \(None\); expected K.*; set the attribute units"),
        (coarser, r"the model's grid is .*that of the Dataset is"),
        (no_time, r"the Dataset has no time to forecast from.*no times"),
        (not_a_grid, r"the Dataset cannot be used: its dimension 'latitude' has no values"),
        (several_leads, r"several lead times"),
        (a_hole, r"missing values in t2m at 2020-01-06T00:00:00"),
        (lambda states: xr.Dataset({"a": ("x", [1.0])}), r"no field on a latitude-longitude grid"),
        (lambda states: states["temperature"].values, r"cannot be read from ndarray; give a store, a path"),
        (lambda states: 7, r"cannot be read from int"),
        (lambda states: "/no/such/store.zarr", r"no store at /no/such/store.zarr"),
        (lambda states: "/no/such.nc", r"no file /no/such.nc to read states from"),
        (lambda states: "", r"'', which is no path"),
        (lambda states: "/no/such/*.nc", r"no file matches"),
    ],
)
def test_states_refused(store, model, change, words):
    with pytest.raises(InputError, match=words):
        weatherfm.forecast(model, change(as_dataset(store)))
    assert model.calls == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lead_times": ["24"]}, "write a whole time span"),
        ({"lead_times": [timedelta(minutes=30)]}, "no whole number of hours"),
        ({"lead_times": ["24h", "36h"], "rollout": "24h"}, "not multiples"),
        ({"init": "2020-01-09"}, r"no state in 2020-01-09/2020-01-09, only 6 times"),
        ({"init": "2020-01-09T00"}, r"the Dataset lacks 2020-01-09T00"),
        ({"init": datetime(2020, 1, 2, 0, 30)}, "no whole hour"),
        ({"init": object()}, "no time"),
        ({"init": np.datetime64("2020-01")}, "no day and no hour"),
        ({"init": np.datetime64("NaT")}, "NaT"),
        ({"init": [pd.NaT]}, "NaT"),
        ({"init": [None]}, "no time"),
        ({"init": 2020}, "no time"),
        ({"init": ""}, "no initial time in ''"),
        ({"init": []}, "no initial time in ''"),
        ({"init": "2020-1"}, "not understood; write days"),
        ({"lead_times": [np.timedelta64("NaT")]}, "no time span of a known length"),
        ({"lead_times": pd.to_timedelta([None])}, "write a whole time span"),
        ({"lead_times": [pd.NaT]}, "write a whole time span"),
        ({"lead_times": np.timedelta64(1, "M")}, "no time span of a known length"),
        ({"lead_times": np.array([24])}, "write a whole time span"),
        ({"lead_times": []}, "lead_times"),
        ({"rollout": ""}, "write a whole time span"),
        ({"precision": "float8"}, "precision"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_arguments_refused(store, model, arguments, words):
    with pytest.raises(InputError, match=words):
        weatherfm.forecast(model, as_dataset(store), **arguments)
    assert model.calls == []


def test_an_input_time_that_is_not_there(store):
    model = Rule(store.domain(), identity, input_times=("-6h", "0h"))
    with pytest.raises(InputError, match=r"states at -6h, 0h are needed"):
        weatherfm.forecast(model, as_dataset(store))
    with pytest.raises(InputError, match=r"lacks 2020-01-02T18, which forecasts from 2020-01-03T00 start from"):
        weatherfm.forecast(model, as_dataset(store), init="2020-01-03T00")


@pytest.mark.parametrize("device", ["cuda:7", "no such device"])
def test_a_device_that_is_not_there(tmp_path, device):
    save_weights(tmp_path / "w.safetensors", make_model(), {})
    with pytest.raises(InputError, match=rf"device '{device}' cannot be used here"):
        weatherfm.load(tmp_path / "w.safetensors", device)


def test_members_at_different_times(store):
    early, late = (as_dataset(store, times).expand_dims(number=[n]) for n, times in enumerate([slice(5), slice(1, 6)]))
    states = xr.concat([early, late], "number", join="outer")
    assert states.sizes["time"] == 6
    with pytest.raises(InputError, match=r"missing values in z500 at 2020-01-06T00:00:00, member 0"):
        weatherfm.forecast(Rule(store.domain(), drift), states)


# --- real files ------------------------------------------------------------------------------------------------


def real_model(channels: tuple[str, ...], grid: Grid):
    return scramble(make_model(make_domain(grid, channels), patch_size=(5, 6), width=16, depth=1, heads=2)).eval()


@pytest.fixture
def pair(real_data) -> xr.Dataset:
    with xr.open_dataset(real_data / "pairs" / "test4.nc") as dataset:
        return dataset.load()


def test_the_same_file_as_grib_and_netcdf(real_data, pair):
    """Against netCDF4's own numbers, put through the model by hand."""
    channels = ("z500", "t850")
    states = open_dataset_states(pair, channels)
    model = real_model(channels, states.grid)
    by_netcdf = weatherfm.forecast(model, real_data / "pairs" / "test4.nc", lead_times="6h")
    by_grib = weatherfm.forecast(model, real_data / "pairs" / "test4.grib", lead_times="6h")
    for name in by_netcdf.data_vars:
        spread = float(by_netcdf[name].std())
        np.testing.assert_allclose(by_grib[name], by_netcdf[name], atol=1e-3 * spread)  # both are packed
    expected = by_hand(model, real_data / "pairs" / "test4.nc")
    np.testing.assert_allclose(by_netcdf["geopotential"].sel(level=500).squeeze(), expected[0], rtol=1e-4)
    np.testing.assert_allclose(by_netcdf["temperature"].sel(level=850).squeeze(), expected[1], rtol=1e-4)


def by_hand(model, path: Path) -> np.ndarray:
    """[channel, lat, lon] after 6 h of the last time of z500 and t850, read with netCDF4 alone."""
    import netCDF4

    from weatherfm.earth.forcings import forcing_fields

    with netCDF4.Dataset(path) as file:
        level = next(name for name in file.dimensions if "level" in name)
        levels = file[level][:].round().astype(int).tolist()
        time = netCDF4.num2date(file["time"][-1], file["time"].units, only_use_cftime_datetimes=False)
        variables = {name.lower(): file[name] for name in file.variables}
        fields = [np.asarray(variables[name][-1, levels.index(at)]) for name, at in (("z", 500), ("t", 850))]
        assert file["latitude"][0] > file["latitude"][-1]
    assert model.domain.grid.latitude[0] > model.domain.grid.latitude[-1]
    state = model.normalize(torch.from_numpy(np.stack(fields)).float())[None]
    times = np.array([np.datetime64(str(time).replace(" ", "T"), "s")])
    forcings = torch.from_numpy(forcing_fields(model.forcings, times, model.domain.grid))
    with torch.no_grad():
        return model.denormalize(model(state[:, None], forcings, torch.tensor([6])))[0].numpy()


def test_era5_members_are_an_ensemble_of_states(real_data):
    import eccodes

    path = real_data / "era5_members" / "era5-levels-members.grib"
    channels = ("z500", "t850")
    from weatherfm.data_pipeline.sources.file_states import open_file_states

    states = open_file_states([str(path)], channels)
    assert states.numbers == tuple(range(10))
    model = Rule(make_domain(states.grid, channels), identity)
    forecast = weatherfm.forecast(model, path, lead_times="12h")
    assert forecast["geopotential"].dims[:3] == ("init_time", "number", "lead_time")
    found = {}
    with open(path, "rb") as file:  # with ecCodes alone
        while (message := eccodes.codes_grib_new_from_file(file)) is not None:
            keys = [eccodes.codes_get(message, key) for key in ("shortName", "level", "number", "validityDate")]
            keys.append(eccodes.codes_get(message, "validityTime"))
            found[tuple(keys)] = eccodes.codes_get_values(message)
            eccodes.codes_release(message)
    last = max(key[3:] for key in found)
    for member in range(10):
        for short, level, name in (("z", 500, "geopotential"), ("t", 850, "temperature")):
            given = forecast[name].sel(number=member, level=level).values.ravel()
            np.testing.assert_allclose(given, found[(short, level, member, *last)], rtol=1e-4)


def test_a_real_file_whose_coordinates_are_fill_values(real_data):
    model = Rule(make_domain(channels=("t2m",)), identity)
    with pytest.raises(InputError, match="latitude"):
        weatherfm.forecast(model, real_data / "era5_new_cds" / "HICCUP_TEST.ERA5.sfc.low-res.nc")
