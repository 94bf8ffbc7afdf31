"""Which files a config means, and what each of them is, told by its first bytes and not by its name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fnmatch import fnmatch
from glob import glob, has_magic
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from weatherfm.data_pipeline.access import refuse_secret_address
from weatherfm.data_pipeline.formats.files.archives import is_zip, refuse_broken
from weatherfm.data_pipeline.formats.files.foreign import foreign, foreign_folder, is_zarr_array, unknown
from weatherfm.data_pipeline.formats.opendap.addresses import is_opendap
from weatherfm.data_pipeline.formats.zarr.icechunk_repository import is_repository
from weatherfm.data_pipeline.formats.zarr.opening import is_address
from weatherfm.data_pipeline.formats.zarr.zipped import folder_of_store
from weatherfm.errors import InputError
from weatherfm.home import expanded

Format = Literal["netcdf3", "hdf5", "grib", "zarr", "zip", "opendap"]
_FILES = (".nc", ".nc4", ".cdf", ".h5", ".hdf5", ".grib", ".grib2", ".grb", ".grb2")
_LOOKED_AT = 4096  # bytes at the start of a file


def find_files(patterns: Sequence[str], exclude: Sequence[str], setting: str = "source.paths") -> list[str]:
    """Files and Zarr folders that any pattern means, sorted, each once; `**` looks into folders.

    Addresses (gs://, s3://, https://) stand for themselves; nobody is asked whether they exist. `setting` is what they
    were given as, for messages.

    Raises:
        InputError: a pattern that means nothing, or everything left out.
    """
    found: dict[str, str] = {}  # by what the path really is
    for pattern in map(local_path, patterns):
        if is_address(pattern):
            refuse_secret_address(pattern)
            found.setdefault(pattern, pattern)
            continue
        matches = _expand(str(expanded(pattern)))
        if not matches:
            where = _deepest_folder(str(expanded(pattern)))
            raise InputError(f"no file matches {pattern!r} (looked in {where}); correct {setting}")
        for match in sorted(matches):
            found.setdefault(os.path.realpath(match), os.path.normpath(match))
    kept = sorted(path for path in found.values() if not _excluded(path, exclude))
    if not kept:
        raise InputError(f"source.exclude {list(exclude)} leaves none of the {len(found)} files; correct it")
    return kept


def identity(path: str) -> str:
    """What a path really is, through links; an address is itself."""
    return path if is_address(path) else os.path.realpath(path)


def local_path(pattern: str) -> str:
    """An address without its last slashes; the path that a file:// address means."""
    if not is_address(pattern):
        return pattern
    return unquote(urlsplit(pattern).path) if pattern.startswith("file://") else pattern.rstrip("/")


def _expand(pattern: str) -> list[str]:
    """Paths a pattern means; patterns pass over index files that GRIB readers leave beside the data."""
    if is_repository(pattern):
        return [pattern]  # or a group in one, which is no folder
    if os.path.exists(pattern) or not has_magic(pattern):
        return [pattern] * os.path.exists(pattern)
    matches = [match for match in glob(pattern, recursive=True) if not match.endswith(".idx")]
    if "**" not in pattern:
        return matches
    return [match for match in matches if not _inside_zarr(match) and not _plain_folder(match)]


def recognise(path: str) -> Format:
    """The format of a file or folder; what stands at an address is a Zarr store, or is served by OPeNDAP.

    Raises:
        InputError: it is something else; says what it looks like (without the file's name).
    """
    if is_address(path):
        return _format_at(path)
    if is_repository(path):
        return "zarr"
    if os.path.isdir(path):
        if _is_zarr_group(path) and not is_zarr_array(path):
            return "zarr"
        raise InputError(foreign_folder(path))
    if not os.path.isfile(path):
        raise InputError("it is a pipe or a device, not a file; write it to a file first")
    with open(path, "rb") as file:
        start = file.read(_LOOKED_AT)
    if not start:
        raise InputError("it is empty; fetch it again")
    return _format(start, path)


def _format_at(address: str) -> Format:
    """By the name alone: nobody is asked."""
    if address.lower().endswith(".zip"):
        raise InputError("it is a ZIP archive at an address; fetch it and name the file, which need not be unpacked")
    if is_opendap(address):
        return "opendap"
    if address.lower().endswith(_FILES):
        raise InputError(
            "it is a file at an address, which is not read from there: fetch it and name the file; where its server "
            "speaks OPeNDAP, write dap2:// in place of https://"
        )
    return "zarr"


def _format(start: bytes, path: str) -> Format:
    """By the bytes at the very start of a file, or behind a header of a known kind."""
    if start[:3] == b"CDF" and len(start) > 3 and start[3] in (1, 2, 5):
        return "netcdf3"
    if any(start[at:].startswith(b"\x89HDF\r\n\x1a\n") for at in (0, 512, 1024, 2048)):  # behind a user block
        return "hdf5"
    if is_zip(start):
        refuse_broken(path)
        return "zip" if folder_of_store(path) is None else "zarr"
    if (looks_like := foreign(start, os.path.basename(path))) is not None:
        raise InputError(looks_like)
    at = start[:512].find(b"GRIB")
    if at == 0 or (at > 0 and start[at + 7 : at + 8] in (b"\1", b"\2")):  # behind a telecommunication header
        return "grib"
    raise InputError(unknown(start))


def _is_zarr_group(path: str) -> bool:
    return is_repository(path) or any(
        os.path.exists(os.path.join(path, name)) for name in (".zgroup", ".zmetadata", "zarr.json")
    )


def _inside_zarr(path: str) -> bool:
    return any(_is_zarr_group(str(parent)) for parent in Path(path).parents)


def _plain_folder(path: str) -> bool:
    return os.path.isdir(path) and not _is_zarr_group(path)


def _excluded(path: str, exclude: Sequence[str]) -> bool:
    return any(fnmatch(os.path.basename(path), p) or fnmatch(path, os.path.expanduser(p)) for p in exclude)


def _deepest_folder(pattern: str) -> str:
    """The part of a path that does exist: where the search ended."""
    folder = Path(pattern).absolute()
    while has_magic(str(folder)) or not folder.is_dir():
        folder = folder.parent
    return str(folder)
