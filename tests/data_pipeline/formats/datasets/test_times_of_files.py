"""Times as files of the field write them: CF beside a forecast's start, CDO, months, texts, examples of GraphCast."""

from __future__ import annotations

from pathlib import Path

import eccodes
import netCDF4
import numpy as np
import pytest
import xarray as xr
from invented_source import data_config
from places import REAL_DATA
from synthetic_files import LATITUDE, LONGITUDE, TIMES, field, grib_message, open_files, wave, write_netcdf

from weatherfm.data_pipeline.fields.time_axis import hour_of_day, select_times
from weatherfm.data_pipeline.sources.file_states import open_file_states
from weatherfm.errors import InputError

CASES = REAL_DATA / "cases"
HOUR = np.timedelta64(1, "h")


def case(name: str) -> Path:
    if not (CASES / name).exists():
        pytest.skip("needs ../shared/data")
    return CASES / name


def hours_of(data) -> list[str]:
    return [str(time)[:13] for time in data.state["time"].values]


def numbered(values, units: str, **attributes) -> xr.Dataset:
    """A field whose times are plain numbers."""
    return field().assign_coords(time=("time", values, {"units": units, **attributes}))


# --- the cases that were seen ---


@pytest.mark.parametrize(("name", "settings"), [("fixed_period", {}), ("one_run", {"lead_time": "shortest"})])
def test_cf_time_is_the_valid_time(name, settings):
    path = case(f"made/S7_cf_{name}.nc")
    data = open_files(path, ["t2m"], **settings)
    assert hours_of(data)[:2] == ["2020-01-01T00", "2020-01-01T06"]
    with netCDF4.Dataset(path) as file:
        np.testing.assert_array_equal(data.state.values[:, 0], file["t2m"][:])
    states = open_file_states([str(path)], ["t2m"], rules=settings)
    np.testing.assert_array_equal(states.times, data.state["time"].values.astype("datetime64[s]"))


def test_cdo_absolute():
    data = open_files(case("made/S6_cdo_absolute.nc"), ["t2m"])
    assert hours_of(data) == [f"2020-01-01T{hour:02d}" for hour in (0, 6, 12, 18)] + ["2020-01-02T00"]


def test_an_example_of_graphcast():
    path = case("made/S4_graphcast.nc")
    units = {"2m_temperature": "K", "total_precipitation_6hr": "m"}
    data = open_files(path, ["t2m", "tp"], units=units)
    assert hours_of(data) == [f"2022-01-01T{hour:02d}" for hour in (0, 6, 12)]
    with netCDF4.Dataset(path) as file:
        np.testing.assert_array_equal(data.state.values[:, 0], file["2m_temperature"][0, :, ::-1])
        np.testing.assert_array_equal(data.state.values[:, 1], file["total_precipitation_6hr"][0, :, ::-1])
    with pytest.raises(InputError, match=r"2m_temperature does not say its units.*source\.units"):
        open_files(path, ["t2m"])


def test_the_shortest_lead_of_stitched_runs():
    path = case("made/S8_stitched_runs.grib")
    with pytest.raises(InputError, match=r"several lead times \(0h, 6h, 12h, 18h\).*source\.lead_time=shortest"):
        open_files(path, ["t2m"])
    means = open_files(path, ["t2m"], lead_time="shortest").state.values.mean((1, 2, 3))
    np.testing.assert_allclose(means[:8], [280, 286] * 4, atol=0.01)
    best: dict[int, tuple[int, float]] = {}
    with open(path, "rb") as file:
        while (message := eccodes.codes_grib_new_from_file(file)) is not None:
            start = eccodes.codes_get(message, "dataDate") % 100 * 24 + eccodes.codes_get(message, "dataTime") // 100
            step = eccodes.codes_get(message, "endStep")
            found = step, float(eccodes.codes_get_values(message).mean())
            best[start + step] = min(best.get(start + step, (99, 0.0)), found)
            eccodes.codes_release(message)
    np.testing.assert_allclose(means, [best[hour][1] for hour in sorted(best)], atol=1e-4)


def test_models_of_cmip6(caplog):
    path = case("cmip6-daily/ta_day_IPSL-CM6A-LR_historical_r1i1p1f1_gr_19500101-20141231.nc")
    first = open_files(path, ["t850"]).state.isel(time=0)
    assert str(first["time"].values)[:13] == "1950-01-01T12"
    assert first.sel(latitude=90).values[0, 0] == pytest.approx(251.4615, abs=1e-4)
    path = case("cmip6-daily/ta_day_CESM2_historical_r1i1p1f1_gn_20000101-20091231.nc")
    times = open_files(path, ["t850"]).state["time"].values.astype("datetime64[D]")
    assert len(times) == 3650
    assert np.datetime64("2000-02-29") not in times
    assert "(calendar 365_day): 29 February is missing" in caplog.text


# --- others of their kinds ---


def test_times_that_contradict_each_other(tmp_path):
    dataset = field().assign_coords(
        forecast_reference_time=np.datetime64("2020-01-01", "ns"),
        forecast_period=("time", (np.arange(4) * 12 + 6) * HOUR.astype("timedelta64[ns]")),
    )
    dataset["time"].attrs["standard_name"] = "time"
    says = r"contradict each other: time is 2020-01-01T00:00:00, but forecast_reference_time .* 2020-01-01T06:00:00"
    with pytest.raises(InputError, match=says):
        open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"], lead_time="shortest")


def test_a_start_called_time_on_axes_of_start_and_step(tmp_path):
    """Such files exist, with `standard_name: time` on the start: both axes together make the valid time."""
    steps = (np.array([6, 12]) * HOUR).astype("timedelta64[ns]")
    values = np.stack([wave(TIMES) + i for i in range(2)], axis=1)
    dims = ("time", "prediction_timedelta", "latitude", "longitude")
    dataset = xr.Dataset({"t2m": (dims, values, {"units": "K"})}, field().coords).assign_coords(
        prediction_timedelta=steps
    )
    dataset["time"].attrs["standard_name"] = "time"
    data = open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"], lead_time="6h")
    np.testing.assert_array_equal(data.state["time"].values, TIMES + 6 * HOUR)


@pytest.mark.parametrize(
    ("values", "units", "expected"),
    [
        ([20200101.0, 20200101.5, 20200102.0, 20200102.5], "day as %Y%m%d.%f", TIMES),
        ([20200101, 20200102, 20200103, 20200104], "day as %Y%m%d", TIMES[0] + 24 * np.arange(4) * HOUR),
        ([202001, 202002, 202003, 202004], "month as %Y%m.%f", [f"2020-0{m}-01" for m in (1, 2, 3, 4)]),
        ([2020, 2021, 2022, 2023], "year as %Y.%f", [f"{y}-01-01" for y in (2020, 2021, 2022, 2023)]),
        ([0, 1, 2, 12], "months since 2020-01-15", ["2020-01-15", "2020-02-15", "2020-03-15", "2021-01-15"]),
        ([0, 1, 2, 3], "years since 2019-03-01 00:00:00", [f"{y}-03-01" for y in (2019, 2020, 2021, 2022)]),
        ([0, 12, 24, 36], "hours since 2020-1-1 00:00:00", TIMES),
        ([2020010100, 2020010112, 2020010200, 2020010212], "1", TIMES),
        ([20200101, 20200102, 20200103, 20200104], "1", TIMES[0] + 24 * np.arange(4) * HOUR),
    ],
)
@pytest.mark.parametrize("format", ["nc", "zarr"])
def test_numbers(tmp_path, values, units, expected, format):
    dataset, path = numbered(values, units), tmp_path / f"x.{format}"
    write_netcdf(path, dataset) if format == "nc" else dataset.to_zarr(path)
    times = open_files(path, ["t2m"], allow_gaps=True).state["time"].values
    np.testing.assert_array_equal(times, np.array(expected, "datetime64[ns]"))


@pytest.mark.parametrize(
    ("values", "units", "says"),
    [
        ([0, 0.5, 1, 1.5], "months since 2020-01-01", r"counts months since 2020-01-01, and 0\.5 is no whole number"),
        ([0, 1, 2, 3], "months since 2020-01-31", "not every month has a day 31"),
        ([202001.5, 202002.5, 202003.5, 202004.5], "month as %Y%m.%f", "count parts of months or years"),
        ([20201301.0, 20201302.0, 20201303.0, 20201304.0], "day as %Y%m%d.%f", "are no dates"),
        ([0, 1, 2, 3], "fortnights as %Q", "plain numbers"),
    ],
)
def test_numbers_that_nobody_can_place(tmp_path, values, units, says):
    with pytest.raises(InputError, match=rf"x\.nc: it.*{says}"):
        open_files(write_netcdf(tmp_path / "x.nc", numbered(values, units)), ["t2m"])


@pytest.mark.parametrize("form", ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y%m%d%H", "%Y-%m-%dT%H:%M:%SZ"])
def test_texts(tmp_path, form):
    texts = [time.item().strftime(form) for time in TIMES.astype("datetime64[s]")]
    path = write_netcdf(tmp_path / "x.nc", field().assign_coords(time=texts))
    np.testing.assert_array_equal(open_files(path, ["t2m"]).state["time"].values, TIMES)
    path = write_netcdf(tmp_path / "y.nc", field().assign_coords(time=["Monday"] * 4))
    with pytest.raises(InputError, match="texts that are no dates"):
        open_files(path, ["t2m"])


@pytest.mark.parametrize("calendar", ["360_day", "366_day", "julian"])
def test_calendars_with_days_that_do_not_exist(tmp_path, calendar):
    dataset = numbered(np.arange(4), "days since 2020-01-01", calendar=calendar)
    with pytest.raises(InputError, match=r"calendar, which real weather does not"):
        open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"])


# --- two files with the same times ---


def test_files_that_overlap_are_said_to_be_equal_or_not(tmp_path):
    write_netcdf(tmp_path / "a.nc", field(times=TIMES[:3]))
    for other, says in ((0.0, "with equal values in the 2 looked at"), (0.5, r"with other values .*\(by up to 0\.5\)")):
        name = f"b{other:g}.nc"
        write_netcdf(tmp_path / name, field(times=TIMES[1:], base=280.0 + other))
        with pytest.raises(
            InputError, match=rf"t2m at 2020-01-01T12.* stands in .*a\.nc and .*b.*\.nc; 2 such .*{says}"
        ):
            open_files([tmp_path / "a.nc", tmp_path / name], ["t2m"])


def with_version(version: str, times, base=280.0) -> xr.Dataset:
    return field(times=times, base=base).assign_coords(expver=("time", [version] * len(times)))


def test_final_fields_of_another_file_take_the_place_of_preliminary_ones(tmp_path, caplog):
    caplog.set_level("INFO")
    write_netcdf(tmp_path / "a.nc", with_version("0005", TIMES[1:], base=290.0))
    write_netcdf(tmp_path / "b.nc", with_version("0001", TIMES[:3]))
    data = open_files(tmp_path / "*.nc", ["t2m"])
    np.testing.assert_allclose(data.state.values[:3, 0], wave(TIMES[:3]), rtol=2e-7)
    np.testing.assert_allclose(data.state.values[3:, 0], wave(TIMES[3:], base=290.0), rtol=2e-7)
    assert data.preliminary.tolist() == [False, False, False, True]
    assert "2 times of t2m" in caplog.text
    assert "the final ones are taken" in caplog.text


def test_final_grib_beside_preliminary_netcdf(tmp_path):
    write_netcdf(tmp_path / "a.nc", with_version("0005", TIMES[:1], base=290.0))
    final = wave(TIMES[:1])[0]
    (tmp_path / "b.grib").write_bytes(grib_message("2t", 0, "surface", values=final, expver="0001"))
    data = open_files([tmp_path / "a.nc", tmp_path / "b.grib"], ["t2m"])
    np.testing.assert_allclose(data.state.values[0, 0], final, rtol=1e-5)
    assert data.preliminary is None


def test_shortest_lead_of_instants_keeps_analyses(tmp_path):
    fields = [(start, step) for start in (0, 6) for step in (0, 6, 12)]
    messages = [
        grib_message("2t", 0, "surface", time=100 * start, stepRange=str(step),
                     values=np.full((len(LATITUDE), len(LONGITUDE)), 280.0 + step))
        for start, step in fields
    ]  # fmt: skip
    (tmp_path / "x.grib").write_bytes(b"".join(messages))
    data = open_files(tmp_path / "x.grib", ["t2m"], lead_time="shortest")
    np.testing.assert_allclose(data.state.values[:, 0, 0, 0], [280, 280, 286, 292], atol=1e-3)


@pytest.mark.parametrize(("step", "offset", "hours"), [("24h", "12h", [12]), ("6h", "3h", [3, 9, 15, 21])])
def test_steps_that_begin_at_another_hour(tmp_path, step, offset, hours):
    times = np.datetime64("2020-01-01", "ns") + np.arange(0, 72, 3) * HOUR.astype("timedelta64[ns]")
    path = write_netcdf(tmp_path / "x.nc", field(times=times))
    found = open_files(path, ["t2m"], step=step, step_offset=offset).state["time"].values
    axis = select_times(found, data_config(tmp_path / "s.zarr", step=step, step_offset=offset))
    assert sorted(set(hour_of_day(axis.times).tolist())) == hours
    assert len(axis.times) == 3 * len(hours)
