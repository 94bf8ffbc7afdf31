"""How far a forecast on disk is: begun by whom, and which blocks of initial times are finished.

Each finished block is an empty file of its own, so that several processes may finish blocks at the same time.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weatherfm.data_pipeline.store.records.record_checks import Damaged, parse_json
from weatherfm.errors import InputError
from weatherfm.evaluation.forecasts.metadata_checksums import check_checksums
from weatherfm.file_errors import naming

FORMAT = "weatherfm forecast 1"
GROUP = "zarr.json"
_PROGRESS = "progress.json"
_DONE = "progress"
_BLOCK = "init_times_a_block"
"""How a forecast is cut into files decides nothing in it; once begun, it stays."""
_ANEW = "remove the folder and forecast again, or choose another path"
_MOST_SHOWN = 200
"""Characters of what differs; the training of several weights has thousands."""


@dataclass(frozen=True)
class Progress:
    """What is on disk of a forecast."""

    finished: bool
    done: set[int]
    """Numbers of the finished blocks."""
    block: int | None
    """Initial times in a block; None where nothing is begun, or all is finished."""


def find_progress(path: Path, record: dict[str, Any]) -> Progress:
    """What is on disk.

    Raises:
        InputError: it is something else, or another forecast than `record` describes.
    """
    group, progress = path / GROUP, path / _PROGRESS
    if group.is_file():
        check_checksums(path)
        attributes = _read(group).get("attributes")
        if not isinstance(attributes, dict) or attributes.get("format") != FORMAT:
            raise InputError(f"{path} exists and is no forecast of weatherfm; choose another path")
        _refuse_difference(path, _parsed(group, str(attributes.get("provenance")).encode()), record)
        clear_leftovers(path)
        return Progress(True, set(), None)
    if progress.is_file():
        state = _read(progress)
        if state.get("format") != FORMAT:
            raise InputError(f"{path} was begun by another version of weatherfm; remove it or choose another path")
        held, block = state.get("record"), state.get(_BLOCK)
        if not isinstance(held, dict) or type(block := block or held.get(_BLOCK)) is not int or block < 1:
            raise InputError(f"{progress} is damaged: it does not tell what was begun; {_ANEW}")
        _refuse_difference(path, held, record)
        noted = {int(file.name) for file in (path / _DONE).glob("[0-9]*")}
        earlier = range(int(state.get("blocks_done", 0)))  # as versions before wrote it
        return Progress(False, {*earlier, *noted}, block)
    if path.exists() and (not path.is_dir() or {p.name for p in path.iterdir()} - {f".{_PROGRESS}"}):
        raise InputError(f"{path} exists and is no forecast of weatherfm; choose another path")
    return Progress(False, set(), None)


def _read(file: Path) -> dict[str, Any]:
    """The object in a file of JSON."""
    try:
        return _parsed(file, file.read_bytes())
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); mend that, as by its permissions") from error


def _parsed(file: Path, content: bytes) -> dict[str, Any]:
    try:
        found = parse_json(content)
    except Damaged as error:
        raise InputError(f"{file} is damaged ({str(error)[:200]}); {_ANEW}") from None
    if not isinstance(found, dict):
        raise InputError(f"{file} is damaged: it holds no JSON object; {_ANEW}")
    return found


def begin_progress(path: Path, record: dict[str, Any], block: int) -> None:
    """Note what a forecast is to hold and how many initial times a block has."""
    write_atomically(path / _PROGRESS, {"format": FORMAT, "record": record, _BLOCK: block})


def note_done(path: Path, number: int) -> None:
    """Note that a block is finished."""
    folder = path / _DONE
    folder.mkdir(exist_ok=True)
    (folder / str(number)).touch()


def as_written(content: dict[str, Any]) -> bytes:
    """The bytes of a file of JSON."""
    return json.dumps(content, indent=1, sort_keys=True).encode()


def write_atomically(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    with naming(path), open(temporary, "wb") as file:
        file.write(as_written(content))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def clear_leftovers(path: Path) -> None:
    """Remove the notes of progress and what a killed writer left half written."""
    shutil.rmtree(path / _DONE, ignore_errors=True)
    for leftover in (path / _PROGRESS, path / f".{_PROGRESS}", path / f".{GROUP}", *path.rglob("*.__lock")):
        leftover.unlink(missing_ok=True)


def _refuse_difference(path: Path, held: dict[str, Any], asked: dict[str, Any]) -> None:
    keys = sorted(key for key in (held.keys() | asked.keys()) - {_BLOCK} if held.get(key) != asked.get(key))
    if keys:
        key, there, now = min(((key, repr(held.get(key)), repr(asked.get(key))) for key in keys), key=_length)
        raise InputError(
            f"{path} holds another forecast: {', '.join(keys)} differ ({key}: there {_shortened(there)}, now "
            f"{_shortened(now)}); remove it or choose another path"
        )


def _length(texts: tuple[str, ...]) -> int:
    return sum(map(len, texts))


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
