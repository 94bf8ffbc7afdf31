"""What fields say of themselves in words, units and maps decides over their names; idle settings are told."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
import zarr
from foreign_forecasts import dataset as forecasts
from foreign_forecasts import write as write_forecasts
from synthetic_files import LATITUDE, LONGITUDE, TIMES, field, grib_message, open_files, wave, write_netcdf

from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.sources.file_states import open_dataset_states
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError
from weatherfm.evaluation.forecasting.state_checks import require_sound
from weatherfm.evaluation.forecasts.reader import ForecastFile

_DAYS = np.arange("2020-01-01", "2020-01-05", dtype="datetime64[D]").astype("datetime64[ns]")


def refused(path, says, channel="t2m", **settings):
    with pytest.raises(InputError, match=says):
        open_files(path, [channel], **settings)


def daily_statistic(how: str, verb="daily_reduce") -> xr.Dataset:
    """As derived-era5-single-levels-daily-statistics of the Climate Data Store: only its history tells."""
    dataset = field(times=_DAYS).rename(time="valid_time")
    dataset["t2m"].attrs |= {"GRIB_dataType": "an", "GRIB_stepType": "instant", "long_name": "2 metre temperature"}
    dataset.attrs["history"] = (
        "2025-03-01T00:00 GRIB to CDM+CF via cfgrib-0.9.15.0/ecCodes-2.39.0 with {}\n"
        f"earthkit.transforms.aggregate.temporal.{verb}(2m_temperature_stream-oper, how={how}, "
        "**{'time_shift': {'hours': 0}, 'remove_partial_periods': True})"
    )
    return dataset


@pytest.mark.parametrize(("how", "words", "kind"), [
    ("max", "a maximum", "maximum"), ("min", "a minimum", "minimum"), ("sum", "a sum over time", "sum"),
    ("std", "a standard deviation", "standard_deviation"),
])  # fmt: skip
def test_daily_statistics_of_the_data_store(tmp_path, how, words, kind):
    path = write_netcdf(tmp_path / "x.nc", daily_statistic(how))
    refused(path, rf"t2m is {words} \(history daily_{how}, .*source\.kinds: \[{kind}\]")
    asked = open_files(path, ["t2m"], kinds=[kind]).state.values[:, 0]
    np.testing.assert_allclose(asked, wave(_DAYS), rtol=1e-6)


def test_daily_and_monthly_means_of_the_data_store(tmp_path, caplog):
    data = open_files(write_netcdf(tmp_path / "x.nc", daily_statistic("mean")), ["t2m"])
    assert "history daily_mean" in data.attributes["means"]["t2m"]
    assert "means over a day or less" in caplog.text
    path = write_netcdf(tmp_path / "m.nc", daily_statistic("mean", "monthly_reduce"))
    refused(path, "t2m is a monthly mean")


@pytest.mark.parametrize(("name", "says"), [
    ("Daily maximum temperature at 2 m", "a maximum"), ("2m air temperature, daily minimum", "a minimum"),
    ("Monthly surface air temperature", "a monthly mean"), ("std. dev of 2 m temperature", "a standard deviation"),
])  # fmt: skip
def test_words_anywhere_in_a_long_name(tmp_path, name, says):
    dataset = field()
    dataset["t2m"].attrs["long_name"] = name
    refused(write_netcdf(tmp_path / "x.nc", dataset), f"t2m is {says}")


def test_methods_without_a_space(tmp_path):
    dataset = field()
    dataset["t2m"].attrs["cell_methods"] = "time:maximum"
    refused(write_netcdf(tmp_path / "x.nc", dataset), "t2m is a maximum")


def on_levels(name="t", units="K", base=280.0, level=None, **words) -> xr.Dataset:
    values = np.stack([wave(base=base), wave(base=base)], axis=1)
    made = xr.Dataset({name: (("time", "level", "latitude", "longitude"), values, {"units": units, **words})})
    places = {"time": TIMES, "latitude": LATITUDE, "longitude": LONGITUDE}
    return made.assign_coords(places).assign_coords(level=("level", [850, 500], level or {}))


@pytest.mark.parametrize(("name", "units", "channel", "words"), [
    ("t", "K", "t850", {"standard_name": "air_potential_temperature"}),
    ("t", "K", "t850", {"long_name": "Virtual temperature"}),
    ("vo", "s-1", "vo850", {"standard_name": "atmosphere_absolute_vorticity"}),
    ("qv", "kg kg-1", "q850", {"long_name": "Water vapor mixing ratio"}),
    ("u", "m s-1", "u850", {"long_name": "wind gust"}),
])  # fmt: skip
def test_a_name_that_its_own_words_contradict(tmp_path, name, units, channel, words):
    path = write_netcdf(tmp_path / "x.nc", on_levels(name, units, 0.0, **words))
    refused(
        path, rf"{name} is not .* by its (standard|long)_name .*source\.rename: \{{{name}: {channel[:-3]}\}}", channel
    )
    open_files(path, [channel], rename={name: channel[:-3]})


@pytest.mark.parametrize("level", [
    {"standard_name": "air_potential_temperature"}, {"long_name": "height above ground"}, {"long_name": "altitude"},
])  # fmt: skip
def test_levels_that_say_they_are_no_pressures(tmp_path, level):
    path = write_netcdf(tmp_path / "x.nc", on_levels(level=level))
    refused(path, "t has several fields along level", "t850")
    open_files(path, ["t850"], units={"level": "hPa"})


@pytest.mark.parametrize("said", ["coordinates", "map"])
def test_a_rotated_pole_under_plain_names(tmp_path, said):
    dataset = field().rename(latitude="lat", longitude="lon")
    if said == "map":
        dataset["t2m"].attrs["grid_mapping"] = "crs"
        dataset["crs"] = (), np.int32(0), {"grid_mapping_name": "rotated_latitude_longitude"}
    else:
        dataset["lat"].attrs = {"standard_name": "grid_latitude", "units": "degrees"}
        dataset["lon"].attrs = {"standard_name": "grid_longitude", "units": "degrees"}
    refused(write_netcdf(tmp_path / "x.nc", dataset), r"a map of its own \(.*rotated|no field on a latitude-longitude")


@pytest.mark.parametrize("name", ["latitude_longitude", "mercator"])
def test_a_map_of_plain_latitudes_is_read(tmp_path, name):
    dataset = field()
    dataset["t2m"].attrs["grid_mapping"] = "crs"
    dataset["crs"] = (), np.int32(0), {"grid_mapping_name": name}
    np.testing.assert_allclose(open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"]).state[:, 0], wave())


@pytest.mark.parametrize(("units", "count", "hours"), [
    ("day", 1, 24), ("d", 2, 48), ("h", 6, 6), ("s", 21600, 6), ("", 6, 6), (None, 6 * 3_600_000_000_000, 6),
])  # fmt: skip
def test_units_of_lead_times(tmp_path, units, count, hours):
    """Units that xarray does not decode; without any, hours, or the nanoseconds of a writer that forgot them."""
    values = wave(TIMES + np.timedelta64(hours, "h"))[:, None]
    dataset = xr.Dataset({"t2m": (("time", "step", "latitude", "longitude"), values, {"units": "K"})})
    step = ("step", [count], {} if units is None else {"units": units})
    dataset = dataset.assign_coords(time=TIMES, step=step, latitude=LATITUDE, longitude=LONGITUDE)
    data = open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"])
    np.testing.assert_array_equal(data.state["time"].values, TIMES + np.timedelta64(hours, "h"))


def test_lead_times_in_months_are_refused(tmp_path):
    dataset = field().expand_dims(step=[1], axis=1)
    dataset["step"].attrs["units"] = "months"
    refused(write_netcdf(tmp_path / "x.nc", dataset), "lead times are counted in 'months'")


def test_members_without_numbers_are_counted(tmp_path):
    dataset = xr.concat([field(base=base) for base in (280.0, 281.0)], "number")
    path = write_netcdf(tmp_path / "x.nc", dataset)
    refused(path, r"2 ensemble members \(0, 1\)")
    np.testing.assert_allclose(open_files(path, ["t2m"], number=1).state[:, 0], wave(base=281.0))


def test_two_names_renamed_to_one(tmp_path):
    path = write_netcdf(tmp_path / "x.nc", field("a").merge(field("b", base=290.0)))
    refused(path, "a and b are both t2m and differ", rename={"a": "t2m", "b": "t2m"})


@pytest.mark.parametrize("setting", [{"number": 3}, {"lead_time": "6h"}, {"experiment": "0001"}])
def test_choices_among_nothing_are_told(tmp_path, caplog, setting):
    open_files(write_netcdf(tmp_path / "x.nc", field()), ["t2m"], **setting)
    assert f"source.{next(iter(setting))} changes nothing" in caplog.text


def test_kinds_that_are_not_there(tmp_path):
    path = write_netcdf(tmp_path / "x.nc", field())
    says = (
        r"the field itself, not spred \(source.kinds asks for spred: leave it out\); held are t2m \(the field itself\)"
    )
    refused(path, says, kinds=["spred"])


@pytest.mark.parametrize(("key", "said"), [
    ("scale_factor", "0.01"), ("add_offset", "273.15"), ("missing_value", "-9999"),
])  # fmt: skip
def test_numbers_written_as_texts(tmp_path, key, said):
    dataset = field()
    dataset["t2m"].attrs[key] = said
    refused(write_netcdf(tmp_path / "x.nc", dataset), f"t2m has the attribute {key} as a text")


def test_a_missing_value_in_words_is_none(tmp_path):
    dataset = field()
    dataset["t2m"].attrs["missing_value"] = "none"
    np.testing.assert_allclose(open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"]).state[:, 0], wave())


def test_groups_of_a_zarr_store_are_named(tmp_path):
    field().to_zarr(tmp_path / "x.zarr", group="surface")
    zarr.open_group(tmp_path / "x.zarr", mode="a")
    refused(tmp_path / "x.zarr", r"fields in groups \(surface\).*x\.zarr/surface")
    np.testing.assert_allclose(open_files(tmp_path / "x.zarr" / "surface", ["t2m"]).state[:, 0], wave())


def rain(growing: bool) -> xr.Dataset:
    """Four days of hourly sums, or of sums since 00 UTC."""
    times = np.datetime64("2020-01-01T01", "ns") + np.arange(96) * np.timedelta64(1, "h")
    values = np.random.default_rng(3).gamma(0.3, 1e-3, (96, 4, 8))
    if growing:
        values = values.reshape(4, 24, 4, 8).cumsum(axis=1).reshape(96, 4, 8)
    return field("tp", "m", times=times).assign(tp=(("time", "latitude", "longitude"), values, {"units": "m"}))


@pytest.mark.parametrize("growing", [True, False])
def test_a_span_said_of_sums_that_grow_is_doubted(tmp_path, caplog, growing):
    open_files(write_netcdf(tmp_path / "x.nc", rain(growing)), ["tp"], step="6h", sums="1h")
    assert ("never fall within a day, as sums since 00 UTC" in caplog.text) == growing


def test_hours_of_a_forecast_are_no_span_of_a_sum(tmp_path):
    dataset = rain(False).isel(time=slice(5, None, 6))
    dataset["tp"].attrs["long_name"] = "Total precipitation (12 hour forecast)"
    refused(write_netcdf(tmp_path / "x.nc", dataset), "tp does not say what it is summed over", "tp", step="6h")


def test_an_undeclared_missing_value_after_the_first_time_is_told(tmp_path, caplog):
    dataset = field()
    dataset["t2m"][2, 1, 1] = -9999.0
    source = {"kind": "files", "paths": [str(write_netcdf(tmp_path / "x.nc", dataset))]}
    prepare(DataConfig(store=str(tmp_path / "s.zarr"), source=source, channels=["t2m"], climatology_window=None))
    assert "t2m reaches from -9999 to" in caplog.text


def foreign(tmp_path, change) -> ForecastFile:
    made = forecasts()
    made = change(made) or made
    return ForecastFile(write_forecasts(made, tmp_path / "f.zarr"))


@pytest.mark.parametrize(("attributes", "words"), [
    ({"GRIB_dataType": "es"}, "the spread of an ensemble"), ({"cell_methods": "time: maximum"}, "a maximum"),
    ({"long_name": "2m temperature anomaly"}, "an anomaly"),
    ({"standard_name": "dew_point_temperature"}, "not 2m_temperature by its standard_name"),
])  # fmt: skip
def test_forecasts_of_something_else_are_not_scored(tmp_path, attributes, words):
    file = foreign(tmp_path, lambda made: made["2m_temperature"].attrs.update(attributes))
    with pytest.raises(InputError, match=words):
        file.require(["t2m"], [6], file.grid)


def test_the_mean_of_an_ensemble_is_scored(tmp_path):
    file = foreign(tmp_path, lambda made: made["2m_temperature"].attrs.update(cell_methods="number: mean"))
    file.require(["t2m"], [6], file.grid)


@pytest.mark.parametrize(("levels", "units", "says"), [
    ([1, 2], {}, "may be numbers of levels"), ([500, 850], {"units": "m"}, "none of pressure"),
    ([500, 850], {"units": "Pa"}, "usual levels in hPa"),
])  # fmt: skip
def test_levels_of_forecasts_that_are_no_pressures(tmp_path, levels, units, says):
    with pytest.raises(InputError, match=says):
        foreign(tmp_path, lambda made: made.assign_coords(level=("level", levels, units)))


def test_archives_of_ecmwf_in_one_record_are_told(tmp_path, caplog):
    """ERA5 and operations both call their experiment 0001."""
    for i, (name, time) in enumerate((("ea", 0), ("ea", 600), ("od", 1200))):
        message = grib_message("2t", kind="surface", time=time, **{"class": name})
        (tmp_path / f"{i}.grib").write_bytes(message)
    paths = [tmp_path / f"{i}.grib" for i in range(3)]
    open_files(paths[:2], ["t2m"])
    assert "different archives" not in caplog.text
    open_files(paths, ["t2m"])
    assert "different archives (class ea in " in caplog.text


def test_states_whose_humidity_is_a_fraction_are_not_forecast_from():
    latitude, longitude = np.linspace(90, -90, 19), np.arange(0, 360, 20.0)
    values = np.random.default_rng(0).uniform(0, 1, (2, 1, 19, 18))
    coordinates = {"time": TIMES[:2], "latitude": latitude, "longitude": longitude}
    made = xr.Dataset({"r": (("time", "level", "latitude", "longitude"), values, {"units": "%"})}, coordinates)
    states = open_dataset_states(made.assign_coords(level=("level", [850], {"units": "hPa"})), ["r850"])
    with pytest.raises(InputError, match=r"r850 at 2020-01-01T00:00:00: at most .* they are a fraction of one"):
        require_sound(states.read(states.times, ["r850"]), states.times, ["r850"], states, {})
    made["r"] = made["r"] * 100
    states = open_dataset_states(
        made.assign(r=made["r"].assign_attrs(units="%")).assign_coords(level=("level", [850], {"units": "hPa"})),
        ["r850"],
    )
    require_sound(states.read(states.times, ["r850"]), states.times, ["r850"], states, {})
