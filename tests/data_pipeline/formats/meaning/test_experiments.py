"""Fields of two experiments are never mixed; final and preliminary ERA5 are one."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from synthetic_files import TIMES, field, grib_message, open_files, wave, write_netcdf

from weatherfm.data_pipeline.sources.file_states import open_file_states
from weatherfm.errors import InputError

_BOTH = r"different experiments \(0001 in .*, xxyz in .*\), which are never mixed.*source\.experiment: '0001'"


def grib(path, experiment: str, offset: float, **keys):
    message = grib_message("2t", kind="surface", expver=experiment, values=wave(TIMES[:1])[0] + offset, **keys)
    path.write_bytes(message)
    return path


def test_two_real_experiments_in_one_file(real_data):
    path = real_data / "cases" / "two-experiments" / "zt_multi_expvers.grib"
    with pytest.raises(InputError, match=_BOTH):
        open_files(path, ["t1000"], lead_time="3h")
    means = {}
    for name in ("0001", "xxyz"):
        data = open_files(path, ["t1000"], lead_time="3h", experiment=name)
        means[name] = round(float(data.state.mean()), 2)
        assert data.attributes["experiment"] == name
    assert means == {"0001": 282.97, "xxyz": 307.97}
    with pytest.raises(InputError, match=r"source\.experiment is '0002', but the files hold 0001 in .*, xxyz"):
        open_files(path, ["t1000"], lead_time="3h", experiment="0002")
    with pytest.raises(InputError, match="different experiments"):
        open_file_states([str(path)], ["t1000"], rules={"lead_time": "3h"})


def test_two_files_of_different_experiments(tmp_path):
    files = [grib(tmp_path / "a.grib", "0001", 0), grib(tmp_path / "b.grib", "xxyz", 25, date=20200102)]
    with pytest.raises(InputError, match=_BOTH):
        open_files(files, ["t2m"])
    state = open_files(files, ["t2m"], experiment="xxyz").state
    np.testing.assert_allclose(state[:, 0], wave(TIMES[:1]) + 25, rtol=1e-5)


def test_one_file_of_another_experiment_than_asked(tmp_path):
    path = grib(tmp_path / "a.grib", "xxyz", 0)
    assert open_files(path, ["t2m"]).state.shape[0] == 1
    with pytest.raises(InputError, match=r"source\.experiment is '0001', but the files hold xxyz in .*a\.grib"):
        open_files(path, ["t2m"], experiment=1)  # as YAML reads 0001


def test_channels_of_different_experiments(tmp_path):
    grib(tmp_path / "a.grib", "0001", 0)
    (tmp_path / "b.grib").write_bytes(grib_message("t", 500, expver="xxyz"))
    files = [tmp_path / "a.grib", tmp_path / "b.grib"]
    with pytest.raises(InputError, match=_BOTH):
        open_files(files, ["t2m", "t500"])
    with pytest.raises(InputError, match="no file holds t500 of experiment 0001"):
        open_files(files, ["t2m", "t500"], experiment="0001")
    assert open_files(files, ["t2m"]).state.shape[1] == 1  # what is not wanted is not looked at


def test_final_and_preliminary_era5_are_one_record(tmp_path):
    files = [grib(tmp_path / "a.grib", "0001", 0), grib(tmp_path / "b.grib", "0005", 0, date=20200102)]
    data = open_files(files, ["t2m"])
    assert data.preliminary.tolist() == [False, True]
    assert open_files(files, ["t2m"], experiment="0001").state.shape[0] == 1


def with_versions(dims: tuple[str, ...], versions, path):
    dataset = field()
    if dims == ("expver",):
        parts = [dataset + 25 * i for i in range(len(versions))]
        dataset = xr.concat(parts, "expver").assign_coords(expver=list(versions))
        dataset["t2m"].attrs["units"] = "K"
        return write_netcdf(path, dataset.transpose("time", "expver", "latitude", "longitude"))
    return write_netcdf(path, dataset.assign_coords(expver=(dims, np.array(versions))))


@pytest.mark.parametrize(("dims", "versions"), [
    (("expver",), ("0001", "xxyz")),
    (("time",), ("0001", "0001", "xxyz", "xxyz")),
])  # fmt: skip
def test_versions_in_netcdf(tmp_path, dims, versions):
    path = with_versions(dims, versions, tmp_path / "x.nc")
    with pytest.raises(InputError, match=_BOTH):
        open_files(path, ["t2m"])
    state = open_files(path, ["t2m"], experiment="xxyz").state
    if dims == ("expver",):
        np.testing.assert_allclose(state[:, 0], wave() + 25, rtol=1e-6)
    else:
        np.testing.assert_allclose(state[:, 0], wave()[2:], rtol=1e-6)


@pytest.mark.parametrize("versions", [(1, 5), ("0001", "0005"), (1.0, 5.0)])
def test_old_and_new_data_store_merge_era5(tmp_path, versions):
    state = open_files(with_versions(("expver",), versions, tmp_path / "x.nc"), ["t2m"]).state
    np.testing.assert_allclose(state[:, 0], wave(), rtol=1e-6)


@pytest.mark.parametrize("key", ["GRIB_expver", "GRIB_experimentVersionNumber", "expver"])
def test_versions_in_attributes(tmp_path, key):
    one, two = field(times=TIMES[:2]), field(times=TIMES[2:])
    one["t2m"].attrs[key], two["t2m"].attrs[key] = "0001", "xxyz"
    files = [write_netcdf(tmp_path / "a.nc", one), write_netcdf(tmp_path / "b.nc", two)]
    with pytest.raises(InputError, match=_BOTH):
        open_files(files, ["t2m"])
    assert open_files(files, ["t2m"], experiment="xxyz").state.shape[0] == 2
