"""Zarr stores packed into a ZIP file are read where they lie; what is damaged, protected or doubtful is refused."""

from __future__ import annotations

import os
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from synthetic_files import TIMES, field, open_files, wave, write_netcdf

from weatherfm.data_pipeline.formats.files.paths import recognise
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.sources.file_states import open_file_states
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError


def zipped(path: Path, folder: str = "", method=zipfile.ZIP_STORED, **options) -> Path:
    """`field()` as a Zarr store in a ZIP file, one time a chunk, packed below `folder`."""
    store = path.with_suffix(".folder")
    chunks = {"t2m": {"chunks": (1, 4, 8)}, **options.pop("encoding", {})}
    field().to_zarr(store, encoding=chunks, **options)
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(store.rglob("*")):
            if file.is_file():
                archive.write(file, folder + str(file.relative_to(store)))
    return path


SHARDED = {"t2m": {"chunks": (1, 4, 8), "shards": (2, 4, 8)}}


@pytest.mark.parametrize("folder", ["", "era5.zarr/"])
@pytest.mark.parametrize(
    "options",
    [{"zarr_format": 2, "consolidated": True}, {"zarr_format": 2, "consolidated": False},
     {"zarr_format": 3, "consolidated": False}, {"zarr_format": 3, "encoding": SHARDED}],
    ids=["v2", "v2 plain", "v3", "v3 shards"],
)  # fmt: skip
def test_values_are_those_that_went_in(tmp_path, folder, options):
    path = zipped(tmp_path / "era5.zarr.zip", folder, **options)
    data = open_files(path, ["t2m"])
    assert recognise(str(path)) == "zarr"
    np.testing.assert_array_equal(data.state[:, 0], wave().astype(np.float32))
    np.testing.assert_array_equal(data.state["time"], TIMES)
    assert list(data.identity) == ["era5.zarr.zip"]
    stat = os.stat(path)
    assert data.identity["era5.zarr.zip"] == f"{stat.st_size} bytes, changed {stat.st_mtime_ns}"
    assert not (tmp_path / "cache").exists()


def test_a_store_that_zarr_itself_wrote(tmp_path):
    """Its members of metadata stand several times, and the last one holds."""
    with (
        zarr.storage.ZipStore(tmp_path / "x.zarr.zip", mode="w") as store,
        pytest.warns(UserWarning, match="Duplicate"),
    ):
        field().to_zarr(store)
    np.testing.assert_array_equal(open_files(tmp_path / "x.zarr.zip", ["t2m"]).state[:, 0], wave().astype(np.float32))


def test_threads_and_other_processes(tmp_path):
    path = zipped(tmp_path / "x.zip", "x/")
    fields = pickle.loads(pickle.dumps(open_files(path, ["t2m"]).fields))
    with ThreadPoolExecutor(4) as threads:
        read = list(threads.map(lambda i: fields.read(np.array([i]), np.array([0])), list(range(len(TIMES))) * 8))
    for i, one in enumerate(read):
        np.testing.assert_array_equal(one[0, 0], wave().astype(np.float32)[i % len(TIMES)])


def test_states_to_forecast_from(tmp_path):
    states = open_file_states([str(zipped(tmp_path / "x.zarr.zip"))], ["t2m"])
    np.testing.assert_array_equal(states.read(states.times, ["t2m"])[:, 0, 0], wave().astype(np.float32))


def test_what_reading_takes(tmp_path):
    """As stored: a chunk of 4 x 8 float64, uncompressed in the ZIP file beyond Zarr's own codecs."""
    path = zipped(tmp_path / "x.zarr.zip")
    with zipfile.ZipFile(path) as archive:
        sizes = [info.compress_size for info in archive.infolist() if info.filename.startswith("t2m/c/")]
    cost = open_files(path, ["t2m"]).cost(np.arange(len(TIMES)))
    assert (cost.requests, cost.compressed) == (len(TIMES), pytest.approx(sum(sizes), rel=0.1))


def test_a_file_that_changes_is_refused(tmp_path):
    path = zipped(tmp_path / "x.zarr.zip")
    data = open_files(path, ["t2m"])
    os.utime(path, ns=(0, 10**18))
    with pytest.raises(InputError, match="changed since its headers were read"):
        data.state.values  # noqa: B018


def test_a_missing_chunk_is_named(tmp_path):
    path = zipped(tmp_path / "x.zarr.zip")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "y.zarr.zip", "w") as other:
        for info in archive.infolist():
            if info.filename != "t2m/c/1/0/0":
                other.writestr(info, archive.read(info))
    data = open_files(tmp_path / "y.zarr.zip", ["t2m"])
    with pytest.raises(InputError, match=r"y\.zarr\.zip: t2m at 2020-01-01T12:00: chunk t2m/c/1/0/0 is not there"):
        data.fields.read(np.array([1]), np.array([0]))


def test_a_damaged_chunk_is_named(tmp_path):
    path = zipped(tmp_path / "x.zarr.zip")
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("t2m/c/1/0/0").header_offset + 60
    content = bytearray(path.read_bytes())
    content[start] ^= 0xFF
    path.write_bytes(content)
    data = open_files(path, ["t2m"])
    np.testing.assert_array_equal(data.fields.read(np.array([0]), np.array([0]))[0, 0], wave().astype(np.float32)[0])
    with pytest.raises(InputError, match=r"t2m at 2020-01-01T12:00: chunk t2m/c/1/0/0 is damaged \(BadZipFile: .*CRC"):
        data.fields.read(np.array([1]), np.array([0]))


def test_what_cannot_be_read_is_refused(tmp_path):
    path = zipped(tmp_path / "x.zarr.zip")
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(InputError, match=r"x\.zarr\.zip: it is a ZIP archive, truncated"):
        open_files(path, ["t2m"])
    for flag, method, says in ((1, 0, "with a password"), (0, 97, "is packed by method 97, which Python cannot read")):
        content, at = bytearray(whole), whole.index(b"PK\x01\x02")
        content[at + 8], content[at + 10] = flag, method
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"a Zarr store in a ZIP file .*{says}"):
            open_files(path, ["t2m"])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("zarr.json", "{")
    with pytest.raises(InputError, match=r"whose zarr\.json is no metadata"):
        open_files(path, ["t2m"])


def test_several_stores_and_arrays_are_no_store(tmp_path):
    store = tmp_path / "v3"
    field().to_zarr(store, zarr_format=3, consolidated=False)
    for parts in ([("a/", store), ("b/", store)], [("a/b/", store)], [("", store / "t2m")]):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for folder, part in parts:
                for file in (one for one in part.rglob("*") if one.is_file()):
                    archive.write(file, folder + str(file.relative_to(part)))
        with pytest.raises(InputError, match="several Zarr stores, of a single array or of one deeper"):
            open_files(tmp_path / "x.zip", ["t2m"])


def test_addresses_of_archives_are_refused_by_name():
    with pytest.raises(InputError, match=r"x\.zarr\.zip.*: it is a ZIP archive at an address; fetch it"):
        open_files(["https://host/x.zarr.zip"], ["t2m"])


def test_a_store_beside_other_files_is_prepared_like_its_folder(tmp_path):
    path = zipped(tmp_path / "x.zarr.zip", zarr_format=3)
    other = write_netcdf(tmp_path / "d2m.nc", field("d2m", base=270.0))
    for name, places in (("zip", [path, other]), ("folder", [path.with_suffix(".folder"), other])):
        source = {"kind": "files", "paths": [str(place) for place in places]}
        prepare(DataConfig(store=str(tmp_path / name), source=source, channels=["t2m", "d2m"], climatology_window=None))
    states = [xr.open_zarr(tmp_path / name)["state"].values for name in ("zip", "folder")]
    np.testing.assert_array_equal(*states)
