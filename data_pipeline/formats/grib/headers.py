"""What the headers of GRIB messages say, through ecCodes.

Headers of a record differ in little but their date: what else they say is asked of ecCodes once, not for every message.
So an index of thousands of files takes microseconds a message, and no lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from weatherfm.data_pipeline.formats.grib.codes import GUARD, eccodes
from weatherfm.data_pipeline.formats.grib.grid import Axes, axes_of_message
from weatherfm.data_pipeline.formats.grib.messages import Field
from weatherfm.data_pipeline.formats.pieces import NO_MEMBER
from weatherfm.errors import InputError

_UNIT_HOURS = {0: 1 / 60, 1: 1.0, 2: 24.0, 10: 3.0, 11: 6.0, 12: 12.0, 13: 1 / 3600, 254: 1 / 3600}
_INSTANT = {0, 1, 2, 3, 4, 5, 6, 7, 15, 40, 41, 60}
"""Product definition templates of edition 2 without any date."""
_INTERVAL = {8: 34, 11: 37, 61: 44}
"""Templates with the end of an interval -> where in section 4 its seven bytes are."""
_A_DAY = (2000, 1, 1, 0, 0, 0)
_GRIDS: dict[bytes, Axes] = {}


@dataclass(frozen=True, eq=False)
class Header:
    """All that a message says about its field but the date; one object stands for all messages of the same bytes."""

    name: str
    """ecCodes' shortName; `unknown` where its tables have none."""
    cf_name: str
    parameter: str
    """Number of the parameter."""
    layer: str
    """typeOfLevel."""
    level: str
    units: str
    centre: str
    data_type: str
    """MARS type, or the type of processed data of edition 2; empty where not told."""
    stream: str
    step_type: str
    """`instant`, `accum`, `avg`, ..."""
    template: int
    """Product definition template of edition 2; -1 in edition 1."""
    derived: int
    """Code table 4.7 (derived forecast) in edition 2, NCEP's product identifier in edition 1; -1 for neither."""
    experiment: str
    mars_class: str
    """`ea` (ERA5), `od` (operations), ...; empty where not told."""
    member: int
    lead: float
    """Hours from the date to the field; of an interval, to its end."""
    span: float
    """Hours of the interval; 0 for an instant."""
    verifying_month: int
    """YYYYMM of a monthly mean of a seasonal forecast, else 0."""
    axes: Axes


def header_of(field: Field) -> tuple[Header, np.datetime64]:
    """(what a field's header says, its date: the start of a forecast).

    Raises:
        InputError: ecCodes cannot read it, or it has no date (without the file's name).
    """
    if field.edition == 1:
        one, two = field.sections
        date = (one[24] - 1) * 100 + one[12], *one[13:17], 0
        return _read(1, b"", _put(one, {12: _first_day_1(), 24: bytes([21])}), two), _date(date)
    one, two, three, four = field.sections
    date = int.from_bytes(one[12:14], "big"), *one[14:19]
    dateless = _without_end(four)
    if dateless is not None:
        one, four = _put(one, {12: _first_day_2()}), dateless
    return _read(2, field.indicator, one, two, three, four), _date(date)


def _date(parts: tuple[int, ...]) -> np.datetime64:
    """Day 0 stands for a month as a whole: its first."""
    year, month, day, hour, minute, second = parts
    try:
        text = f"{year:04d}-{month:02d}-{max(day, 1):02d}T{hour:02d}:{minute:02d}:{second:02d}"
        return np.datetime64(text, "s")
    except ValueError:
        raise InputError(f"it holds a message without a date (year {year}, month {month}, day {day})") from None


def _first_day_1() -> bytes:
    return bytes([_A_DAY[0] - 1900, *_A_DAY[1:5]])


def _first_day_2() -> bytes:
    return _A_DAY[0].to_bytes(2, "big") + bytes(_A_DAY[1:])


def _put(section: bytes, parts: dict[int, bytes]) -> bytes:
    for at, new in parts.items():
        section = section[:at] + new + section[at + len(new) :]
    return section


def _without_end(section: bytes) -> bytes | None:
    """Section 4 with the date in it put to a fixed one; None where it may hold dates that nobody knows of here."""
    template = int.from_bytes(section[7:9], "big")
    if template in _INSTANT:
        return section
    at = _INTERVAL.get(template)
    if at is None or len(section) <= at + 7 or section[at + 7] != 1:  # several intervals: the end tells their length
        return None
    return _put(section, {at: _first_day_2()})


@lru_cache(maxsize=2**16)
def _read(edition: int, indicator: bytes, *sections: bytes) -> Header:
    with GUARD:
        try:
            message = eccodes.codes_new_from_message(_empty_message(edition, indicator, sections))
        except eccodes.CodesInternalError as error:
            raise InputError(f"it holds a message that ecCodes cannot read ({error}); fetch it again") from error
        try:
            return _header(message, edition, sections[1] if edition == 1 else sections[2])
        except eccodes.CodesInternalError as error:
            name = _text(message, "shortName")
            raise InputError(f"its field {name} has a header that ecCodes cannot read ({error})") from error
        finally:
            eccodes.codes_release(message)


def _empty_message(edition: int, indicator: bytes, sections: tuple[bytes, ...]) -> bytes:
    """A message of these sections whose field is constant: headers are asked without reading the data."""
    if edition == 1:
        one, two = sections
        one = one[:7] + bytes([one[7] & 0xBF]) + one[8:]  # no bitmap
        parts = [one, two, (12).to_bytes(3, "big") + bytes([8, 0, 0, 0, 0, 0, 0, 0, 0])]
        return b"GRIB" + (8 + sum(map(len, parts)) + 4).to_bytes(3, "big") + b"\1" + b"".join(parts) + b"7777"
    one, two, three, four = sections
    five = (21).to_bytes(4, "big") + b"\5" + three[6:10] + bytes(12)
    parts = [one, two, three, four, five, b"\0\0\0\6\6\xff", b"\0\0\0\5\7"]
    return indicator[:8] + (16 + sum(map(len, parts)) + 4).to_bytes(8, "big") + b"".join(parts) + b"7777"


def _header(message: int, edition: int, grid: bytes) -> Header:
    if grid not in _GRIDS:
        _GRIDS[grid] = axes_of_message(message)
    hours = _step_hours(message)
    start, end = (eccodes.codes_get_long(message, key) * hours for key in ("startStep", "endStep"))
    step_type = _text(message, "stepType")
    product = "derivedForecast" if edition == 2 else "productIdentifier"
    return Header(
        _text(message, "shortName"),
        _text(message, "cfVarName"),
        _text(message, "paramId"),
        _text(message, "typeOfLevel"),
        _text(message, "level"),
        _text(message, "units"),
        _text(message, "centre"),
        _text(message, "dataType"),
        _text(message, "stream"),
        step_type,
        _number(message, "productDefinitionTemplateNumber") if edition == 2 else -1,
        _number(message, product) if edition == 2 or _text(message, "centre") == "kwbc" else -1,
        _text(message, "experimentVersionNumber"),
        _text(message, "class"),
        _member(message),
        float(end),
        0.0 if step_type == "instant" else float(end - start),
        max(0, _number(message, "verifyingMonth")),
        _GRIDS[grid],
    )


def _step_hours(message: int) -> float:
    """Hours in one unit of the message's steps."""
    unit = _UNIT_HOURS.get(eccodes.codes_get_long(message, "stepUnits"))
    if unit is None:
        raise InputError(f"its steps are counted in an unsupported unit ({_text(message, 'stepUnits')})")
    return unit


def _member(message: int) -> int:
    number = _number(message, "number")
    if number < 0:
        return NO_MEMBER
    total = _number(message, "totalNumber")
    return number if number > 0 or total > 1 or _text(message, "dataType") in ("cf", "pf") else NO_MEMBER


def _text(message: int, key: str) -> str:
    return str(eccodes.codes_get_string(message, key)) if eccodes.codes_is_defined(message, key) else ""


def _number(message: int, key: str) -> int:
    """-1 where there is none."""
    return int(eccodes.codes_get_long(message, key)) if eccodes.codes_is_defined(message, key) else -1
