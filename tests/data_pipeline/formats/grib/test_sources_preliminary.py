"""ERA5T, which its centre replaces: told apart field by field, in GRIB and NetCDF."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_files import TIMES, field, grib_message, open_files, write_netcdf


def grib(name: str, version: str, day: int, **keys) -> bytes:
    return grib_message(name, kind="surface", date=20200100 + day, expver=version, **keys)


def told(data) -> list[bool] | None:
    return None if data.preliminary is None else data.preliminary.tolist()


def test_a_time_is_preliminary_when_any_of_its_fields_is(tmp_path):
    messages = [grib("2t", "0001", 1), grib("2t", "0001", 2), grib("2t", "0005", 3)]
    messages += [grib("10u", "0001", 1), grib("10u", "0005", 2), grib("10u", "0005", 3)]
    path = tmp_path / "x.grib"
    path.write_bytes(b"".join(messages))
    assert told(open_files(path, ["t2m", "u10"])) == [False, True, True]
    assert told(open_files(path, ["t2m"])) == [False, False, True]


def test_final_fields_take_the_place_of_preliminary_ones(tmp_path):
    path = tmp_path / "x.grib"
    path.write_bytes(grib("2t", "0005", 1) + grib("2t", "0001", 1))
    assert told(open_files(path, ["t2m"])) is None


def test_a_sum_is_preliminary_when_any_of_its_hours_is(tmp_path):
    start = np.datetime64("2020-01-01T00")
    ends = start + np.arange(1, 19) * np.timedelta64(1, "h")
    dataset = field("tp", "m", times=ends.astype("datetime64[ns]"))
    dataset = dataset.assign_coords(expver=("time", ["0001"] * 10 + ["0005"] + ["0001"] * 7))
    data = open_files(write_netcdf(tmp_path / "x.nc", dataset), ["tp"], step="6h", sums="1h")
    np.testing.assert_array_equal(data.state["time"], start + np.array([6, 12, 18]).astype("timedelta64[h]"))
    assert told(data) == [False, True, False]


@pytest.mark.parametrize("versions", [["0001", "0001", "0005", "0005"], [1, 1, 5, 5]], ids=["texts", "numbers"])
def test_netcdf_of_the_new_climate_data_store(tmp_path, versions):
    dataset = field().rename(time="valid_time").assign_coords(expver=("valid_time", versions))
    assert told(open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"])) == [False, False, True, True]


def test_one_version_for_a_whole_file(tmp_path):
    for version, expected in (("0005", [True] * len(TIMES)), ("0001", None)):
        dataset = field().assign_coords(expver=np.array(version))
        assert told(open_files(write_netcdf(tmp_path / f"{version}.nc", dataset), ["t2m"])) == expected
