"""What a source file is: how one notices that it was replaced or changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import zarr

from weatherfm.data_pipeline.access import PUBLIC, Access
from weatherfm.data_pipeline.formats.files.archives import origin_of
from weatherfm.data_pipeline.formats.opendap.addresses import is_opendap
from weatherfm.data_pipeline.formats.opendap.opening import checksum_of_descriptions
from weatherfm.data_pipeline.formats.zarr.icechunk_repository import is_repository, pinned
from weatherfm.data_pipeline.formats.zarr.opening import ChunkError, is_address, open_store
from weatherfm.errors import InputError

Stamp = tuple[int, int]
"""Size in bytes and time of the last change in ns, of a file or of the metadata of a Zarr folder."""

_METADATA = (".zmetadata", "zarr.json", ".zgroup")
_TIME = {"time", "valid_time"}
_MOVING = {"valid_time_start", "valid_time_stop", "valid_time_stop_era5t", "last_updated"}
"""Attributes in which ARCO-ERA5 says each day how far it has come: what was there before stays the same."""


def stamp_of(path: str) -> Stamp | None:
    """Size and time of change of a file, or of the metadata of a Zarr folder.

    None for an address, and for an Icechunk repository: the snapshot that is read does not change.
    """
    if is_address(path) or is_repository(path):
        return None
    names = [os.path.join(path, name) for name in _METADATA] if os.path.isdir(path) else [path]
    for name in names:
        try:
            found = os.stat(name)
        except FileNotFoundError:
            continue
        return found.st_size, found.st_mtime_ns
    return 0, 0  # gone


def refuse_changed(path: str, stamp: Stamp | None) -> None:
    """Nothing while a file is the one that was indexed.

    Args:
        path: of the file or Zarr folder.
        stamp: what `stamp_of` gave when it was indexed; None is not compared.

    Raises:
        InputError: it changed or is gone.
    """
    if stamp is None or (now := stamp_of(path)) == stamp:
        return
    how = (
        "is gone"
        if now == (0, 0)
        else f"has {now[0]} bytes, where {stamp[0]} were read"
        if now and now[0] != stamp[0]
        else ""
    )
    raise InputError(
        f"{path} changed since its headers were read{f' (it {how})' if how else ''}; what stands where "
        "in it is no longer known: start the same command again when nothing writes to it"
    )


def identity_of(path: str, access: Access = PUBLIC, grows: bool = False) -> str:
    """What tells a source from another of the same name, as a short text.

    Of a file, its size and time of change; of a member of a ZIP, those of the ZIP. Of a Zarr store, the checksum of its
    metadata: its chunks are too many to look at, so that a chunk that was replaced is not noticed. Of an Icechunk
    repository, the id of the snapshot. Of what is read by OPeNDAP, the checksum of all that its server says of it. With
    `grows`, the metadata without what moves when a store gets later times.

    Raises:
        InputError: it is gone, or a store's metadata cannot be read.
        OutsideError: the network failed.
    """
    path = origin_of(path)
    if is_repository(path):
        return f"snapshot {pinned(path, access).snapshot}"
    if is_opendap(path):
        return f"metadata {checksum_of_descriptions(path, access)}"
    if is_address(path) or os.path.isdir(path):
        return f"metadata {_checksum_of_metadata(path, access, grows)}"
    stamp = stamp_of(path)
    if stamp == (0, 0) or stamp is None:
        raise InputError(f"{path} is gone; put it back, or leave it out of source.paths")
    return f"{stamp[0]} bytes, changed {stamp[1]}"


def identities_of(opened: Mapping[str, Access], grows: bool = False) -> dict[str, str]:
    """Name -> `identity_of` of each source; a name is short, but tells it from the others: folders may move.

    Args:
        opened: path of each -> how it was opened.
        grows: as of `identity_of`.
    """
    how = {origin_of(path): access for path, access in opened.items()}
    sources = sorted(how)
    return dict(zip(short_names(sources), (identity_of(path, how[path], grows) for path in sources), strict=True))


def short_names(paths: Sequence[str]) -> list[str]:
    """The last part of each path, and as many parts before it as tell it from the others."""
    parts = [path.rstrip("/").split("/") for path in paths]
    length = [1] * len(paths)
    while True:
        names = ["/".join(own[-n:]) for own, n in zip(parts, length, strict=True)]
        seen: dict[str, int] = {}
        for name in names:
            seen[name] = seen.get(name, 0) + 1
        longer = [
            n + 1 if seen[name] > 1 and n < len(own) else n for name, own, n in zip(names, parts, length, strict=True)
        ]
        if longer == length:
            return names
        length = longer


def _checksum_of_metadata(path: str, access: Access, grows: bool) -> str:
    try:
        group = zarr.open_group(open_store(path, access), mode="r")
        said = {} if grows else dict(group.attrs)
        attributes = {key: value for key, value in said.items() if key not in _MOVING}
        arrays = {name: _told(array, grows) for name, array in sorted(group.arrays())}
    except (ChunkError, FileNotFoundError) as error:
        raise InputError(f"{path}: its metadata cannot be read ({error}); correct the address") from error
    text = json.dumps({"attributes": attributes, "arrays": arrays}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _told(array: zarr.Array[Any], grows: bool) -> dict[str, Any]:
    """The metadata of an array; where it grows, without its length in time, and without chunks of the times alone."""
    told: dict[str, Any] = array.metadata.to_dict()
    dims: Any = told.get("dimension_names") or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    if grows and set(dims) & _TIME:
        told["shape"] = [None if dim in _TIME else n for dim, n in zip(dims, array.shape, strict=True)]
        for key in ("chunks", "chunk_grid") if len(dims) == 1 else ():
            told.pop(key, None)
    return told
