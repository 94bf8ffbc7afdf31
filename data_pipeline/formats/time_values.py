"""datetime64 of time coordinates, however files write them: CF, dates as numbers or texts, CDO's absolute times."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from weatherfm.errors import InputError

_EXACT = ("standard", "gregorian", "proleptic_gregorian")
WITHOUT_LEAP_DAYS = ("noleap", "365_day")
"""Calendars whose years all have 365 days: 29 February is in none of them."""
_DAY = 86400


def seconds(values: xr.Variable) -> np.ndarray:
    """datetime64[s] of a time coordinate of any of these kinds, rounded to seconds.

    Raises:
        InputError: times that nobody can place (without the file's name).
    """
    raw = np.asarray(values.values)
    if np.issubdtype(raw.dtype, np.datetime64):
        return (raw.astype("datetime64[ms]") + np.timedelta64(500, "ms")).astype("datetime64[s]")
    if raw.dtype.kind in "SU" or (raw.dtype == object and isinstance(raw.flat[0], str | bytes)):
        return _of_texts(raw)
    if raw.dtype == object:
        return _of_calendar(raw, values)
    units = str(values.attrs.get("units", ""))
    if "as %Y" in units and (read := _ABSOLUTE.get(units.replace(" ", "").lower())):
        return read(raw.astype(np.float64), units)
    if raw.dtype.kind in "iu" or (raw.dtype.kind == "f" and (raw == np.round(raw)).all()):
        if ((raw > 18000101) & (raw < 22000101)).all():
            return _of_texts(raw.astype(np.int64).astype(str))
        if ((raw > 1800010100) & (raw < 2200010100)).all():
            return _of_texts(raw.astype(np.int64).astype(str))
    raise InputError(
        f"its times are plain numbers (first {raw.ravel()[:1]}) without 'units: ... since ...'; set that attribute"
    )


def without_leap_days(values: xr.Variable) -> str | None:
    """The calendar of a time coordinate whose years all have 365 days; None of others."""
    if values.dtype != object or not values.size:
        return None
    calendar = _calendar(values[(0,) * values.ndim].values.item(), values)
    return calendar if calendar in WITHOUT_LEAP_DAYS else None


def evenly(values: xr.Variable) -> np.ndarray:
    """datetime64[s] that count every day of the coordinate's own calendar: for differences, not for dates."""
    if without_leap_days(values) is None:
        return seconds(values)
    raw = np.asarray(values.values)
    days = np.array([365 * time.year + time.dayofyr for time in raw.flat], np.int64)
    within = np.array([3600 * time.hour + 60 * time.minute + time.second for time in raw.flat], np.int64)
    return (_DAY * days + within).reshape(raw.shape).astype("datetime64[s]")


def _of_texts(raw: np.ndarray) -> np.ndarray:
    """`2020-01-31T06:00`, `2020-01-31 06:00:00`, `20200131`, `2020013106`."""
    times = []
    for item in raw.ravel().tolist():
        text = (item.decode() if isinstance(item, bytes) else str(item)).strip().removesuffix("Z")
        compact = re.fullmatch(r"(\d{4})(\d\d)(\d\d)[T_ ]?(\d\d)?(\d\d)?", text)
        if compact:
            text = f"{compact[1]}-{compact[2]}-{compact[3]}T{compact[4] or '00'}:{compact[5] or '00'}"
        try:
            times.append(np.datetime64(text.replace(" UTC", "").replace(" ", "T"), "s"))
        except ValueError:
            raise InputError(
                f"its times are texts that are no dates (such as {text!r}); write 2020-01-31T06:00"
            ) from None
    return np.array(times, "datetime64[s]").reshape(raw.shape)


def _of_calendar(raw: np.ndarray, values: xr.Variable) -> np.ndarray:
    """cftime's dates: of calendars whose days all exist."""
    calendar = _calendar(raw.flat[0], values)
    if calendar not in (*_EXACT, *WITHOUT_LEAP_DAYS):
        raise InputError(
            f"its times follow the {calendar!r} calendar, which real weather does not; only gregorian times are read, "
            "and those of calendars without 29 February"
        )
    return np.array([f"{time:%Y-%m-%dT%H:%M:%S}" for time in raw.ravel()], "datetime64[s]").reshape(raw.shape)


def _calendar(first: Any, values: xr.Variable) -> str:
    """As the file calls it; of times in memory, as cftime does."""
    return str(values.encoding.get("calendar", getattr(first, "calendar", "unknown"))).lower()


def _absolute(months: int, days: int) -> Callable[[np.ndarray, str], np.ndarray]:
    """Reader of CDO's absolute times: digits of year, month, day, and a fraction of the last one named."""

    def read(numbers: np.ndarray, units: str) -> np.ndarray:
        whole = np.floor(numbers + 1e-9)
        fraction = np.maximum(numbers - whole, 0.0)
        if (fraction > 1e-6).any() and not days:
            raise InputError(f"its times count parts of months or years ({units}); write days: 'day as %Y%m%d.%f'")
        number = whole.astype(np.int64)
        day = number % 100 if days else np.ones_like(number)
        month = number // (100 if days else 1) % 100 if months else np.ones_like(number)
        year = number // (100 ** (months + days))
        text = [f"{y:04d}-{m:02d}-{d:02d}" for y, m, d in zip(year.flat, month.flat, day.flat, strict=True)]
        try:
            dates = np.array(text, "datetime64[s]").reshape(numbers.shape)
        except ValueError as error:
            raise InputError(f"its times ({units}) are no dates ({error}); mend them") from None
        # a double holds such a number to about a second at best: whole minutes are meant
        return dates + (np.round(fraction * _DAY / 60) * 60).astype("timedelta64[s]")

    return read


_ABSOLUTE: dict[str, Callable[[np.ndarray, str], np.ndarray]] = {
    "dayas%y%m%d.%f": _absolute(1, 1),
    "dayas%y%m%d": _absolute(1, 1),
    "monthas%y%m.%f": _absolute(1, 0),
    "monthas%y%m": _absolute(1, 0),
    "yearas%y.%f": _absolute(0, 0),
    "yearas%y": _absolute(0, 0),
}


def decoded(opened: Callable[..., xr.Dataset]) -> xr.Dataset:
    """What `opened` opens, with its times decoded; months and years since a date are those of the calendar.

    Raises:
        InputError: parts of a month or year (without the file's name).
        ValueError: times that xarray cannot decode for another reason.
    """
    try:
        return opened(decode_timedelta=True)
    except ValueError as error:
        if re.search(r"(month|year)s? since", str(error), re.IGNORECASE) is None:
            raise
        return _with_calendar_months(opened(decode_times=False))


def _with_calendar_months(dataset: xr.Dataset) -> xr.Dataset:
    """A dataset that was opened without decoding times, decoded; whole months and years are those of the calendar.

    Raises:
        InputError: parts of a month or year (a month of UDUNITS has 30.44 days: no calendar has such).
    """
    units = {str(name): str(v.attrs["units"]) for name, v in dataset.variables.items() if "units" in v.attrs}
    units |= {str(v.attrs["bounds"]): units[str(name)] for name, v in dataset.variables.items()
              if "bounds" in v.attrs and str(name) in units}  # fmt: skip
    found = {
        name: match for name, said in units.items() if (match := _MONTHS.match(said)) and name in dataset.variables
    }
    changed = {name: _days(dataset.variables[name], name, match) for name, match in found.items()}
    return xr.decode_cf(dataset.assign(changed), mask_and_scale=False, decode_timedelta=True)


_MONTHS = re.compile(r"\s*(month|year)s?\s+since\s+(-?\d+)-(\d+)-(\d+)(.*)", re.IGNORECASE)


def _days(variable: xr.Variable, name: str, match: re.Match[str]) -> xr.Variable:
    """`months since DATE` as `days since DATE`."""
    counts = np.asarray(variable.values, np.float64)
    year, month, day = (int(match[i]) for i in (2, 3, 4))
    if (np.abs(counts - np.round(counts)) > 1e-6).any() or day > 28:
        odd = counts[np.abs(counts - np.round(counts)) > 1e-6][:1]
        raise InputError(
            f"its {name} counts {match[1]}s since {year:04d}-{month:02d}-{day:02d}, and "
            + (f"{odd[0]:g} is no whole number of them" if len(odd) else f"not every month has a day {day}")
            + ": nobody knows which day is meant; write it in days"
        )
    months = np.round(counts).astype(np.int64) * (12 if match[1].lower() == "year" else 1)
    start = np.datetime64(f"{year:04d}-{month:02d}", "M")
    dates = (start + months.astype("timedelta64[M]")).astype("datetime64[D]") + np.timedelta64(day - 1, "D")
    since = np.datetime64(f"{year:04d}-{month:02d}-{day:02d}", "D")
    attributes = {**variable.attrs, "units": f"days since {year:04d}-{month:02d}-{day:02d}{match[5]}"}
    return xr.Variable(variable.dims, dates.astype(np.int64) - since.astype(np.int64), attributes)
