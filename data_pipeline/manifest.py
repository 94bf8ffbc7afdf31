"""The manifest of a store: what is in it, where that came from, and the checksum of every file (standard library only).

Its presence says that the store is finished: it is written last, in one step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weatherfm.errors import InputError

FORMAT = "weatherfm-store"
FORMAT_VERSION = 2
NAME = "manifest.json"
SHARDS = "shards.json"
"""What was written by which task, from which times, with which statistics: append and repair go on from it."""
PROGRESS = ".progress"
"""Folder inside an unfinished store that holds the journal of what is done."""
TIME_UNITS = "hours since 1970-01-01 00:00:00"
"""CF units of the time coordinate; store.py reads it without a CF library."""


def canonical_json(data: Any) -> str:
    """Text that is equal for equal data, for comparing and hashing."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def checksum(content: bytes) -> str:
    """sha256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def file_checksum(path: Path) -> str:
    """sha256 of a file in hexadecimal, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with a checksum over itself, so that a damaged manifest is noticed too."""
    body = {key: value for key, value in manifest.items() if key != "checksum"}
    return {**body, "checksum": checksum(canonical_json(body).encode())}


def is_sealed(manifest: Mapping[str, Any]) -> bool:
    """True when the manifest still agrees with its own checksum."""
    return manifest.get("checksum") == seal(manifest)["checksum"]


def to_bytes(manifest: Mapping[str, Any]) -> bytes:
    """The file's content: readable, and the same for the same manifest."""
    return (json.dumps(manifest, indent=1, allow_nan=False) + "\n").encode()


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a finished store.

    Raises:
        InputError: nothing there, a store that `weatherfm prepare` has not finished, or not a store of ours.
    """
    file = path / NAME
    if not path.exists():
        if path.with_name(f".{path.name}.last").exists():
            raise InputError(f"a change of the store {path} was interrupted at its last step; start it again to end it")
        raise InputError(f"no store at {path}; make it with `weatherfm prepare CONFIG` or correct the path")
    if not file.is_file():
        if (path / PROGRESS).is_dir():
            raise InputError(f"the store {path} is not finished; start the same `weatherfm prepare` again to go on")
        raise InputError(f"{path} is not a weatherfm store (it has no {NAME}); give the folder that prepare wrote")
    try:
        manifest = json.loads(file.read_bytes())
    except ValueError as error:
        raise InputError(f"{file} is damaged ({error}); prepare the store anew or restore the file") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{file} does not describe a weatherfm store; give the folder that prepare wrote")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"the store {path} has format version {manifest.get('format_version')}, this program reads "
            f"{FORMAT_VERSION}; prepare it anew with this version or use the one that wrote it"
        )
    return manifest
