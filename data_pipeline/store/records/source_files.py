"""Which files a store was made from, so that what is written later comes from the same ones.

A source tells a text for each file (size and time of change, or a checksum of a Zarr store's metadata). The record
stands beside the manifest, not in it: a store made from copies of the files is the same store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weatherfm.data_pipeline.store.records.manifest import SOURCES, canonical_json, is_sealed, seal
from weatherfm.data_pipeline.store.records.record_checks import Damaged, parse_json, path_inside
from weatherfm.errors import some_of

_SHOWN = 5


@dataclass(frozen=True)
class SourceChanges:
    """How the files of a source differ from those of before; names in order."""

    changed: tuple[str, ...]
    """With what they were and are."""
    gone: tuple[str, ...]
    new: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.changed or self.gone or self.new)

    def __str__(self) -> str:
        told = {"changed": self.changed, "gone": self.gone, "new": self.new}
        return "; ".join(f"{len(names)} {what}: {some_of(names, _SHOWN)}" for what, names in told.items() if names)


def changes_between(before: Mapping[str, str], now: Mapping[str, str]) -> SourceChanges:
    """What became of the files `before` (name -> identity)."""
    changed = [f"{n} (was {before[n]}, is {now[n]})" for n in sorted(before) if n in now and before[n] != now[n]]
    return SourceChanges(tuple(changed), tuple(sorted(before.keys() - now)), tuple(sorted(now.keys() - before)))


def record_of_sources(identity: Mapping[str, str], manifest_checksum: str) -> bytes:
    """The content of `sources.json` of the store that has this manifest."""
    record = seal({"store": manifest_checksum, "files": dict(sorted(identity.items()))})
    return (canonical_json(record) + "\n").encode()


def read_sources(path: Path, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Name -> identity of the files that the store at `path` was made from.

    Raises:
        Damaged: there is no such record, it was changed, or it is of another store.
    """
    file = path_inside(path, SOURCES)
    if file.exists() and not file.is_file():
        raise Damaged(f"{SOURCES} is no file")
    try:
        record = parse_json(file.read_bytes(), strict_numbers=True)
    except OSError as error:
        raise Damaged(f"{SOURCES} cannot be read ({error.strerror})") from None
    if not isinstance(record, dict) or not is_sealed(record):
        raise Damaged(f"{SOURCES} was changed since prepare wrote it")
    if record.get("store") != manifest["checksum"]:
        raise Damaged(f"{SOURCES} is of another store")
    return check_sources(record.get("files"))


def check_sources(files: object) -> dict[str, str]:
    """`files`, when it maps names to identities.

    Raises:
        Damaged: it does not.
    """
    if not isinstance(files, dict) or not all(isinstance(text, str) for text in files.values()):
        raise Damaged("the record of source files is none")
    return files
