"""What a sum spans: by names, words, bounds, the archive, or the settings; what nobody says is asked about."""

from __future__ import annotations

from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr
from places import REAL_DATA
from synthetic_files import field, open_files, write_netcdf

from weatherfm.data_pipeline.fields.plausible import plausible_bounds
from weatherfm.data_pipeline.formats.datasets.span_of_sums import hours_in
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.source_config import FilesSource
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.data_pipeline.verify import verify
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError

CASES = REAL_DATA / "cases"
HOUR = np.timedelta64(1, "h")


def rain(every: int, name="tp", count=48, start="2020-01-01T00", **attributes) -> xr.Dataset:
    times = (np.datetime64(start, "h") + every * np.arange(count) * HOUR).astype("datetime64[ns]")
    dataset = field(name, "m", times=times)
    dataset[name].values[:] = np.random.default_rng(every).gamma(0.5, 1e-3, dataset[name].shape)
    dataset[name].attrs.update(attributes)
    return dataset


def spans(path: Path, **settings) -> dict:
    told: dict = open_files(path, ["tp"], **settings).attributes["accumulation"]["tp"]
    return told


def as_cds(dataset: xr.Dataset, degrees: float, **attributes) -> xr.Dataset:
    """As the Climate Data Store has written files since 2024."""
    dataset = dataset.rename(time="valid_time").assign_attrs(GRIB_centre="ecmf")
    dataset["tp"].attrs.update(GRIB_stepType="accum", GRIB_iDirectionIncrementInDegrees=degrees)
    versions = ["0001"] * dataset.sizes["valid_time"]
    return dataset.assign_coords(number=0, expver=("valid_time", versions)).assign_attrs(attributes)


# --- the case that was seen ---


def test_hourly_sums_fetched_once_a_day():
    path = CASES / "cds-tp-once-a-day" / "data_stream-oper_stepType-accum.nc"
    if not path.exists():
        pytest.skip("needs ../shared/data")
    with netCDF4.Dataset(path) as file:
        first = file["tp"][0, 0, 0]
    assert first == pytest.approx(7.715331e-05, rel=1e-6)
    for settings in ({}, {"accumulation": "1h"}, {"step": "24h", "accumulation": "1h"}):
        data = open_files(path, ["tp"], **settings)
        assert data.state.values[0, 0, 0, 0] == first
        assert data.attributes["accumulation"]["tp"] == {"window_hours": 1, "source_hours": 1}
    with pytest.raises(
        InputError, match=r"no 24h sum of tp is complete: it needs 24 sums over 1h.*data\.accumulation=1h"
    ):
        open_files(path, ["tp"], step="24h")


def test_real_hourly_sums_need_no_setting():
    path = CASES.parent / "era5_hourly_levels" / "ERA5_2020-01-01_tp.nc"
    if not path.exists():
        pytest.skip("needs ../shared/data")
    assert spans(path, step="6h") == {"window_hours": 6, "source_hours": 1}


# --- the archive ---


@pytest.mark.parametrize("every", [1, 6, 24])
def test_era5_of_the_climate_data_store_is_hourly(tmp_path, every):
    path = write_netcdf(tmp_path / "x.nc", as_cds(rain(every), 0.25))
    assert spans(path, accumulation="1h") == {"window_hours": 1, "source_hours": 1}


def test_the_store_on_another_grid(tmp_path):
    """ERA5-Land on that grid has the same attributes: several times a day tell by their values, one does not."""
    assert spans(write_netcdf(tmp_path / "a.nc", as_cds(rain(6), 1.0)))["source_hours"] == 1
    path = write_netcdf(tmp_path / "b.nc", as_cds(rain(24), 1.0))
    with pytest.raises(InputError, match=r"b\.nc: tp does not say what it is summed over: its times are 24h apart"):
        spans(path)
    assert spans(path, sums="since_midnight") == {
        "window_hours": 24, "source_hours": 24, "source_sums": "since_midnight"
    }  # fmt: skip


def test_members_are_summed_over_three_hours(tmp_path):
    """ERA5's ensemble: not the hour of its high resolution."""
    dataset = as_cds(rain(3), 0.25).drop_vars("number").expand_dims(number=[0, 1])
    path = write_netcdf(tmp_path / "x.nc", dataset)
    with pytest.raises(InputError, match="its times are 3h apart"):
        spans(path, number=0)


@pytest.mark.parametrize(
    ("attributes", "hours"),
    [
        ({"title": "ERA5-Land hourly data from 1950 to present"}, 24),
        ({"title": "ERA5 hourly data on single levels"}, 1),
    ],
)
def test_a_title_tells(tmp_path, attributes, hours):
    path = write_netcdf(tmp_path / "x.nc", rain(24).assign_attrs(attributes))
    assert spans(path)["source_hours"] == hours


def test_what_others_made_of_era5_is_no_era5(tmp_path):
    made = as_cds(rain(24), 0.25, history="cdo daysum era5.nc x.nc")
    with pytest.raises(InputError, match="24h apart"):
        spans(write_netcdf(tmp_path / "x.nc", made))


# --- names, words and bounds ---


@pytest.mark.parametrize(
    ("name", "hours"),
    [
        ("total_precipitation_6hr", 6), ("total_precipitation_24hr", 24), ("tp06", 6), ("tp_1h", 1), ("tp6h", 6),
        ("Total_precipitation_surface_6_Hour_Accumulation", 6), ("tp", None), ("tp850", None), ("tp00", None),
    ],
)  # fmt: skip
def test_names(name, hours):
    np.testing.assert_equal(hours_in(name), np.nan if hours is None else hours)


@pytest.mark.parametrize(
    ("attributes", "hours"),
    [
        ({"long_name": "6-hour accumulated precipitation"}, 6),
        ({"long_name": "total precipitation in the last 3 hours"}, 3),
        ({"GRIB_stepRange": "6-12"}, 6),
        ({"cell_methods": "time: sum (interval: 12 hours)"}, 12),
    ],
)
def test_attributes(tmp_path, attributes, hours):
    path = write_netcdf(tmp_path / "x.nc", rain(12, **attributes))
    assert spans(path) == {"window_hours": hours, "source_hours": hours}


def test_an_interval_shorter_than_the_spacing_is_of_either(tmp_path):
    """CF's interval is that of what was summed: a sum of 24 hours, or one hour a day."""
    path = write_netcdf(tmp_path / "x.nc", rain(24, cell_methods="time: sum (interval: 1 hour)"))
    with pytest.raises(InputError, match=r"source\.sums: \{tp: 1h\}"):
        spans(path)


def with_bounds(every: int, begin: int, end: int) -> xr.Dataset:
    """Bounds `begin` and `end` hours after each label."""
    dataset = rain(every, count=8)
    times = dataset["time"].values
    bounds = np.stack([times + begin * HOUR, times + end * HOUR], axis=1)
    dataset["time"].attrs["bounds"] = "time_bnds"
    return dataset.assign(time_bnds=(("time", "bnds"), bounds))


@pytest.mark.parametrize(("begin", "end"), [(-6, 0), (0, 6), (-3, 3)])
def test_bounds_tell_span_and_end(tmp_path, begin, end):
    dataset = with_bounds(6, begin, end)
    data = open_files(write_netcdf(tmp_path / "x.nc", dataset), ["tp"])
    np.testing.assert_array_equal(data.state["time"].values, dataset["time"].values + end * HOUR)
    np.testing.assert_allclose(data.state.values[:, 0], dataset["tp"].values, rtol=1e-6)
    assert data.attributes["accumulation"]["tp"] == {"window_hours": 6, "source_hours": 6}


def test_bounds_of_the_first_and_last_label_are_not_believed(tmp_path, caplog):
    """As `cdo daysum` writes them for hourly sums: 00 to 23 UTC."""
    path = write_netcdf(tmp_path / "x.nc", with_bounds(24, -23, 0))
    with pytest.raises(InputError, match="24h apart"):
        spans(path)
    assert "the bounds of time do not tell what sums span" in caplog.text


# --- nobody says it ---


@pytest.mark.parametrize("every", [3, 6, 12, 24, 744])
def test_spacing_alone_tells_nothing(tmp_path, every):
    path = write_netcdf(tmp_path / "x.nc", rain(every))
    with pytest.raises(InputError, match=r"x\.nc: tp does not say what it is summed over.*source\.sums"):
        spans(path)
    assert spans(path, sums="1h") == {"window_hours": 1, "source_hours": 1}
    assert spans(path, sums={"tp": f"{every}h"})["source_hours"] == every


def test_one_value_for_all_leaves_what_a_file_says(tmp_path):
    path = write_netcdf(tmp_path / "x.nc", rain(6, "total_precipitation_6hr"))
    assert spans(path, sums="1h")["source_hours"] == 6
    assert spans(path, sums={"tp": "3h"})["source_hours"] == 3


@pytest.mark.parametrize("said", ["6", "0h", "since_noon", {"tp": "hourly"}, 6])
def test_settings_that_say_nothing_are_refused(said):
    with pytest.raises(ValueError, match=r"write what sums span as 1h .*since_midnight or since_start"):
        FilesSource(kind="files", paths=["x"], sums=said)


def test_settings_survive_their_own_record():
    source = FilesSource(kind="files", paths=["x"], sums="1d", lead_time="shortest")
    assert source.sums == {"*": "24h"}
    assert FilesSource.model_validate(source.model_dump(mode="json")) == source
    assert source.reading_rules == {"sums": {"*": "24h"}, "lead_time": "shortest"}
    data = DataConfig.model_validate({"store": "x", "source": source.model_dump(mode="json"), "channels": ["tp"]})
    assert data.source == source


# --- plausible sums ---


def test_sums_above_the_solar_constant_are_found(tmp_path):
    """Sums since 00 UTC taken for hourly ones, by a wrong setting."""
    dataset = rain(1, "tisr")
    dataset["tisr"].values[:] = 1e6 * (1 + np.arange(48) % 6)[:, None, None]
    dataset["tisr"].attrs["units"] = "J m-2"
    source = {"kind": "files", "paths": [str(write_netcdf(tmp_path / "x.nc", dataset))], "sums": "1h"}
    settings = {"store": str(tmp_path / "s.zarr"), "source": source, "channels": ["tisr"], "climatology_window": None}
    prepare(DataConfig.model_validate(settings))
    report = verify(tmp_path / "s.zarr")
    found = [problem.message for problem in report.problems if problem.kind == "range"]
    assert len(found) == 1
    assert "tisr reaches from 6e+06 to 6e+06 J m-2" in found[0]
    assert "no sums over 1h" in found[0]


def test_more_than_the_sun_gives_is_not_plausible():
    tisr = parse_channel("tisr")
    _, high = plausible_bounds(tisr, 1)
    assert 1361 * 3600 < high < 1.04 * 1361 * 3600
    assert plausible_bounds(tisr, 6)[1] == pytest.approx(6 * high)
    assert plausible_bounds(tisr)[1] == tisr.variable.bounds[1]


def test_help_with_a_name_that_no_file_has_is_told(tmp_path, caplog):
    path = write_netcdf(tmp_path / "x.nc", rain(1, long_name="hourly"))
    open_files(path, ["tp"], sums={"tp": "1h", "tpp": "6h"}, units={"tp": "m"}, levels={"z_*.nc": 500})
    assert caplog.messages == ["source.sums speaks of tpp, which no file holds: it changes nothing"]
