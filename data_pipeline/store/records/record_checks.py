"""Reading what a store says of itself without believing it: keys stay inside, numbers are numbers, sums agree.

Used for every file that something is built on: the manifest, the lists of files and shards, the journal.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from weatherfm.data_pipeline.store.records.manifest import canonical_json, checksum
from weatherfm.errors import InputError

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_KEY, _MOST_PARTS = 200, 12
_MOST_BYTES = 2**50
"""A petabyte: no file is larger, and sums of so many stay whole numbers."""


class Damaged(ValueError):
    """A record that is not what was written; the text says why."""


def check_key(key: object) -> str:
    """`key`, when it can only name a file inside a store: `state/c/0/1/0/0`.

    It is made of ASCII letters, digits, `_`, `.` and `-`; no part starts with a dot, so there is no way up, no hidden
    folder (the journal), no absolute path and no other system's separator.

    Raises:
        Damaged: it is something else.
    """
    if isinstance(key, str) and len(key) <= _MOST_KEY:
        parts = key.split("/")
        if len(parts) <= _MOST_PARTS and all(_PART.fullmatch(part) for part in parts):
            return key
    text = repr(key)
    raise Damaged(f"{text if len(text) <= 80 else text[:77] + '...'} is no path of a file inside a store")


def check_files(files: object) -> dict[str, dict[str, Any]]:
    """`files`, when it maps keys to {`sha256`, `bytes`}.

    Raises:
        Damaged: it does not.
    """
    if not isinstance(files, dict):
        raise Damaged("the list of files is no mapping")
    for key, entry in files.items():
        check_key(key)
        if not isinstance(entry, dict) or entry.keys() != {"sha256", "bytes"}:
            raise Damaged(f"{key} is not described by sha256 and bytes")
        size, digest = entry["bytes"], entry["sha256"]
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise Damaged(f"the sha256 of {key} is none")
        if type(size) is not int or not 0 <= size <= _MOST_BYTES:
            raise Damaged(f"the size of {key} is no number of bytes")
    return files


def check_record(record: object) -> dict[str, Any]:
    """`record`, when it says what one task wrote: `files` of the big arrays, `payload` and `inputs`.

    Raises:
        Damaged: it does not.
    """
    if not isinstance(record, dict) or record.keys() != {"files", "payload", "inputs"}:
        raise Damaged("a record has other parts than files, payload and inputs")
    if not isinstance(record["inputs"], str) or not isinstance(record["payload"], dict | None):
        raise Damaged("a record's inputs or payload are of the wrong type")
    for key in check_files(record["files"]):
        if not key.startswith(("state/c/", "climatology/c/")):
            raise Damaged(f"a task does not write {key}")
    return record


def check_records(records: object) -> dict[str, dict[str, Any]]:
    """`records`, when each is the record of a task, by its name.

    Raises:
        Damaged: one is not.
    """
    if not isinstance(records, dict):
        raise Damaged("the records are no mapping")
    for name, record in records.items():
        check_key(name)
        check_record(record)
    return records


def parse_json(content: bytes, strict_numbers: bool = False) -> Any:
    """JSON without NaN and infinities.

    Args:
        content: UTF-8.
        strict_numbers: also refuse numbers that float64 cannot hold (1e999), which costs time.

    Raises:
        Damaged: it is no JSON, or nested deeper than anything here is.
    """
    try:
        extra: Any = {"parse_float": _finite} if strict_numbers else {}
        return json.loads(content, parse_constant=_refuse_constant, **extra)
    except (ValueError, RecursionError) as error:
        raise Damaged(str(error) or type(error).__name__) from None


def with_checksum(data: Any) -> bytes:
    """The content of a file that is checked against itself: a line with the checksum of the JSON that follows."""
    body = canonical_json(data).encode()
    return checksum(body).encode() + b"\n" + body


def read_with_checksum(path: Path) -> Any:
    """What `with_checksum` wrote.

    Raises:
        Damaged: its content is something else.
        OSError: it cannot be read.
    """
    digest, _, body = path.read_bytes().partition(b"\n")
    if digest != checksum(body).encode():
        raise Damaged("its checksum is not that of its content")
    return parse_json(body)


def path_inside(root: Path, key: str, plain: set[str] | None = None) -> Path:
    """`root/key`, with no link on the way below `root`; the file need not be there.

    Args:
        root: folder of a store; it may be reached by links.
        key: relative, as `check_key` lets pass or as this package names its own files.
        plain: folders known to be none, to be looked at once; added to.

    Raises:
        InputError: a part of the way is a link.
    """
    path, parts = str(root), key.split("/")
    for i, part in enumerate(parts):
        path = f"{path}/{part}"
        if plain is not None and path in plain:
            continue
        if os.path.islink(path):
            raise InputError(
                f"{path} is a link; a store holds its files itself, and nothing is read or written through a link: "
                "put the file or folder in its place (the store as a whole may be reached by a link)"
            )
        if plain is not None and i < len(parts) - 1:
            plain.add(path)
    return Path(path)


def differences_between(held: Any, wanted: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, before, now) of everything that differs between two nested dicts; those in lists have numbers."""
    held, wanted = _numbered(held), _numbered(wanted)
    if not (isinstance(held, Mapping) and isinstance(wanted, Mapping)):
        return [] if held == wanted else [(prefix.rstrip("."), held, wanted)]
    keys = sorted(held.keys() | wanted.keys())
    return [found for key in keys for found in differences_between(held.get(key), wanted.get(key), f"{prefix}{key}.")]


def _numbered(value: Any) -> Any:
    """A list of dicts as a dict by position; anything else as it is."""
    is_list = isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value)
    return {str(i): one for i, one in enumerate(value)} if is_list else value


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise ValueError(f"{text[:20]} is larger than any number here")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
