"""GRIB through ecCodes: an index of all messages of a file, and reading some of them.

Messages are indexed one by one and not as a hypercube, so that files with surface and upper-air fields, several
forecast steps, members or gaps in any mixture read the same, and nothing missing is filled in silently.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from weatherfm.data_pipeline.formats.chunks import Chunking
from weatherfm.data_pipeline.formats.codes import eccodes
from weatherfm.data_pipeline.formats.grib_grid import orientation_of_message
from weatherfm.data_pipeline.formats.identity import Stamp, refuse_changed, stamp_of
from weatherfm.data_pipeline.formats.names import Meaning, NameRules, channel_name
from weatherfm.data_pipeline.formats.orientation import Orientation
from weatherfm.data_pipeline.formats.pieces import NO_MEMBER, Contents, Piece, Slots, are_era5t
from weatherfm.data_pipeline.formats.units import conversion_to
from weatherfm.errors import InputError
from weatherfm.variables import VARIABLES, Variable

_LOCK = threading.Lock()  # ecCodes keeps the state of multi-field messages globally
_MISSING = 1e34
_UNIT_HOURS = {0: 1 / 60, 1: 1.0, 2: 24.0, 10: 3.0, 11: 6.0, 12: 12.0, 13: 1 / 3600, 254: 1 / 3600}
_SINGLE_LEVELS = {  # where the single-level variables of the table live; others (cloud layers, ...) share their names
    "surface", "meanSea", "heightAboveGround", "entireAtmosphere", "atmosphere", "atmosphereSingleLayer", "nominalTop",
    "depthBelowLandLayer", "depthBelowLand", "soilLayer", "oceanSurface", "unknown",
}  # fmt: skip
_ODD_BYTES = 100  # telecommunication headers between messages are shorter; an error page behind them is longer


@dataclass(frozen=True, eq=False)
class GribReader:
    """Fields of a GRIB file; a slot is the position of a message in its index, levels have no meaning."""

    path: str
    offsets: list[int]
    """[message] where it starts."""
    fields: list[int]
    """[message] which field of a multi-field message."""
    stamp: Stamp | None = None
    """Of the file when it was indexed; reading refuses another."""

    @property
    def chunks(self) -> Chunking:
        """A message is a field."""
        return Chunking.single_fields(len(self.offsets))

    def stored_bytes(self, keys: np.ndarray) -> int:
        """Their share of the file."""
        return os.path.getsize(self.path) * len(keys) // len(self.offsets)

    def read(self, slots: np.ndarray, levels: Sequence[int]) -> np.ndarray:
        """[slot, 1, file lat, file lon] float64 in the file's units; missing points are NaN."""
        refuse_changed(self.path, self.stamp)
        order = np.argsort(slots)
        out: np.ndarray | None = None
        with _LOCK, open(self.path, "rb") as file, _multi_fields(any(self.fields)):
            for i in order:
                values = self._decode(file, int(slots[i]))
                out = np.empty((len(slots), 1, *values.shape)) if out is None else out
                out[i, 0] = values
        assert out is not None
        return out

    def value_step(self, slot: int) -> float:
        """2^E / 10^D of simple and CCSDS packing; 0 for others."""
        with _LOCK, open(self.path, "rb") as file, _multi_fields(any(self.fields)):
            message = self._message(file, slot)
            try:
                keys = [int(_text(message, key) or 0) for key in ("binaryScaleFactor", "decimalScaleFactor")]
            finally:
                eccodes.codes_release(message)
        return float(2.0 ** keys[0] / 10.0 ** keys[1])

    def _message(self, file: BinaryIO, slot: int) -> int:
        """Handle of the message of a slot."""
        file.seek(self.offsets[slot])
        eccodes.codes_grib_multi_support_reset_file(file)  # else the rest of an earlier message comes first
        for _ in range(self.fields[slot]):
            eccodes.codes_release(eccodes.codes_grib_new_from_file(file))
        message = eccodes.codes_grib_new_from_file(file)
        if message is None:
            raise InputError(f"{self.path}: message {slot + 1} is gone; the file changed while it was read")
        return int(message)

    def _decode(self, file: BinaryIO, slot: int) -> np.ndarray:
        message = self._message(file, slot)
        try:
            eccodes.codes_set(message, "missingValue", _MISSING)
            values = eccodes.codes_get_values(message)
            columns_first = eccodes.codes_get(message, "jPointsAreConsecutive")
            shape = eccodes.codes_get(message, "Nj"), eccodes.codes_get(message, "Ni")
        except eccodes.CodesInternalError as error:
            raise InputError(f"{self.path}: message {slot + 1} is damaged ({error}); fetch the file again") from error
        finally:
            eccodes.codes_release(message)
        values[values == _MISSING] = np.nan
        return values.reshape(shape[::-1]).T if columns_first else values.reshape(shape)


@dataclass
class _Series:
    """Messages of one channel in one file."""

    variable: Variable
    name: str
    units: str
    rank: int
    orientation: Orientation
    rows: list[tuple[np.datetime64, float, int, str, int, float]] = field(default_factory=list)
    """(valid time, lead hours, member, experiment version, index of the message, hours accumulated or NaN)."""


def index_grib(path: str, rules: NameRules, wanted: Collection[str]) -> Contents:
    """What a GRIB file holds of the wanted channels.

    Raises:
        InputError: truncated, damaged, or a wanted field on an unsupported grid (without the file's name).
    """
    contents = Contents(path)
    reader = GribReader(path, [], [], stamp_of(path))
    series: dict[tuple[str, str, str], _Series] = {}
    others: set[str] = set()
    with _LOCK:
        for message, offset, number in _messages(path):
            reader.offsets.append(offset)
            reader.fields.append(number)
            found = _channel(path, message, rules)
            if isinstance(found, str):
                others.add(found)
                continue
            variable, channel, name, rank = found
            if channel not in wanted:
                others.add(f"{name} as {channel}")
                continue
            orientation, grid_key = orientation_of_message(message)
            new = _Series(variable, name, _text(message, "units"), rank, orientation)
            version, index = _text(message, "experimentVersionNumber"), len(reader.offsets) - 1
            row = (*_when(message), version, index, _hours_accumulated(message))
            series.setdefault((channel, name, grid_key), new).rows.append(row)
            contents.attributes.setdefault("GRIB_centre", _text(message, "centre"))
    if not reader.offsets:
        raise InputError("it holds no GRIB message; fetch it again")
    contents.others = sorted(others)
    contents.pieces = [_piece(path, reader, channel, one, rules) for (channel, _, _), one in series.items()]
    return contents


def _piece(path: str, reader: GribReader, channel: str, series: _Series, rules: NameRules) -> Piece:
    units = rules.units(series.name, series.variable, series.units)
    try:
        conversion = conversion_to(VARIABLES.get(channel, series.variable), units)
    except InputError as error:
        raise InputError(f"its field {series.name} {error}; set source.units: {{{series.name}: ...}}") from None
    rows: dict[tuple[Any, ...], tuple[np.datetime64, float, int, str, int, float]] = {}
    for row in sorted(series.rows, key=lambda row: (row[3], row[4])):  # ERA5 (0001) before ERA5T (0005)
        rival = rows.setdefault((*row[:3], None if np.isnan(row[5]) else row[5]), row)  # GFS: 6-12 h and 0-12 h
        if rival[3] == row[3] and rival is not row:
            raise InputError(
                f"it holds {channel} at {row[0]} twice (messages {rival[4] + 1} and {row[4] + 1}); remove one"
            )
    columns = (np.array(column) for column in zip(*rows.values(), strict=True))
    times, leads, numbers, versions, index, accumulated = columns
    slots = Slots(times.astype("datetime64[s]"), leads, numbers, index, are_era5t(versions), accumulated)
    return Piece(path, series.name, channel, reader, 0, series.orientation, units, conversion, series.rank, slots)


def _messages(path: str) -> Iterator[tuple[int, int, int]]:
    """(message handle, offset, number of the field in its message), handles freed by this generator."""
    with open(path, "rb") as file, _multi_fields(True):
        eccodes.codes_grib_multi_support_reset_file(file)
        end, last, number = 0, -1, 0
        while True:
            try:
                message = eccodes.codes_grib_new_from_file(file, headers_only=True)
            except eccodes.CodesInternalError as error:
                raise InputError(f"it is truncated or damaged after {end} bytes ({error}); fetch it again") from error
            if message is None:
                break
            try:
                offset = eccodes.codes_get_long(message, "offset")
                number = number + 1 if offset == last else 0
                if number == 0:
                    _check_between(path, end, offset)
                last, end = offset, offset + _length(file, message, offset)
                yield message, offset, number
            finally:
                eccodes.codes_release(message)
    _check_between(path, end, None)


def _length(file: BinaryIO, message: int, offset: int) -> int:
    """Bytes of the whole message; of one field of several, ecCodes tells only that field's."""
    if eccodes.codes_get_long(message, "edition") == 1:
        return int(eccodes.codes_get_long(message, "totalLength"))
    return int.from_bytes(os.pread(file.fileno(), 16, offset)[8:], "big")


def _check_between(path: str, start: int, stop: int | None) -> None:
    """Refuse bytes that are no message: what stood there is lost."""
    if start == stop:
        return
    with open(path, "rb") as file:
        file.seek(start)
        odd = file.read(4096 if stop is None else min(stop - start, 4096)).strip(b"\0 \t\r\n")
    if len(odd) > _ODD_BYTES:
        raise InputError(f"it holds bytes that are no GRIB message after byte {start} ({odd[:20]!r}); fetch it again")


@contextmanager
def _multi_fields(on: bool) -> Iterator[None]:
    """NCEP packs u and v into one message: let ecCodes unpack them."""
    if on:
        eccodes.codes_grib_multi_support_on()
    try:
        yield
    finally:
        if on:
            eccodes.codes_grib_multi_support_off()


def _channel(path: str, message: int, rules: NameRules) -> tuple[Variable, str, str, int] | str:
    """(variable, channel, file's name, rank) of a message, or its description where it is none of ours."""
    name, kind = _text(message, "shortName"), _text(message, "typeOfLevel")
    described = f"{name} ({kind} {_text(message, 'level')})"
    if name == "unknown":
        return f"unknown parameter {_text(message, 'paramId')} ({kind})"
    meaning = rules.meaning(name, {"GRIB_cfVarName": _text(message, "cfVarName")})
    if not isinstance(meaning, Meaning):
        return described
    variable = meaning.variable
    if (step := _text(message, "stepType")) not in ("instant", "accum") or (
        step == "accum" and not variable.accumulated
    ):
        return f"{described}, {step} over time"
    if not variable.on_levels:
        return (variable, variable.short, name, meaning.rank) if kind in _SINGLE_LEVELS else described
    if kind == "surface" and variable.short == "z":
        return variable, "orography", name, meaning.rank
    level: float | None = None
    if kind in ("isobaricInhPa", "isobaricInPa"):
        level = eccodes.codes_get_long(message, "level") / (100 if kind == "isobaricInPa" else 1)
    elif kind == "unknown":
        level = meaning.level or rules.level(path, name, variable)
    channel = None if level is None else channel_name(variable, level)
    return described if channel is None else (variable, channel, name, meaning.rank)


def _when(message: int) -> tuple[np.datetime64, float, int]:
    """(valid time, lead hours, member); an accumulation counts at its end."""
    date, clock = eccodes.codes_get_long(message, "dataDate"), eccodes.codes_get_long(message, "dataTime")
    start = np.datetime64(f"{date // 10000:04d}-{date // 100 % 100:02d}-{date % 100:02d}", "s")
    start = start + np.timedelta64(clock // 100 * 60 + clock % 100, "m")
    lead = eccodes.codes_get_long(message, "endStep") * _step_hours(message)
    return start + np.timedelta64(round(lead * 3600), "s"), lead, _member(message)


def _hours_accumulated(message: int) -> float:
    """Span of a sum, NaN for other fields."""
    if _text(message, "stepType") != "accum":
        return float("nan")
    steps = eccodes.codes_get_long(message, "endStep") - eccodes.codes_get_long(message, "startStep")
    return float(steps * _step_hours(message))


def _step_hours(message: int) -> float:
    """Hours in one unit of the message's steps."""
    unit = _UNIT_HOURS.get(eccodes.codes_get_long(message, "stepUnits"))
    if unit is None:
        raise InputError(f"its steps are counted in an unsupported unit ({_text(message, 'stepUnits')})")
    return unit


def _member(message: int) -> int:
    if not eccodes.codes_is_defined(message, "number"):
        return NO_MEMBER
    number = eccodes.codes_get_long(message, "number")
    has_total = eccodes.codes_is_defined(message, "totalNumber")
    total = eccodes.codes_get_long(message, "totalNumber") if has_total else 0
    in_ensemble = number > 0 or total > 1 or _text(message, "dataType") in ("cf", "pf")
    return number if in_ensemble else NO_MEMBER


def _text(message: int, key: str) -> str:
    return str(eccodes.codes_get_string(message, key)) if eccodes.codes_is_defined(message, key) else ""
