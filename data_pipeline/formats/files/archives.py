"""ZIP archives of NetCDF and GRIB files, as the Climate Data Store sends them, unpacked into a cache.

Members are unpacked whole and once, into a folder named by the archive's path, size and time of change. What a
stranger's archive could do is refused before anything is written: names that leave the folder, more bytes than the disk
has room for or than are declared, passwords, names that stand twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from weatherfm.data_pipeline.machine.cache_folder import check_room, unwritable
from weatherfm.errors import InputError
from weatherfm.home import expanded

_log = logging.getLogger(__name__)
_FOLDER = ".unpacked"
_ORIGIN = "origin.json"
_MOST_MEMBERS = 100_000
_MOST_RATIO = 200
"""Bytes unpacked for one packed, in all: fields pack some ten times; what packs better is made to fill disks."""
_SMALL = 2**26  # bytes that may be of any ratio, as fields of zeros
_LEFT_FREE = 2**28  # bytes of disk that unpacking leaves
_DOCUMENTS = (".txt", ".md", ".pdf", ".json", ".xml", ".html", ".csv", ".png", ".idx")
_BLOCK = 2**20


def is_zip(start: bytes) -> bool:
    """True for the first bytes of a ZIP archive, also of an empty one or of one in parts."""
    return start[:4] in (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")


def refuse_broken(path: str) -> None:
    """Refuse a ZIP archive without its end, where the list of its members stands.

    Raises:
        InputError: truncated (without the file's name).
    """
    if not zipfile.is_zipfile(path):
        raise InputError(
            "it is a ZIP archive, truncated: the list of its members at the end is missing; fetch it again"
        )


def unpacked(path: str, cache: str, exclude: Sequence[str] = ()) -> list[str]:
    """Paths of the data files in a ZIP archive, unpacked into the folder `cache` unless they are there already.

    Args:
        path: of the archive.
        cache: folder to unpack into; it may be deleted at any time.
        exclude: names or patterns of members to leave out.

    Raises:
        InputError: the archive is truncated, damaged, protected or dangerous, or there is no room (without its name).
    """
    told = os.stat(path)
    origin = {"path": os.path.abspath(path), "bytes": told.st_size, "changed": told.st_mtime_ns}
    folder = expanded(cache) / _folder_of(origin)
    try:
        with zipfile.ZipFile(path) as archive:
            members = _checked(archive, told.st_size)
            if not _is_whole(folder, members, os.path.basename(path)):
                _unpack(archive, members, folder, os.path.basename(path), origin)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(f"it is a ZIP archive, truncated or damaged ({error}); fetch it again") from error
    names = [m.filename for m in members if not any(fnmatch(os.path.basename(m.filename), e) for e in exclude)]
    return [str(folder / os.path.basename(path) / name) for name in names]


def origin_of(path: str) -> str:
    """The archive that an unpacked member came from; every other path is its own origin."""
    folder = _cached_in(path)
    if folder is None:
        return path
    try:
        origin: str = _origin(folder)["path"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{path} was unpacked from a ZIP archive, and the note of which one is gone or damaged ({error}); "
            f"delete the folder {folder} and start the same command again"
        ) from error
    return origin


def _folder_of(origin: dict[str, object]) -> str:
    """Name of the folder for an archive of this path, size and time of change."""
    return hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()[:16] + _FOLDER


def _origin(folder: Path) -> dict[str, Any]:
    """What the note in a folder says: `path`, `bytes` and `changed` of the archive, and `members`.

    Raises:
        OSError, ValueError, LookupError, TypeError: it is gone, or is not that of this folder.
    """
    note: dict[str, Any] = json.loads((folder / _ORIGIN).read_bytes())
    if _folder_of({key: note[key] for key in ("path", "bytes", "changed")}) != folder.name:
        raise ValueError("it is of another archive")
    return note


def name_of(path: str) -> str:
    """How a file is called in a record: its name, and before it that of the archive it came in."""
    folder = _cached_in(path)
    return os.path.basename(path.rstrip("/")) if folder is None else str(Path(path).relative_to(folder))


def _cached_in(path: str) -> Path | None:
    return next((parent for parent in Path(path).parents if parent.name.endswith(_FOLDER)), None)


def _checked(archive: zipfile.ZipFile, size: int) -> list[zipfile.ZipInfo]:
    """The members that are data, once nothing about any of them is dangerous."""
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if len(infos) > _MOST_MEMBERS:
        raise InputError(
            f"it is a ZIP archive of {len(infos)} members, and at most {_MOST_MEMBERS} are read; unpack it"
        )
    for info in infos:
        _refuse_dangerous(info)
    names = [info.filename for info in infos]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"it is a ZIP archive that holds {twice} twice; which one is meant is not known: pack it anew")
    if any(PurePosixPath(name).name in ("zarr.json", ".zgroup", ".zarray") for name in names):
        raise InputError(
            "it is a ZIP archive of several Zarr stores, of a single array or of one deeper than in one folder; "
            "unpack it and give the folders of the stores"
        )
    total = sum(info.file_size for info in infos)
    if total > max(_SMALL, _MOST_RATIO * size):
        raise InputError(
            f"it is a ZIP archive of {size} bytes that says it unpacks to {total}: more than {_MOST_RATIO} times as "
            "many is no weather; if it is, unpack it yourself"
        )
    data = [info for info in infos if not _is_document(info.filename)]
    if left_out := [info.filename for info in infos if _is_document(info.filename)]:
        _log.info("members of a ZIP archive that are no data by their names: %s", ", ".join(left_out[:5]))
    if not data:
        raise InputError(f"it is a ZIP archive without a data file (it holds {', '.join(names[:5]) or 'nothing'})")
    return data


def _refuse_dangerous(info: zipfile.ZipInfo) -> None:
    name = info.filename
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\\" in name or "\0" in info.orig_filename:
        raise InputError(f"it is a ZIP archive with a member {name!r}, whose path leads elsewhere; it is not unpacked")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise InputError(f"it is a ZIP archive with a link in it ({name}); it is not unpacked")
    if info.flag_bits & 1:
        raise InputError(f"it is a ZIP archive with a password ({name}); unpack it yourself")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        raise InputError(
            f"it is a ZIP archive whose member {name} is packed by method {info.compress_type}, which Python cannot "
            "read; unpack it yourself"
        )


def _is_document(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in _DOCUMENTS or path.name.startswith(".") or "__MACOSX" in path.parts


def _unpack(
    archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], folder: Path, name: str, origin: dict[str, object]
) -> None:
    """Put the members into `folder` so that it is there whole or not at all; two processes may do it at once."""
    what = "the members of this ZIP archive"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        check_room(folder.parent, sum(info.file_size for info in members) + _LEFT_FREE, what)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="unpacking-", ignore_cleanup_errors=True) as place:
            for info in members:
                _unpack_one(archive, info, Path(place) / name / info.filename)
            stamps = {info.filename: _stamp(Path(place) / name / info.filename) for info in members}
            (Path(place) / _ORIGIN).write_text(json.dumps(origin | {"members": stamps}))
            _move(Path(place), folder, members, name)
    except OSError as error:
        raise unwritable(folder.parent, what, error) from error


def _unpack_one(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(info) as source, target.open("wb") as out:
        shutil.copyfileobj(source, out, _BLOCK)  # never more than the archive declares; its checksum tells what is less


def _move(place: Path, folder: Path, members: Sequence[zipfile.ZipInfo], name: str) -> None:
    if folder.exists() and not _is_whole(folder, members, name):
        shutil.rmtree(folder)
    try:
        place.rename(folder)
    except OSError:
        if not _is_whole(folder, members, name):  # else another process was first
            raise


def _is_whole(folder: Path, members: Sequence[zipfile.ZipInfo], name: str) -> bool:
    """True when the folder holds all members in their full length, untouched since they were unpacked."""
    try:
        known = _origin(folder)["members"]
        stamps = {info.filename: _stamp(folder / name / info.filename) for info in members}
        return all(stamps[one.filename] == known[one.filename] for one in members) and all(
            stamps[one.filename][0] == one.file_size for one in members
        )
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _stamp(path: Path) -> list[int]:
    """Size and time of change of a file itself: of a link that took its place they are others."""
    found = path.lstat()
    return [found.st_size, found.st_mtime_ns]
