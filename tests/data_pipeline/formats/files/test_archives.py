"""ZIP archives of data files are read like the files in them; dangerous, protected and broken ones are refused."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from pathlib import Path

import netCDF4
import numpy as np
import pytest
from synthetic_files import field, grib_message, open_files, wave, write_netcdf

from weatherfm.data_pipeline.formats.files import archives as archive
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.sources.file_states import open_file_states
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError

STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


def packed(path: Path, members: dict[str, bytes | Path], method=DEFLATED) -> Path:
    """A ZIP archive of these members."""
    with zipfile.ZipFile(path, "w", method) as made:
        for name, content in members.items():
            made.writestr(name, content.read_bytes() if isinstance(content, Path) else content)
    return path


@pytest.fixture
def two(tmp_path) -> dict[str, Path]:
    """A NetCDF file of t2m and one of d2m."""
    names = {
        "data_stream-oper_stepType-instant.nc": field(),
        "data_stream-oper_stepType-accum.nc": field("d2m", base=270.0),
    }
    return {name: write_netcdf(tmp_path / name, dataset) for name, dataset in names.items()}


def opened(path, channels, tmp_path, **source):
    return open_files(path, channels, cache=str(tmp_path / "cache"), **source)


@pytest.mark.parametrize("method", [STORED, DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_are_read_whatever_the_archive_is_called(tmp_path, two, method):
    data = opened(packed(tmp_path / "era5.nc", two, method), ["d2m", "t2m"], tmp_path)
    np.testing.assert_allclose(data.state[:, 0], wave(base=270.0), rtol=2e-7)
    np.testing.assert_allclose(data.state[:, 1], wave(), rtol=2e-7)
    assert data.attributes["first_file"] == "era5.nc/data_stream-oper_stepType-accum.nc"
    assert list(data.identity) == ["era5.nc"]


def test_members_of_several_formats_beside_a_plain_file(tmp_path, two):
    grib = grib_message("msl", kind="meanSea", values=wave()[0] + 1e5)
    later = grib_message("msl", kind="meanSea", time=1200, values=wave()[1] + 1e5)
    path = packed(tmp_path / "a.zip", {"sub/x.grib": grib + later, "README.txt": b"words", "._x": b"\0\5\x16\7"})
    plain = write_netcdf(tmp_path / "plain.nc", field().isel(time=slice(2)))
    data = opened([path, plain], ["msl", "t2m"], tmp_path)
    np.testing.assert_allclose(data.state[:, 0], wave()[:2] + 1e5, rtol=1e-6)
    assert set(data.identity) == {"a.zip", "plain.nc"}


def test_an_archive_is_unpacked_once_and_anew_when_it_changes(tmp_path, two):
    path = packed(tmp_path / "a.zip", two)
    opened(path, ["t2m"], tmp_path)
    (folder,) = (tmp_path / "cache").iterdir()
    member = folder / "a.zip" / "data_stream-oper_stepType-instant.nc"
    before = member.stat().st_mtime_ns
    opened(path, ["t2m"], tmp_path)
    assert member.stat().st_mtime_ns == before
    member.write_bytes(b"")  # a cache may lose parts
    opened(path, ["t2m"], tmp_path)
    assert member.stat().st_size > 0
    packed(path, {"x.nc": write_netcdf(tmp_path / "x.nc", field(base=250.0))})
    np.testing.assert_allclose(opened(path, ["t2m"], tmp_path).state[:, 0], wave(base=250.0), rtol=2e-7)
    assert not [one for one in (tmp_path / "cache").iterdir() if one.name.startswith("unpacking")]


def test_members_can_be_left_out(tmp_path, two):
    path = packed(tmp_path / "a.zip", {**two, "bad.nc": b"<!DOCTYPE html>"})
    with pytest.raises(InputError, match=r"a\.zip: .*member bad\.nc is no use: it is an HTML page"):
        opened(path, ["t2m"], tmp_path)
    opened(path, ["t2m"], tmp_path, exclude=["bad.nc"])


@pytest.mark.parametrize(
    "name",
    ["../victim.nc", "a/../../victim.nc", "/elsewhere/victim.nc", "..\\victim.nc", "C:/victim.nc", "\\victim.nc"],
)
def test_a_member_that_leaves_the_folder(tmp_path, two, name):
    path = packed(tmp_path / "a.zip", {name: next(iter(two.values()))})
    with pytest.raises(InputError, match=r"a\.zip: .*whose path leads elsewhere"):
        opened(path, ["t2m"], tmp_path)
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "victim.nc").exists()


def test_a_link(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as made:
        link = zipfile.ZipInfo("x.nc")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        made.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="a link in it"):
        opened(path, ["t2m"], tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_twice(tmp_path, two):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as made:
        for _ in range(2):
            made.writestr("x.nc", next(iter(two.values())).read_bytes())
    with pytest.raises(InputError, match=r"holds x\.nc twice"):
        opened(path, ["t2m"], tmp_path)


def test_a_password(tmp_path, two):
    path = packed(tmp_path / "a.zip", two)
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.find(signature)
        content[at + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="with a password"):
        opened(path, ["t2m"], tmp_path)


def test_an_unknown_method(tmp_path, two):
    path = packed(tmp_path / "a.zip", two, STORED)
    content = bytearray(path.read_bytes())
    at = content.find(b"PK\1\2")
    content[at + 10 : at + 12] = struct.pack("<H", 9)  # Deflate64, as Windows packs large files
    path.write_bytes(content)
    with pytest.raises(InputError, match="packed by method 9"):
        opened(path, ["t2m"], tmp_path)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.95])
def test_a_truncated_archive(tmp_path, two, keep):
    path = packed(tmp_path / "a.nc", two)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(InputError, match=r"a\.nc: it is a ZIP archive, truncated"):
        opened(path, ["t2m"], tmp_path)


def test_a_damaged_member(tmp_path, two):
    path = packed(tmp_path / "a.zip", two, STORED)
    content = bytearray(path.read_bytes())
    content[2000] ^= 255
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.zip: it is a ZIP archive, truncated or damaged \(Bad CRC"):
        opened(path, ["t2m"], tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []


def test_more_than_it_declares(tmp_path, two):
    path = packed(tmp_path / "a.zip", {"x.nc": b"\0" * 100_000}, DEFLATED)
    content = bytearray(path.read_bytes())
    for signature, size in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        at = content.find(signature)
        content[at + size : at + size + 4] = struct.pack("<I", 100)
    path.write_bytes(content)
    with pytest.raises(InputError, match="truncated or damaged"):
        opened(path, ["t2m"], tmp_path)
    assert sum(one.stat().st_size for one in (tmp_path / "cache").rglob("*")) < 10_000


def test_a_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_SMALL", 1000)
    path = packed(tmp_path / "a.zip", {"x.nc": b"\0" * 10_000_000})
    with pytest.raises(InputError, match="says it unpacks to 10000000"):
        opened(path, ["t2m"], tmp_path)
    assert not (tmp_path / "cache").exists()


def test_no_room(tmp_path, two, monkeypatch):
    monkeypatch.setattr(archive, "_LEFT_FREE", 2**60)
    with pytest.raises(InputError, match=r"a\.zip: .*the members .* are free in .*choose another source\.cache"):
        opened(packed(tmp_path / "a.zip", two), ["t2m"], tmp_path)


def test_a_cache_that_cannot_be_written(tmp_path, two):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match=r"the members .* cannot be kept in .*choose source\.cache"):
        opened(packed(tmp_path / "a.zip", two), ["t2m"], tmp_path)


def test_what_is_no_archive_of_files(tmp_path, two):
    inner = packed(tmp_path / "inner.zip", two)
    for members, says in (
        ({"inner.zip": inner}, "a ZIP archive in a ZIP archive"),
        ({"a/zarr.json": b"{}", "b/zarr.json": b"{}"}, "a ZIP archive of several Zarr stores"),
        ({"notes.txt": b"x"}, r"without a data file \(it holds notes\.txt\)"),
        ({}, r"without a data file \(it holds nothing\)"),
    ):
        with pytest.raises(InputError, match=says):
            opened(packed(tmp_path / "outer.zip", members), ["t2m"], tmp_path)


def test_zip64(tmp_path, two):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as made:
        for name, content in two.items():
            with made.open(name, "w", force_zip64=True) as out:
                out.write(content.read_bytes())
    np.testing.assert_allclose(opened(path, ["t2m"], tmp_path).state[:, 0], wave(), rtol=2e-7)


def test_a_download_of_the_climate_data_store(real_data, tmp_path):
    path = real_data / "cases" / "cds-zip-named-nc" / "era5_jan_2026.nc"
    cache = str(tmp_path / "cache")
    source = {"kind": "files", "paths": [str(path)], "cache": cache}
    store = prepare(DataConfig(store=str(tmp_path / "s"), source=source, channels=["t2m"], climatology_window=None))
    with (
        zipfile.ZipFile(path) as made,
        netCDF4.Dataset("x", memory=made.read("data_stream-oper_stepType-instant.nc")) as read,
    ):
        expected = read["t2m"][:]
    np.testing.assert_array_equal(store.read(range(124), ["t2m"])[:, 0], expected)
    row = list(store.grid.latitude).index(-6.5), list(store.grid.longitude).index(109.5)
    assert store.times[0] == np.datetime64("2026-01-01T00")
    assert store.read([0], ["t2m"])[0, 0][row] == pytest.approx(300.265, abs=5e-4)
    assert (
        store.manifest["source"]["attributes"]["first_file"] == "era5_jan_2026.nc/data_stream-oper_stepType-instant.nc"
    )
    states = open_file_states([str(path)], ["t2m"], rules={"cache": cache})
    np.testing.assert_array_equal(states.read(states.times[:2], ["t2m"])[:, 0, 0], expected[:2])
    assert os.listdir(cache)


def _other_values(file: Path, two: dict[str, Path]) -> None:
    content = bytearray(file.read_bytes())
    content[-400:-200] = content[-200:]
    file.write_bytes(content)


def _linked(file: Path, two: dict[str, Path]) -> None:
    elsewhere = file.parents[3] / "elsewhere.nc"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)


@pytest.mark.parametrize("harm", [_other_values, _linked])
def test_a_member_that_was_touched_in_the_cache_is_unpacked_anew(tmp_path, two, harm):
    """Of the same length; its other values were read as the archive's."""
    path = packed(tmp_path / "a.zip", two)
    opened(path, ["d2m", "t2m"], tmp_path)
    (member,) = tmp_path.glob("cache/*/a.zip/*instant.nc")
    harm(member, two)
    data = opened(path, ["d2m", "t2m"], tmp_path)
    np.testing.assert_allclose(data.state[:, 1], wave(), rtol=2e-7)
    assert not member.is_symlink()


@pytest.mark.parametrize("note", ["{}", "[]", "5", '{"path": "/x", "bytes": 1, "changed": 2, "members": {}}'])
def test_a_note_of_the_cache_is_not_believed_unchecked(tmp_path, two, note):
    path = packed(tmp_path / "a.zip", two)
    opened(path, ["t2m"], tmp_path)
    (origin,) = tmp_path.glob("cache/*/origin.json")
    origin.write_text(note)
    (member,) = tmp_path.glob("cache/*/a.zip/*instant.nc")
    with pytest.raises(InputError, match=r"the note of which one is gone or damaged .*delete the folder"):
        archive.origin_of(str(member))
    assert list(opened(path, ["t2m"], tmp_path).identity) == ["a.zip"]
