"""The manifest of a store: what is in it, where that came from, and the checksums of the records of its files.

Its presence says that the store is finished: it is written last, in one step. It is small whatever the length of the
store; what is said of each file stands in `files.json`, whose checksum the manifest holds. (Standard library only.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = "weatherfm-store"
FORMAT_VERSION = 3
CHUNK_CHECKSUMS = "crc32c"
"""Of every chunk of the big arrays, so that reading it tells whether it is as it was written. (`chunk_checksums`)"""
NAME = "manifest.json"
FILES = "files.json"
"""sha256 and bytes of every file but the manifest and the records; not read to train."""
SHARDS = "shards.json"
"""What was written by which task, from which times, with which statistics: append and repair go on from it."""
SOURCES = "sources.json"
"""Which files of the source the store was made from; see `source_files`."""
RECORDS = (FILES, SHARDS)
"""Records whose checksums the manifest holds."""
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


def entry_of(content: bytes) -> dict[str, Any]:
    """What is noted of a file with this content."""
    return {"sha256": checksum(content), "bytes": len(content)}


def to_bytes(manifest: Mapping[str, Any]) -> bytes:
    """The file's content: readable, and the same for the same manifest."""
    return (json.dumps(manifest, indent=1, allow_nan=False) + "\n").encode()
