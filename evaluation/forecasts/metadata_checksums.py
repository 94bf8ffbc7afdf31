"""Checksums of a forecast's metadata and coordinates: a digit of a date changes what all of its values mean."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from weatherfm.atomic import write_atomically
from weatherfm.data_pipeline.store.records.manifest import checksum
from weatherfm.data_pipeline.store.records.record_checks import Damaged, check_key, parse_json
from weatherfm.errors import InputError

NAME = "checksums.json"
"""Zarr's readers pass it by. Only the folder that weatherfm wrote has one: a copy made with xarray is another store."""
_MOST_BYTES = 2**26


def write_checksums(path: Path, group: bytes, arrays: Iterable[str]) -> None:
    """Note the sha256 of the group's metadata, about to be written, of that of each array and of coordinates."""
    keys = [f"{name}/{file}" for name in sorted(arrays) for file in ("zarr.json", "c/0")]
    known = {"zarr.json": checksum(group)}
    known |= {key: checksum((path / key).read_bytes()) for key in keys if (path / key).is_file()}
    write_atomically(path / NAME, (json.dumps(known, indent=1) + "\n").encode())


def check_checksums(path: Path) -> None:
    """Nothing where the metadata of the forecast in a folder is as it was written, or nobody noted how that was.

    Raises:
        InputError: names the file that is not.
    """
    file = path / NAME
    if not os.path.lexists(file):
        return
    for key, known in _known(file).items():
        try:
            if checksum((path / key).read_bytes()) == known:
                continue
            fault = "was changed since the forecast was written"
        except OSError as error:
            fault = f"cannot be read ({error.strerror})"
        raise InputError(
            f"{path / key} {fault}, and with it what the values mean: restore it or forecast again (if the change is "
            f"meant, remove {file})"
        )


def refuse_pipes(path: Path) -> None:
    """Nothing where the folder holds files and folders alone: who opens a pipe waits for ever.

    Raises:
        InputError: names what is neither.
    """
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir():
                refuse_pipes(Path(entry.path))
            elif not entry.is_file() and not entry.is_symlink():
                raise InputError(f"{entry.path} is a pipe or a device, no file; put the file in its place")


def _known(file: Path) -> dict[str, Any]:
    try:
        if not file.is_file() or file.stat().st_size > _MOST_BYTES:
            raise Damaged("it is none of ours")
        found = parse_json(file.read_bytes())
        if not isinstance(found, dict):
            raise Damaged("it is no list of files")
        return {check_key(key): known for key, known in found.items()}
    except (OSError, Damaged) as error:
        raise InputError(
            f"{file} is damaged ({error}), so that nobody can tell whether the forecast is as it was written: forecast "
            "again, or remove this file to have the forecast read without"
        ) from None
