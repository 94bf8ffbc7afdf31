"""Whole Blosc chunks of Zarr version 2 are read as others read them, and anything else not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from weatherfm.data_pipeline.formats.zarr import whole_chunks
from weatherfm.data_pipeline.formats.zarr.folder_values import read_plain
from weatherfm.data_pipeline.formats.zarr.whole_chunks import read_whole

EVERY = (slice(None), slice(0, 3), slice(None), slice(None))


def write(path: Path, zarr_format: int = 2, **encoding) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((5, 3, 6, 4)).astype(np.float32)
    values[1, 0, 2, 1] = np.nan
    state = xr.DataArray(values, dims=("time", "level", "longitude", "latitude"), name="z")
    encoding = {"chunks": (1, 3, 6, 4), **encoding}
    state.to_dataset().to_zarr(path, zarr_format=zarr_format, encoding={"z": encoding}, consolidated=False)
    return values


def read(path: Path, picks=EVERY) -> np.ndarray | None:
    return read_whole(str(path / "z"), json.loads((path / "z/.zarray").read_text()), picks)


@pytest.mark.parametrize("times", [slice(None), slice(1, 4), slice(0, 5, 2), np.array([4, 1, 1]), 3], ids=str)
def test_the_values_are_those_written(tmp_path, times):
    values = write(tmp_path)
    found = read(tmp_path, (times, *EVERY[1:]))
    np.testing.assert_array_equal(found, values[times])


@pytest.mark.parametrize(
    "picks",
    [(slice(None), 1, *EVERY[2:]), (slice(None), slice(0, 2), *EVERY[2:]), (*EVERY[:3], np.arange(4))],
    ids=["a level", "some levels", "positions"],
)
def test_parts_of_chunks_are_left_to_others(tmp_path, picks):
    write(tmp_path)
    assert read(tmp_path, picks) is None


@pytest.mark.parametrize(
    "encoding",
    [{"chunks": (2, 3, 6, 4)}, {"chunks": (1, 3, 6, 2)}, {"compressors": None}],
    ids=["times", "tiles", "raw"],
)
def test_other_chunks_are_left_to_others(tmp_path, encoding):
    write(tmp_path, **encoding)
    assert read(tmp_path) is None


def test_a_chunk_cut_short_or_of_another_size_is_not_believed(tmp_path):
    write(tmp_path)
    chunk = tmp_path / "z/2.0.0.0"
    whole = chunk.read_bytes()
    for content in (b"", whole[:10], whole[:-1], whole + b"x", whole[:4] + b"\1\0\0\0" + whole[8:]):
        chunk.write_bytes(content)
        assert read(tmp_path) is None
    chunk.unlink()
    with pytest.raises(FileNotFoundError):
        read(tmp_path)


def test_prepare_reads_that_way(tmp_path, monkeypatch):
    values, seen = write(tmp_path), []
    real = whole_chunks.blosc.decompress
    monkeypatch.setattr(whole_chunks.blosc, "decompress", lambda *given: seen.append(1) or real(*given))
    variable = xr.open_zarr(tmp_path, chunks=None, consolidated=False).variables["z"]
    np.testing.assert_array_equal(read_plain(str(tmp_path), "z", variable, {"time": slice(1, 4)}), values[1:4])
    assert len(seen) == 3
