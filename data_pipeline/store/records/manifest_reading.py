"""Reading the manifest of a finished store: only what prepare could have written is let in."""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from weatherfm.data_pipeline.store.records.manifest import FORMAT, FORMAT_VERSION, NAME, PROGRESS, RECORDS, is_sealed
from weatherfm.data_pipeline.store.records.record_checks import Damaged, check_files, parse_json
from weatherfm.data_pipeline.store.records.swap import place_of, place_of_last
from weatherfm.data_pipeline.store_config import Days
from weatherfm.errors import InputError

_MOST_BYTES = 64 * 2**20
"""Of a manifest, which is some 100 kB."""
_MOST_TIMES = 10**8
_MOST_NAMED = 10**5
_SWAP_SECONDS = 2.0
"""How long to wait for a store that is just changing places."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Source(_Part):
    kind: str
    simulated: bool


class _Channel(_Part):
    name: str
    units: str


class _Grid(_Part):
    latitude: list[float] = Field(max_length=_MOST_NAMED)
    longitude: list[float] = Field(max_length=_MOST_NAMED)


class _Times(_Part):
    start: str
    end: str
    count: int = Field(ge=1, le=_MOST_TIMES)
    step_hours: int = Field(ge=1, le=24 * 366)
    missing: list[list[str]]
    empty: list[list[str]] = []
    preliminary: list[list[str]]


class _OfPeriod(_Part):
    period: Days


class _Statistics(_OfPeriod):
    weights: str


class _Transform(_Part):
    log1p: float = Field(gt=0)


class _Climatology(_OfPeriod):
    window_days: int | None = Field(ge=1, le=366)
    hours: list[int] = Field(min_length=1, max_length=24)


class _Tendency(_OfPeriod):
    lead_hours: int = Field(ge=1, le=_MOST_NAMED)
    more_lead_hours: list[Annotated[int, Field(ge=1, le=_MOST_NAMED)]] = Field([], max_length=_MOST_NAMED)


class _Manifest(_Part):
    """What this package reads of a manifest; others may stand beside it."""

    source: _Source
    request: dict[str, Any]
    channels: list[_Channel] = Field(min_length=1, max_length=_MOST_NAMED)
    static: list[_Channel] = Field(max_length=_MOST_NAMED)
    variables: dict[str, dict[str, Any]] = Field({}, max_length=_MOST_NAMED)
    masks: list[str] = Field([], max_length=_MOST_NAMED)
    grid: _Grid
    times: _Times
    periods: dict[str, Days | None]
    statistics: _Statistics
    transforms: dict[str, _Transform] = Field({}, max_length=_MOST_NAMED)
    climatology: _Climatology
    tendency: _Tendency
    records: dict[str, dict[str, Any]]
    small: dict[str, dict[str, Any]]
    checksum: str


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a finished store; whether it is sealed is another question.

    Raises:
        InputError: nothing there, a store that `weatherfm prepare` has not finished, not a store of ours, or one whose
            manifest says what none can say.
    """
    file = path / NAME
    if not _is_there(path):
        if place_of_last(place_of(path)).exists():
            raise InputError(f"a change of the store {path} was interrupted at its last step; start it again to end it")
        if re.match(r"\w[\w+.-]+:/", str(path)):
            raise InputError(f"{path} is an address, and stores are read from folders; copy it to one")
        raise InputError(f"no store at {path}; make it with `weatherfm prepare CONFIG` or correct the path")
    if not file.is_file():
        if (path / PROGRESS).is_dir():
            raise InputError(f"the store {path} is not finished; start the same `weatherfm prepare` again to go on")
        raise InputError(f"{path} is not a weatherfm store (it has no {NAME}); give the folder that prepare wrote")
    try:
        manifest = _parse(file)
        _check_kind(path, manifest)
        _check_content(manifest)
    except Damaged as error:
        raise InputError(f"{file} is damaged ({error}); prepare the store anew or restore the file") from None
    return manifest


def read_sealed_manifest(path: Path) -> dict[str, Any]:
    """As `read_manifest`, of a store to build on.

    Raises:
        InputError: also where the manifest does not agree with its own checksum.
    """
    manifest = read_manifest(path)
    if not is_sealed(manifest):
        raise InputError(
            f"{path / NAME} itself was changed since prepare wrote it: nothing to go by; restore the file, or prepare "
            "the store anew"
        )
    return manifest


def _is_there(path: Path) -> bool:
    """True when the store is there, also one that a running `append` puts in place right now."""
    if path.exists():
        return True
    until, last = time.monotonic() + _SWAP_SECONDS, place_of_last(place_of(path))  # beside what a link leads to
    while not path.exists():
        if not last.exists() or time.monotonic() > until:
            return path.exists()
        time.sleep(0.02)
    return True


def _parse(file: Path) -> Any:
    if (size := file.stat().st_size) > _MOST_BYTES:
        raise Damaged(f"it has {size} bytes, no manifest has more than {_MOST_BYTES}")
    try:
        return parse_json(file.read_bytes(), strict_numbers=True)
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); mend that, as by its permissions") from error


def _check_kind(path: Path, manifest: Any) -> None:
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{path / NAME} does not describe a weatherfm store; give the folder that prepare wrote")
    version = manifest.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise InputError(
            f"the store {path} has format version {str(version)[:40]}, this program reads {FORMAT_VERSION}; "
            "prepare it anew with this version or use the one that wrote it"
        )


def _check_content(manifest: dict[str, Any]) -> None:
    try:
        found = _Manifest.model_validate(manifest)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Damaged(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if sorted(check_files(found.records)) != sorted(RECORDS):
        raise Damaged(f"records: they must be {' and '.join(RECORDS)}")
    check_files(found.small)
    times = found.times
    try:
        start, end = datetime.fromisoformat(times.start), datetime.fromisoformat(times.end)
        steps = (end - start).total_seconds() / 3600 / times.step_hours
    except (ValueError, TypeError):
        raise Damaged(f"times: {times.start[:40]!r} to {times.end[:40]!r} are no times") from None
    if not 0 <= steps <= _MOST_TIMES:
        raise Damaged(f"times: from {times.start} to {times.end} are no steps of {times.step_hours}h")
