"""Times, members, lead times and many files: one field for each time, or a refusal that names the files."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from synthetic_files import LATITUDE, LONGITUDE, TIMES, field, open_files, wave, write_netcdf

from weatherfm.errors import InputError


def check(data, expected=None, times=TIMES) -> None:
    np.testing.assert_array_equal(data.state["time"].values.astype("datetime64[s]"), times.astype("datetime64[s]"))
    np.testing.assert_allclose(data.state.values[:, 0], wave(times) if expected is None else expected, rtol=2e-7)


def test_valid_time_as_the_new_cds_writes_it(tmp_path):
    dataset = field().rename(time="valid_time")
    dataset = dataset.assign_coords(number=0, expver=("valid_time", ["0001", "0001", "0005", "0005"]))
    check(open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"]))


def test_valid_time_beside_the_start_of_the_forecast(tmp_path):
    starts = TIMES - np.timedelta64(6, "h")
    dataset = field().assign_coords(time=starts, valid_time=("time", TIMES))
    check(open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"]))


def test_scalar_time(tmp_path):
    for i in (1, 0):
        write_netcdf(tmp_path / f"{i}.nc", field().isel(time=i))
    check(open_files(tmp_path / "*.nc", ["t2m"]), times=TIMES[:2])


def test_integer_dates(tmp_path):
    dataset = field(times=TIMES[::2]).assign_coords(time=np.array([20200101, 20200102], "int32"))
    check(open_files(write_netcdf(tmp_path / "x.nc", dataset.rename(time="date")), ["t2m"]), times=TIMES[::2])


@pytest.mark.parametrize(
    ("times", "attributes", "says"),
    [
        (np.arange(4), {}, "plain numbers"),
        (np.arange(4), {"units": "days since 2020-01-01", "calendar": "360_day"}, "'360_day' calendar"),
        (np.arange(4), {"units": "days since the flood"}, "times are counted in"),
    ],
)
def test_unreadable_times_are_refused(tmp_path, times, attributes, says):
    dataset = field().assign_coords(time=("time", times, attributes))
    with pytest.raises(InputError, match=rf"x\.nc: .*{says}"):
        open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"])


def test_no_time_at_all(tmp_path):
    with pytest.raises(InputError, match=r"x\.nc: t2m has no time"):
        open_files(write_netcdf(tmp_path / "x.nc", field().isel(time=0, drop=True)), ["t2m"])


# --- ERA5 and ERA5T ---


def test_expver_dimension_is_merged(tmp_path):
    final, early = field(), field(base=280.0)
    final["t2m"][2:] = np.nan
    early["t2m"][:2] = np.nan
    both = xr.concat([final, early], xr.DataArray([1, 5], dims="expver", name="expver"))
    assert np.isnan(both["t2m"]).any()
    check(open_files(write_netcdf(tmp_path / "x.nc", both.transpose("time", "expver", ...)), ["t2m"]))


# --- members ---


def members() -> xr.Dataset:
    return xr.concat([field(base=280.0 + n) for n in range(3)], xr.DataArray([0, 1, 2], dims="number", name="number"))


@pytest.mark.parametrize("name", ["number", "realization", "member"])
def test_a_member_must_be_chosen(tmp_path, name):
    path = write_netcdf(tmp_path / "x.nc", members().rename(number=name))
    with pytest.raises(InputError, match=r"3 ensemble members \(0, 1, 2\); choose one, e\.g\. source\.number=0"):
        open_files(path, ["t2m"])
    check(open_files(path, ["t2m"], number=2), wave(base=282.0))
    with pytest.raises(InputError, match=r"source\.number is 7, but the files hold members 0, 1, 2"):
        open_files(path, ["t2m"], number=7)


def test_a_file_for_each_member(tmp_path):
    for n in range(3):
        write_netcdf(tmp_path / f"{n}.nc", members().isel(number=n))
    with pytest.raises(InputError, match="3 ensemble members"):
        open_files(tmp_path / "*.nc", ["t2m"])
    check(open_files(tmp_path / "*.nc", ["t2m"], number=1), wave(base=281.0))


# --- forecasts ---


def forecast(step_name="step", time_name="time") -> xr.Dataset:
    """Two starts, three steps; the value tells valid time and step."""
    steps = np.array([0, 6, 12], "timedelta64[h]").astype("timedelta64[ns]")
    values = np.stack([wave(TIMES[:2] + step, base=280.0 + i) for i, step in enumerate(steps)], axis=1)
    return xr.Dataset(
        {"t2m": ((time_name, step_name, "latitude", "longitude"), values, {"units": "K"})},
        coords={time_name: TIMES[:2], step_name: steps, "latitude": LATITUDE, "longitude": LONGITUDE},
    )


@pytest.mark.parametrize(
    ("step", "time"),
    [("step", "time"), ("prediction_timedelta", "time"), ("forecast_period", "forecast_reference_time")],
)
def test_a_lead_time_must_be_chosen(tmp_path, step, time):
    path = write_netcdf(tmp_path / "x.nc", forecast(step, time))
    with pytest.raises(InputError, match=r"several lead times \(0h, 6h, 12h\); choose one"):
        open_files(path, ["t2m"])
    valid = TIMES[:2] + np.timedelta64(6, "h")
    check(open_files(path, ["t2m"], lead_time="6h"), wave(valid, base=281.0), valid)
    with pytest.raises(InputError, match=r"t2m at lead time 24h, only 0h, 6h, 12h"):
        open_files(path, ["t2m"], lead_time="24h")


def test_valid_time_of_two_dimensions(tmp_path):
    dataset = forecast()
    dataset = dataset.assign_coords(valid_time=dataset["time"] + dataset["step"])
    valid = TIMES[:2] + np.timedelta64(12, "h")
    check(
        open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"], lead_time="12h"), wave(valid, base=282.0), valid
    )


def test_accumulations_of_several_steps_need_no_choice(tmp_path):
    accumulated = forecast().rename(t2m="tp").isel(step=[1, 2])  # ERA5: 06 and 18 UTC, each hour of the next twelve
    accumulated["tp"].attrs["units"] = "m"
    write_netcdf(tmp_path / "tp.nc", accumulated)
    data = open_files(tmp_path / "tp.nc", ["tp"], sums="1h", accumulation="1h")
    valid = np.sort((TIMES[:2, None] + np.array([6, 12], "timedelta64[h]")).ravel())
    np.testing.assert_array_equal(data.state["time"].values, valid)
    assert data.state.attrs["accumulated"] == ["tp"]


def test_overlapping_accumulations_name_their_lead_times(tmp_path):
    overlapping = forecast().rename(t2m="tp")
    overlapping["step"] = overlapping["step"] + np.timedelta64(6, "h")  # 6, 12 and 18 h of runs 12 h apart
    overlapping["tp"].attrs["units"] = "m"
    with pytest.raises(InputError, match=r"tp at 2020-01-01T18:00:00 stands in .*choose one with source\.lead_time"):
        open_files(write_netcdf(tmp_path / "tp.nc", overlapping), ["tp"])


# --- many files ---


def test_files_are_sorted_by_their_times_not_their_names(tmp_path):
    write_netcdf(tmp_path / "b.nc", field(times=TIMES[:1]))
    write_netcdf(tmp_path / "a.nc", field(times=TIMES[[3, 2, 1]]))
    check(open_files(tmp_path / "*.nc", ["t2m"]))


def test_formats_and_splits_may_be_mixed(tmp_path):
    field(times=TIMES[:2]).to_zarr(tmp_path / "t_a.zarr", zarr_format=2)
    field(times=TIMES[2:3]).to_zarr(tmp_path / "t_b.zarr", zarr_format=3, consolidated=False)
    write_netcdf(tmp_path / "t_c.nc", field(times=TIMES[3:]), format="NETCDF3_64BIT")
    write_netcdf(tmp_path / "msl.nc", field("msl", "hPa", base=1000.0))
    data = open_files([tmp_path / "t_*", tmp_path / "msl.nc"], ["t2m", "msl"])
    check(data)
    np.testing.assert_allclose(data.state.values[:, 1], 100 * wave(base=1000.0), rtol=2e-7)
    assert data.attributes["files"] == 4


def test_duplicate_times_name_both_files(tmp_path):
    write_netcdf(tmp_path / "a.nc", field(times=TIMES[:3]))
    write_netcdf(tmp_path / "b.nc", field(times=TIMES[2:]))
    with pytest.raises(InputError, match=r"t2m at 2020-01-02T00:00:00 stands in .*a\.nc and .*b\.nc; 1 such time"):
        open_files(tmp_path / "*.nc", ["t2m"])
    write_netcdf(tmp_path / "c.nc", field(times=TIMES[[0, 1, 1]]))
    with pytest.raises(InputError, match=r"stands in .*c\.nc \(twice\)"):
        open_files(tmp_path / "c.nc", ["t2m"])


def test_channels_with_different_times(tmp_path):
    write_netcdf(tmp_path / "a.nc", field())
    write_netcdf(tmp_path / "b.nc", field("d2m", times=TIMES[[0, 1, 3]]))
    paths = [tmp_path / "a.nc", tmp_path / "b.nc"]
    with pytest.raises(InputError, match=r"d2m lacks 1 of 4 \(first 2020-01-02T00:00:00.*allow_gaps"):
        open_files(paths, ["t2m", "d2m"])
    check(open_files(paths, ["t2m", "d2m"], allow_gaps=True), times=TIMES[[0, 1, 3]])
    check(open_files(paths, ["t2m", "d2m"], period="2020-01-01/2020-01-01"), times=TIMES[:2])
    daily = open_files([tmp_path / "a.nc"], ["t2m"], step="24h")
    check(daily, times=TIMES[::2])


def test_hourly_beside_daily_agree_on_a_step(tmp_path):
    write_netcdf(tmp_path / "a.nc", field())
    write_netcdf(tmp_path / "b.nc", field("d2m", times=TIMES[::2]))
    check(open_files(tmp_path / "*.nc", ["t2m", "d2m"], step="24h"), times=TIMES[::2])
    with pytest.raises(InputError, match="different times"):
        open_files(tmp_path / "*.nc", ["t2m", "d2m"])


def test_nothing_in_the_period(tmp_path):
    path = write_netcdf(tmp_path / "a.nc", field())
    with pytest.raises(
        InputError, match=r"no file holds t2m in data\.period 1999.*2020-01-01T00:00:00 to 2020-01-02T12"
    ):
        open_files(path, ["t2m"], period="1999")
    odd = write_netcdf(tmp_path / "b.nc", field(times=TIMES + np.timedelta64(5, "h")))
    with pytest.raises(InputError, match="t2m has no time on steps of 24h"):
        open_files(odd, ["t2m"], step="24h")


def test_reference_time_is_not_taken_for_the_time(tmp_path):
    reference = np.datetime64("2019-12-31", "ns")
    scalar = field().isel(time=1).assign_coords(forecast_reference_time=reference)
    check(open_files(write_netcdf(tmp_path / "x.nc", scalar), ["t2m"]), times=TIMES[1:2])
    period = scalar.assign_coords(forecast_period=np.timedelta64(36, "h").astype("timedelta64[ns]"))
    check(open_files(write_netcdf(tmp_path / "y.nc", period), ["t2m"], lead_time="36h"), times=TIMES[1:2])


def test_one_file_under_two_names_is_read_once(tmp_path):
    path = write_netcdf(tmp_path / "a.nc", field())
    (tmp_path / "b.nc").symlink_to(path)
    check(open_files([path, tmp_path / "b.nc", tmp_path / ".." / tmp_path.name / "a.nc"], ["t2m"]))
