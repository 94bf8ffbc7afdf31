"""The records of a finished store's files, read only where their checksums are those that the manifest holds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from weatherfm.data_pipeline.store.records.manifest import (
    FILES,
    NAME,
    PROGRESS,
    RECORDS,
    SHARDS,
    SOURCES,
    file_checksum,
)
from weatherfm.data_pipeline.store.records.manifest_reading import read_manifest
from weatherfm.data_pipeline.store.records.record_checks import (
    Damaged,
    check_files,
    check_records,
    parse_json,
    path_inside,
)
from weatherfm.data_pipeline.store.records.replaced_while_read import continues
from weatherfm.errors import InputError

_BIG = ("state/c/", "climatology/c/")


def read_files(path: Path, manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Key -> {`sha256`, `bytes`} of every file of a store but the manifest and the records.

    Raises:
        InputError: the record is missing, damaged, or names files outside the store.
    """
    return _read(path, manifest, FILES, check_files)


def read_shards(path: Path, manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Name of a task -> what it wrote and found out: `files`, `payload`, `inputs`.

    Raises:
        InputError: the record is missing, damaged, or names files outside the store.
    """
    return _read(path, manifest, SHARDS, check_records)


def foreign_files(path: Path, files: Mapping[str, Any]) -> list[str]:
    """Keys of all files and links below the store's folder that are none of its own, sorted.

    Args:
        path: of the store.
        files: its own, as `read_files` gives them.
    """
    own = files.keys() | {NAME, SOURCES, *RECORDS}
    return sorted(key for key in _keys_below(path) if key not in own and key.split("/")[0] != PROGRESS)


def _keys_below(root: Path) -> Iterator[str]:
    """Of all files and links below a folder; links are not followed."""
    for folder, folders, names in os.walk(root):
        linked = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        yield from (os.path.relpath(os.path.join(folder, name), root) for name in [*names, *linked])


def is_small(key: str) -> bool:
    """True of metadata, coordinates, statistics and static fields: all but the shards."""
    return not key.startswith(_BIG)


def fault_of(file: Path, expected: Mapping[str, Any]) -> str | None:
    """What is wrong with a file that is to be believed: missing, of another size or with a wrong checksum."""
    try:
        if file.stat().st_size != expected["bytes"]:
            return f"has {file.stat().st_size} bytes instead of {expected['bytes']}"
        return None if file_checksum(file) == expected["sha256"] else "has a wrong checksum"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def require_small_files(path: Path, manifest: Mapping[str, Any]) -> None:
    """Nothing, when metadata, coordinates, statistics and static fields are as written, and no file is a link.

    Shards are not read.

    Args:
        path: of the store.
        manifest: its.

    Raises:
        InputError: names the files that are not.
    """
    plain: set[str] = set()
    files = {key: (path_inside(path, key, plain), entry) for key, entry in read_files(path, manifest).items()}
    faults = {key: fault_of(*file) for key, file in files.items() if is_small(key)}
    if bad := [f"{key} {fault}" for key, fault in faults.items() if fault]:
        raise InputError(f"the store {path} is damaged: {'; '.join(bad[:5])}; `weatherfm verify {path} --repair` first")


def _read(path: Path, manifest: Mapping[str, Any], name: str, check: Any) -> dict[str, dict[str, Any]]:
    file, expected = path_inside(path, name), manifest["records"][name]
    if fault := fault_of(file, expected):
        refuse_mixture(path, manifest)
        raise InputError(f"{file} {fault}: `weatherfm verify {path} --repair` mends the store")
    try:
        found: dict[str, dict[str, Any]] = check(parse_json(file.read_bytes()))
    except Damaged as error:  # whoever wrote it also sealed it
        raise InputError(f"{file} cannot be believed: {error}; the store {path} is not read any further") from None
    return found


def refuse_mixture(path: Path, manifest: Mapping[str, Any], longer: bool = False) -> None:
    """Nothing while `manifest` is that of the store at `path`: who opened it before has the one of what was there.

    Args:
        path: of the store.
        manifest: as it was when the store was opened.
        longer: one that holds the same fields at the same positions will do.

    Raises:
        InputError: an `append` put another store in its place.
    """
    now = read_manifest(path)
    if now["checksum"] != manifest["checksum"] and not (longer and continues(now, manifest)):
        raise InputError(f"the store {path} was replaced by its successor (append) since it was opened; start again")
