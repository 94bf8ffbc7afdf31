"""Files are told by their first bytes; whatever is no data is refused by name, all of it at once."""

from __future__ import annotations

import pytest
from synthetic_files import field, grib_message, open_files, write_netcdf

from weatherfm.data_pipeline.formats.files.declared_length import check_netcdf3_length
from weatherfm.data_pipeline.formats.files.paths import find_files, recognise
from weatherfm.errors import InputError


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>Data file is not present", "an HTML page.*<!DOCTYPE html>"),
        (b"\n<html><body>the GRIB filter is down", "an HTML page"),
        (b"<?xml version='1.0'?><Error/>", "an XML text"),
        (b"PK\x03\x04rest", "a ZIP archive"),
        (b"\x1f\x8brest", "a gzip archive"),
        (b'{"error": "quota"}', "a JSON text"),
        (b"MIT License\nCopyright", "a text .starts with 'MIT License'"),
        (b"\0" * 2000, "starts with zeros"),
        (b"\x80\x04\x95\x8c\x05\x00", "not NetCDF, GRIB or Zarr"),
        (b"CDF\x09rest\x00", "not NetCDF, GRIB or Zarr"),
    ],
)
def test_foreign_files_say_what_they_look_like(tmp_path, content, says):
    path = tmp_path / "file.nc"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        recognise(str(path))


def test_recognises_by_content_not_name(tmp_path):
    assert recognise(str(write_netcdf(tmp_path / "a.grib", field()))) == "hdf5"
    assert recognise(str(write_netcdf(tmp_path / "a.txt", field(), format="NETCDF3_CLASSIC"))) == "netcdf3"
    (tmp_path / "b.nc").write_bytes(b"TTAA00 header\r\r\n" + grib_message())
    assert recognise(str(tmp_path / "b.nc")) == "grib"
    field().to_zarr(tmp_path / "c", zarr_format=2)
    assert recognise(str(tmp_path / "c")) == "zarr"


def test_a_plain_folder_is_no_store(tmp_path):
    with pytest.raises(InputError, match=r"no Zarr group; name the files inside it"):
        recognise(str(tmp_path))


def test_patterns_find_sort_and_exclude(tmp_path):
    for name in ("b.nc", "a.nc", "c.txt", "a.grib.5b7b6.idx", "deep/d.nc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    field().to_zarr(tmp_path / "deep" / "e.zarr", zarr_format=3, consolidated=False)

    def names(patterns, exclude=()):
        return [
            path.removeprefix(f"{tmp_path}/") for path in find_files([f"{tmp_path}/{p}" for p in patterns], exclude)
        ]

    assert names(["*.nc", "a.*"]) == ["a.nc", "b.nc"]
    assert names(["**"]) == ["a.nc", "b.nc", "c.txt", "deep/d.nc", "deep/e.zarr"]
    assert names(["*.nc"], ["b*"]) == ["a.nc"]
    assert names(["a.grib.5b7b6.idx"]) == ["a.grib.5b7b6.idx"]  # named outright: refused later, not passed over
    with pytest.raises(InputError, match=r"no file matches .*nowhere.*looked in"):
        names(["nowhere/*.nc"])
    with pytest.raises(InputError, match=r"exclude .* leaves none of the 2 files"):
        names(["*.nc"], ["*"])


def test_all_bad_files_are_named_and_the_rest_counted(tmp_path):
    write_netcdf(tmp_path / "good.nc", field())
    for i in range(12):
        (tmp_path / f"bad{i:02d}.nc").write_text("<!DOCTYPE html>")
    with pytest.raises(InputError) as error:
        open_files(tmp_path / "*.nc", ["t2m"])
    message = str(error.value)
    assert "12 of 13 files" in message
    assert "bad00.nc: it is an HTML page" in message
    assert "bad09.nc" in message
    assert "bad10.nc" not in message
    assert "and 2 more" in message
    assert open_files(tmp_path / "*.nc", ["t2m"], exclude=["bad*"]).state.shape[0] == 4


@pytest.mark.parametrize("format", ["NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF4"])
@pytest.mark.parametrize("keep", [0.99, 0.5, 0.05])
def test_truncated_netcdf(tmp_path, format, keep):
    path = write_netcdf(tmp_path / "x.nc", field(), format=format, unlimited_dims=["time"])
    whole = path.read_bytes()
    assert open_files(path, ["t2m"]).state.shape == (4, 1, 4, 8)
    cut = tmp_path / "cut.nc"
    cut.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(InputError, match=r"cut\.nc: its? .*truncated"):
        open_files(cut, ["t2m"])


@pytest.mark.parametrize("unlimited", [[], ["time"]])
@pytest.mark.parametrize("names", [["t2m"], ["t2m", "d2m"]])
@pytest.mark.parametrize("format", ["NETCDF3_CLASSIC", "NETCDF3_64BIT"])
def test_declared_length_is_exact(tmp_path, unlimited, names, format):
    dataset = field(names[0]).astype("int16")  # records of odd sizes are padded, but not when alone
    for name in names[1:]:
        dataset[name] = dataset[names[0]]
    dataset = dataset.isel(latitude=slice(3), longitude=slice(3))
    path = write_netcdf(tmp_path / "x.nc", dataset, format=format, unlimited_dims=unlimited)
    check_netcdf3_length(str(path))
    path.write_bytes(path.read_bytes()[:-4])  # a last record alone in its file ends without padding
    with pytest.raises(InputError, match="truncated"):
        check_netcdf3_length(str(path))


@pytest.mark.parametrize("keep", [0.99, 0.3])
def test_truncated_grib(tmp_path, keep):
    whole = grib_message("2t", kind="surface") + grib_message("2t", kind="surface", time=1200)
    path = tmp_path / "x.grib"
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(InputError, match=r"x\.grib: it is truncated or damaged after"):
        open_files(path, ["t2m"])


def test_grib_with_an_error_page_behind_it(tmp_path):
    path = tmp_path / "x.grib"
    path.write_bytes(grib_message("2t", kind="surface") + b"\0\0")  # padding is harmless
    assert open_files(path, ["t2m"]).state.shape == (1, 1, 4, 8)
    path.write_bytes(grib_message("2t", kind="surface") + b"<!DOCTYPE html>" * 20)
    with pytest.raises(InputError, match="bytes that are no GRIB message"):
        open_files(path, ["t2m"])
