"""What is no data, or only half of it, is told by its own name; grids are told as they are."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile

import numpy as np
import pytest
import xarray as xr
from pydantic import ValidationError
from synthetic_files import LATITUDE, LONGITUDE, TIMES, field, grib_message, open_files, wave, write_netcdf

from weatherfm.data_pipeline.formats.files.declared_length import check_hdf5_length
from weatherfm.data_pipeline.formats.files.paths import recognise
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.sources.file_states import open_file_states
from weatherfm.data_pipeline.store_config import Area, DataConfig
from weatherfm.errors import InputError


def a_tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        made.addfile(tarfile.TarInfo("x.nc"))
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (gzip.compress(b"GRIB", mtime=0), "a gzip archive; unpack it"),
        (bz2.compress(b"GRIB"), "a bzip2 archive; unpack it"),
        (lzma.compress(b"GRIB"), "an xz archive; unpack it"),
        (b"\x28\xb5\x2f\xfdxx", "a zstd archive"),
        (a_tar(), "a tar archive"),
        (b"Rar!\x1a\x07\0", "a RAR archive"),
        (b"<html><body>GRIB \1 filter is down</body></html>", "an HTML page"),
        (b'{"title": "The job has failed: GRIB", "status": 400}', "a JSON text, .*The job has failed"),
        (b'{"domain": "g", "param": "2t", "_offset": 0, "_length": 5}\n', "an index of a GRIB file"),
        (json.dumps({"version": 1, "refs": {".zgroup": "{}"}}).encode(), "kerchunk"),
        (b"1:0:d=2018100618:UGRD:10 m above ground:anl:\n", "an index of a GRIB file"),
        (b"\7GRBIDX1\0rest\0", "an index of a GRIB file"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
        (b"The GRIB file is not available", "a text"),
        (b"\x0e\x03\x13\x01\0\0", "HDF4"),
        (b"BUFR\0\0\0\4", "BUFR observations"),
        (b"II*\0\x10", "a TIFF picture"),
        (b"\x89PNG\r\n", "a picture"),
        (b"\x93NUMPY\1\0", "a NumPy array"),
        (b"\0\5\x16\7\0\2", "macOS"),
        (b"\x80\x04\x95GRIB\xff\xff", "not NetCDF, GRIB or Zarr"),  # the letters stand there by chance
        (b"PK\3\4" + b"\xff" * 40 + b"GRIB\0\0\0\2", "a ZIP archive, truncated"),
    ],
)
def test_told_by_its_own_name(tmp_path, content, says):
    path = tmp_path / "era5.nc"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"era5\.nc: it is .*{says}"):
        open_files(path, ["t2m"])


def test_an_index_of_cfgrib(tmp_path):
    (tmp_path / "x.grib.5b7b6.idx").write_bytes(b"\x80\x04\x95\x8c\x05\x00")
    with pytest.raises(InputError, match="an index of a GRIB file"):
        recognise(str(tmp_path / "x.grib.5b7b6.idx"))


def test_folders_and_pipes(tmp_path):
    field().to_zarr(tmp_path / "v2", zarr_format=2, consolidated=False)
    field().to_zarr(tmp_path / "v3", zarr_format=3, consolidated=False)
    for version in ("v2", "v3"):
        with pytest.raises(InputError, match="a single Zarr array; name the group"):
            recognise(str(tmp_path / version / "t2m"))
    os.mkfifo(tmp_path / "pipe.nc")
    with pytest.raises(InputError, match="a pipe or a device"):
        recognise(str(tmp_path / "pipe.nc"))


@pytest.mark.parametrize("keep", [0.99, 0.6])
def test_a_truncated_netcdf4_says_what_is_missing(tmp_path, keep):
    path = write_netcdf(tmp_path / "x.nc", field())
    check_hdf5_length(str(path))
    size, whole = path.stat().st_size, path.read_bytes()
    path.write_bytes(whole[: int(keep * size)])
    with pytest.raises(InputError, match=rf"x\.nc: it is truncated: {int(keep * size)} bytes of {size}"):
        open_files(path, ["t2m"])


@pytest.mark.parametrize("behind", [0, 512])
@pytest.mark.parametrize(("version", "at"), [(0, 40), (1, 44), (2, 28), (3, 28)])
def test_hdf5_of_every_kind_of_first_block(tmp_path, version, at, behind):
    """Its end stands at another place in each version (HDF5 File Format Specification)."""
    block = bytearray(200)
    block[:9] = b"\x89HDF\r\n\x1a\n" + bytes([version])
    block[13 if version < 2 else 9] = 8  # bytes of an address
    block[at : at + 8] = (behind + 200).to_bytes(8, "little")
    path = tmp_path / "x.h5"
    path.write_bytes(bytes(behind) + block)
    check_hdf5_length(str(path))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"is truncated: {behind + 199} bytes of {behind + 200}"):
        check_hdf5_length(str(path))


def test_points_in_a_list_and_stores_of_anemoi(tmp_path):
    coords = {"time": TIMES, "latitude": ("values", np.arange(5.0)), "longitude": ("values", np.arange(5.0))}
    dataset = xr.Dataset({"t2m": (("time", "values"), np.zeros((4, 5)), {"units": "K"})}, coords)
    with pytest.raises(InputError, match=r"a list of 5 points \(values\), as reduced Gaussian.*setgridtype,regular"):
        open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"])
    flat = np.zeros((2, 3, 1, 6), np.float32)
    anemoi = xr.Dataset(
        {"data": (("time", "variable", "ensemble", "cell"), flat)}, attrs={"variables": ["2t", "10u", "lsm"]}
    )
    anemoi.to_zarr(tmp_path / "a.zarr", zarr_format=2)
    with pytest.raises(
        InputError, match=r"a\.zarr: .*\(2t, 10u, lsm, \.\.\.\) on 6 flattened cells, as anemoi-datasets"
    ):
        open_files(tmp_path / "a.zarr", ["t2m"])


# --- grids ---


def on_longitudes(longitude) -> xr.Dataset:
    return field(longitude=np.asarray(longitude, float))


@pytest.mark.parametrize(("count", "gap"), [(52, "3"), (51, "10")])
def test_columns_that_do_not_close_the_circle(tmp_path, count, gap):
    path = write_netcdf(tmp_path / "x.nc", on_longitudes(np.arange(count) * 7))
    says = rf"{count} columns 0 \.\. {7 * (count - 1)} are 7 degrees apart, but from the last to the first it is {gap};"
    with pytest.raises(InputError, match=says):
        open_files(path, ["t2m"])


def test_the_grid_of_seven_degrees_through_prepare_and_as_states(real_data, tmp_path):
    path = str(real_data / "cases" / "grid-7-degrees" / "t1000_LL_7x7.grb")
    data = DataConfig(store=str(tmp_path / "s"), source={"kind": "files", "paths": [path]}, channels=["t1000"])
    for attempt in (lambda: prepare(data), lambda: open_file_states([path], ["t1000"])):
        with pytest.raises(
            InputError, match=r"t1000_LL_7x7\.grb: .*52 columns 0 \.\. 357 are 7 degrees apart.*it is 3;"
        ) as error:
            attempt()
        assert "repeat" not in str(error.value)


@pytest.mark.parametrize(
    "longitude",
    [LONGITUDE + 22.5, LONGITUDE - 180, LONGITUDE - 157.5, np.append(LONGITUDE, 360.0), np.linspace(-180, 180, 9)],
)
def test_global_grids_of_any_origin(tmp_path, longitude):
    dataset = on_longitudes(longitude).isel(latitude=slice(None, None, -1))
    data = open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"])
    ours = data.state["longitude"].values
    assert len(ours) == 8
    assert ours[0] >= 0
    np.testing.assert_allclose(data.state[:, 0], wave(longitude=ours), rtol=3e-7)


def test_a_global_grid_that_lacks_a_column_is_a_limited_area(tmp_path):
    data = open_files(write_netcdf(tmp_path / "x.nc", on_longitudes(np.arange(0, 350, 10.0))), ["t2m"])
    assert data.state.sizes["longitude"] == 35
    np.testing.assert_allclose(data.state[:, 0], wave(longitude=np.arange(0, 350, 10.0)), rtol=3e-7)


def test_a_repeated_latitude_is_said(tmp_path):
    twice = field(latitude=np.array([60.0, 20.0, 20.0, -60.0]))
    with pytest.raises(InputError, match=r"x\.nc: its latitude repeats 20"):
        open_files(write_netcdf(tmp_path / "x.nc", twice), ["t2m"])


@pytest.mark.parametrize(
    ("west", "east", "says"),
    [
        (170, -175, "the date line, .*: west: 170, east: 185"),
        (350, 10, "the prime meridian, .*: west: -10, east: 10"),
        (10, 10, "two different edges"),
        (-180, 360, "at most one turn"),
    ],
)
def test_the_meridian_that_a_box_crosses(west, east, says):
    with pytest.raises(
        ValidationError, match=rf"east \({east}\) is not up to 360 degrees east of west \({west}\); .*{says}"
    ):
        Area(north=60, south=0, west=west, east=east)


def test_a_box_across_the_date_line_as_the_message_says(tmp_path):
    path = write_netcdf(tmp_path / "x.nc", on_longitudes(np.arange(0, 360, 5.0)))
    source = {"kind": "files", "paths": [str(path)]}
    area = Area(north=90, south=-90, west=170, east=185)
    store = prepare(
        DataConfig(store=str(tmp_path / "s"), source=source, channels=["t2m"], area=area, climatology_window=None)
    )
    np.testing.assert_array_equal(store.grid.longitude, [170, 175, 180, 185])
    np.testing.assert_allclose(store.read(range(4), ["t2m"])[:, 0], wave(longitude=store.grid.longitude), rtol=3e-7)


def test_a_page_among_real_files_is_named_by_prepare(real_data, tmp_path):
    folder = str(real_data / "gfs_wind_global" / "gfs*2018101018*")
    data = DataConfig(store=str(tmp_path / "s"), source={"kind": "files", "paths": [folder]}, channels=["u10"])
    for attempt in (lambda: prepare(data), lambda: open_file_states([folder], ["u10"])):
        with pytest.raises(InputError, match=r"2018101018: it is an HTML page"):
            attempt()


def test_grib_behind_a_header_is_still_grib(tmp_path):
    (tmp_path / "x").write_bytes(b"\0\0\1\xac" + grib_message("2t", kind="surface"))
    assert open_files(tmp_path / "x", ["t2m"]).state.shape[1] == 1
    assert LATITUDE[0] == 60
