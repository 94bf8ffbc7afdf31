"""Zarr arrays in a folder, read by tensorstore: the same values as through xarray, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from weatherfm.data_pipeline.formats.zarr.folder_values import read_plain
from weatherfm.data_pipeline.formats.zarr.opening import ChunkError

PICKS = [
    {},
    {"time": slice(1, 4)},
    {"time": np.array([4, 1, 2]), "level": 1},
    {"level": slice(0, 3, 2), "time": slice(0, 5, 2)},
    {"time": 3, "longitude": slice(2, 5)},
]


def write(path: Path, zarr_format: int = 2, dtype="float32", **encoding) -> xr.Dataset:
    values = np.random.default_rng(0).standard_normal((5, 3, 6, 4)).astype(dtype)
    values[1, 0, 2, 1] = np.nan if np.issubdtype(dtype, np.floating) else 0
    state = xr.DataArray(values, dims=("time", "level", "longitude", "latitude"), name="z")
    encoding = {"chunks": (2, 3, 6, 4), **encoding}
    state.to_dataset().to_zarr(path, zarr_format=zarr_format, encoding={"z": encoding}, consolidated=False)
    return xr.open_zarr(path, chunks=None, consolidated=False)


@pytest.mark.parametrize("pick", PICKS, ids=str)
@pytest.mark.parametrize(
    "settings",
    [{}, {"zarr_format": 3}, {"zarr_format": 3, "shards": (4, 3, 6, 4)}, {"dtype": "float64"}],
    ids=["v2", "v3", "v3 shards", "float64"],
)
def test_same_values_as_through_xarray(tmp_path, settings, pick):
    variable = write(tmp_path / "s.zarr", **settings).variables["z"]
    found = read_plain(str(tmp_path / "s.zarr"), "z", variable, pick)
    assert found is not None
    assert found.dtype == variable.dtype
    np.testing.assert_array_equal(found, variable.isel(pick).values)


@pytest.mark.parametrize(
    "settings",
    [
        {"dtype": "int16"},
        {"scale_factor": 0.01, "dtype": "int16"},
        {"_FillValue": -999.0},
    ],
    ids=["integers", "packed", "fill value"],
)
def test_what_is_not_plain_is_left_to_xarray(tmp_path, settings):
    encoding = dict(settings)
    values = np.random.default_rng(0).standard_normal((5, 3, 6, 4))
    state = xr.DataArray(values, dims=("time", "level", "longitude", "latitude"), name="z")
    state.to_dataset().to_zarr(tmp_path / "s.zarr", encoding={"z": encoding}, zarr_format=2, consolidated=False)
    variable = xr.open_zarr(tmp_path / "s.zarr", chunks=None, consolidated=False).variables["z"]
    assert read_plain(str(tmp_path / "s.zarr"), "z", variable, {}) is None


def test_a_missing_or_damaged_chunk_is_never_filled_in(tmp_path):
    variable = write(tmp_path / "s.zarr").variables["z"]
    chunk = tmp_path / "s.zarr/z/1.0.0.0"
    whole = chunk.read_bytes()
    chunk.unlink()
    assert read_plain(str(tmp_path / "s.zarr"), "z", variable, {}) is None
    assert read_plain(str(tmp_path / "s.zarr"), "z", variable, {"time": slice(0, 2)}) is not None
    chunk.write_bytes(whole[:20])
    with pytest.raises(ChunkError, match="is damaged"):
        read_plain(str(tmp_path / "s.zarr"), "z", variable, {})


def test_addresses_are_not_for_it(tmp_path):
    variable = write(tmp_path / "s.zarr").variables["z"]
    assert read_plain("https://example.org/s.zarr", "z", variable, {}) is None
