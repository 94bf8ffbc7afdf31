"""ERA5 as the Climate Data Store wrote it until 2024: final and preliminary fields along a dimension, NaN where not."""

from __future__ import annotations

import netCDF4
import numpy as np
import pytest
import xarray as xr
from synthetic_files import LATITUDE, LONGITUDE, TIMES, open_files, wave, write_netcdf

WAVE = wave()


def store(path, order=(1, 5), both: int | None = None, packed=True):
    """The last two of four times are preliminary; at time `both`, both versions hold values, 5 K apart."""
    versions = {1: np.where(np.arange(4)[:, None, None] < 2, WAVE, np.nan)}
    versions[5] = np.where(np.arange(4)[:, None, None] >= 2, WAVE, np.nan)
    if both is not None:
        versions[1][both], versions[5][both] = WAVE[both], WAVE[both] + 5
    values = np.stack([versions[one] for one in order], axis=1)
    dims = ("time", "expver", "latitude", "longitude")
    coords = {"time": TIMES, "expver": np.array(order, "i4"), "latitude": LATITUDE, "longitude": LONGITUDE}
    dataset = xr.Dataset({"t2m": (dims, values, {"units": "K"})}, coords=coords)
    packing = {"dtype": "i2", "scale_factor": 1e-3, "add_offset": 285.0, "_FillValue": -32767}
    return write_netcdf(path, dataset, encoding={"t2m": packing} if packed else {})


@pytest.mark.parametrize("order", [(1, 5), (5, 1)])
@pytest.mark.parametrize("packed", [True, False])
def test_which_times_are_preliminary(tmp_path, order, packed):
    data = open_files(store(tmp_path / "x.nc", order, packed=packed), ["t2m"])
    np.testing.assert_allclose(data.state.values[:, 0], WAVE, atol=6e-4)
    assert data.preliminary.tolist() == [False, False, True, True]


@pytest.mark.parametrize("order", [(1, 5), (5, 1)])
def test_the_final_field_is_taken_whatever_the_order(tmp_path, order):
    path = store(tmp_path / "x.nc", order, both=2, packed=False)
    data = open_files(path, ["t2m"])
    with netCDF4.Dataset(path) as file:
        final = file["t2m"][2, order.index(1)].filled(np.nan)
    np.testing.assert_allclose(data.state.values[2, 0], final, rtol=1e-6)
    assert data.preliminary.tolist() == [False, False, False, True]


def test_only_preliminary(tmp_path):
    dataset = xr.open_dataset(store(tmp_path / "x.nc", packed=False)).isel(expver=[1], time=[2, 3]).load()
    data = open_files(write_netcdf(tmp_path / "y.nc", dataset), ["t2m"])
    assert data.preliminary.tolist() == [True, True]
