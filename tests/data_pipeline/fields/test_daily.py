"""Daily statistics against xarray's own resampling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from invented_source import assert_same_tree
from synthetic_files import LATITUDE, LONGITUDE, write_netcdf

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append
from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.data_pipeline.verify import verify
from weatherfm.errors import InputError

DAYS = 12
HOURS = np.arange(24 * DAYS + 1)  # until 00 UTC of the day after
TIMES = np.datetime64("2020-01-01", "ns") + HOURS * np.timedelta64(1, "h")
OWN = {"t2m_max": {"of": "t2m", "daily": "maximum"}, "zmin": {"of": "z", "daily": "minimum"}}
CHANNELS = ["t2m", "t2m_max", "tp", "z500", "zmin500"]


def dataset() -> xr.Dataset:
    rng = np.random.default_rng(0)
    shape = (len(TIMES), len(LATITUDE), len(LONGITUDE))
    fields = {
        "t2m": (270 + 30 * rng.random(shape), "K"),
        "tp": (1e-3 * rng.random(shape), "m"),
        "z": (54000 + 1000 * rng.random(shape), "m2 s-2"),
    }
    axes = {"time": TIMES, "latitude": LATITUDE, "longitude": LONGITUDE}
    return xr.Dataset(
        {name: (tuple(axes), values.astype(np.float32), {"units": units}) for name, (values, units) in fields.items()},
        axes,
    )


@pytest.fixture
def hourly(tmp_path) -> xr.Dataset:
    found = dataset()
    write_netcdf(tmp_path / "hourly.nc", found)
    return found


def config(folder: Path, **settings) -> DataConfig:
    source = {"kind": "files", "paths": [str(folder / "hourly.nc")], "levels": {"z": 500}, "sums": "1h"}
    usual = {
        "store": str(folder / "store.zarr"), "source": source, "channels": CHANNELS, "variables": OWN,
        "daily": "mean", "climatology_window": None,
    }  # fmt: skip
    return parse_settings(DataConfig, {**usual, **settings}, "the test")


def expected(hourly: xr.Dataset, step: int = 1) -> list[np.ndarray]:
    """[time, lat, lon] of each of `CHANNELS`, by resampling; the sum from the first hour to the day's end."""
    some = hourly.isel(time=slice(0, 24 * DAYS, step)).astype("float64").resample(time="1D")
    rain = hourly["tp"].astype("float64").isel(time=slice(1, None))
    rain = rain.assign_coords(time=rain["time"] - np.timedelta64(1, "h")).resample(time="1D").sum()
    means = some.mean()
    return [means["t2m"], some.max()["t2m"], rain, means["z"], some.min()["z"]]


@pytest.mark.parametrize("step", [None, 6])
def test_each_day_is_what_resampling_gives(tmp_path, hourly, step):
    store = prepare(config(tmp_path, **({"step": f"{step}h"} if step else {})))
    late = 1 if step else 0  # the 6 h sum at the first 00 UTC begins before the file
    np.testing.assert_array_equal(store.times, TIMES[24 * late : 24 * DAYS : 24].astype("datetime64[s]"))
    assert store.step_hours == 24
    state = store.read(range(DAYS - late))
    for channel, values in enumerate(expected(hourly, step or 1)):
        np.testing.assert_allclose(state[:, channel], values[late:], rtol=2e-7, err_msg=CHANNELS[channel])
    assert store.manifest["channels"][2]["accumulation_hours"] == 24
    assert store.manifest["source"]["attributes"]["accumulation"]["tp"]["ends_hours_after"] == 24
    assert store.manifest["channels"][1]["era5"] == "2m_temperature_daily_maximum"
    told = store.manifest["source"]["attributes"]["daily"]
    assert told["statistics"] == dict(zip(CHANNELS, ["mean", "maximum", "sum", "mean", "minimum"], strict=True))
    assert verify(store.path).problems == []


def test_maxima_of_all_channels(tmp_path, hourly):
    state = prepare(config(tmp_path, daily="maximum", channels=["t2m", "z500"], variables={})).read(range(DAYS))
    np.testing.assert_array_equal(state[:, 0], hourly["t2m"].isel(time=slice(0, -1)).resample(time="1D").max())


def test_a_day_without_all_of_its_times_is_missing(tmp_path, hourly):
    write_netcdf(tmp_path / "hourly.nc", hourly.isel(time=np.delete(HOURS, 24 * 3 + 5)))
    with pytest.raises(InputError, match="1 of 12 steps of 24h are missing: 2020-01-04T00"):
        prepare(config(tmp_path))
    store = prepare(config(tmp_path, allow_gaps=True))
    assert len(store.times) == DAYS - 1


def test_the_last_day_needs_the_sum_that_ends_it(tmp_path, hourly):
    write_netcdf(tmp_path / "hourly.nc", hourly.isel(time=slice(0, -1)))
    period = "2020-01-01/2020-01-12"
    with pytest.raises(InputError, match="1 of 12 steps of 24h are missing: 2020-01-12T00"):
        prepare(config(tmp_path, period=period))
    prepare(config(tmp_path, period=period, channels=["t2m", "z500"], variables={}))


def test_appending_days_gives_the_bytes_of_a_store_made_at_once(tmp_path, hourly):
    whole = prepare(config(tmp_path, store=str(tmp_path / "whole.zarr"), period="2020-01-01/2020-01-12"))
    prepare(config(tmp_path, period="2020-01-01/2020-01-05"))
    append(config(tmp_path, period="2020-01-01/2020-01-12"))
    assert_same_tree(whole.path, tmp_path / "store.zarr")


def test_days_are_regridded_after_they_are_made(tmp_path, hourly):
    """The largest of a cell's day is the mean of its points' largest."""
    some = config(tmp_path, regrid={"resolution": 45, "method": "nearest"}, channels=["t2m_max"])
    at = open_source(some).state
    own = hourly["t2m"].isel(time=slice(0, -1)).resample(time="1D").max()
    near = own.sel(latitude=at["latitude"].values, longitude=at["longitude"].values, method="nearest")
    np.testing.assert_array_equal(np.asarray(at)[:, 0], near.transpose("time", "latitude", "longitude"))


def test_days_of_parts_that_are_joined(tmp_path, hourly):
    parts = [
        {"source": {"kind": "files", "paths": [str(tmp_path / "hourly.nc")], "sums": "1h"}, "channels": ["tp"]},
        {"source": {"kind": "files", "paths": [str(tmp_path / "hourly.nc")], "levels": {"z": 500}}},
    ]
    joined = prepare(config(tmp_path, source={"kind": "join", "parts": parts})).read(range(DAYS))
    for channel, values in enumerate(expected(hourly)):
        np.testing.assert_allclose(joined[:, channel], values, rtol=2e-7, err_msg=CHANNELS[channel])


def test_what_days_cost_is_told(tmp_path, hourly):
    source = open_source(config(tmp_path))
    points = len(LATITUDE) * len(LONGITUDE)
    for days in (1, 2):  # all hours of three variables, and the one at which the last sum ends
        assert source.cost(np.arange(days)).wanted == 3 * (24 * days + 1) * points * 4
    assert "hourly.nc" in source.place(0, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"daily": None}, "t2m_max, zmin500 are daily statistics; say what the others are, with data.daily"),
        ({"step": "24h"}, "step 24h is not part of a day"),
        ({"step_offset": "3h", "step": "6h"}, "leave out step_offset"),
        ({"accumulation": "6h"}, "leave out step_offset and accumulation"),
        (
            {"variables": {"a": {"of": "tp", "daily": "maximum"}}},
            "no daily maximum of 'tp'.*those of the day",
        ),
        ({"variables": {"a": {"of": "none", "daily": "mean"}}}, "there is no daily mean of 'none'"),
        ({"variables": {"a": {"of": "t2m"}}}, "needs both"),
        ({"variables": {"a": {"of": "t2m", "daily": "mean", "units": "K"}}}, "units and bounds are those of t2m"),
        ({"variables": {"a": {"long_name": "some_a"}}}, "units and bounds missing"),
    ],
)
def test_days_that_cannot_be_made_are_refused(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        config(tmp_path, **settings)


def test_sums_over_longer_spans_than_the_times_are_refused(tmp_path, hourly):
    source = {"kind": "files", "paths": [str(tmp_path / "hourly.nc")], "levels": {"z": 500}, "sums": "3h"}
    with pytest.raises(InputError, match=r"tp is a sum over 3h, and days are made of times 1h apart; set data.step=3h"):
        prepare(config(tmp_path, source=source))


def test_half_hours_all_count(tmp_path, hourly):
    half = hourly[["t2m"]].isel(time=slice(0, 24 * 3))
    later = (half + 40).assign_coords(time=half["time"] + np.timedelta64(30, "m"))
    later["t2m"].attrs["units"] = "K"
    both = xr.concat([half, later], "time").sortby("time")
    write_netcdf(tmp_path / "hourly.nc", both)
    store = prepare(config(tmp_path, channels=["t2m"], variables={}, daily="maximum"))
    np.testing.assert_array_equal(store.read(range(3))[:, 0], both["t2m"].resample(time="1D").max())


def test_a_day_that_nobody_asked_for_is_not_missed(tmp_path, hourly, caplog):
    prepare(config(tmp_path, period="2020-01-01/2020-01-05"))
    assert "lack some of their times" not in caplog.text


def test_a_statistic_of_a_variable_of_one_s_own(tmp_path, hourly):
    write_netcdf(tmp_path / "hourly.nc", hourly[["t2m"]].rename(t2m="soot"))
    own = {
        "sooty_max": {"of": "sooty", "daily": "maximum"},
        "sooty": {"long_name": "soot", "units": "K", "bounds": [0, 400]},
    }
    state = prepare(config(tmp_path, channels=["sooty", "sooty_max"], variables=own)).read(range(DAYS))
    np.testing.assert_array_equal(state[:, 1], hourly["t2m"].isel(time=slice(0, -1)).resample(time="1D").max())


def test_statistics_of_the_same_fields_are_read_once(tmp_path, hourly):
    assert open_source(config(tmp_path, channels=["t2m", "t2m_max", "tp"])).together == ((0, 1),)


def test_times_that_are_days_already_are_refused(tmp_path, hourly):
    write_netcdf(tmp_path / "hourly.nc", hourly[["t2m"]].resample(time="1D").mean())
    with pytest.raises(InputError, match=r"the source has times 24h apart; leave data.daily out"):
        prepare(config(tmp_path, channels=["t2m"], variables={}))
