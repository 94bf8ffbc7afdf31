"""Arguments of `weatherfm.forecast` in the forms people have them, as settings write them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeAlias

import numpy as np

from weatherfm.errors import InputError

Span: TypeAlias = str | timedelta | np.timedelta64
"""As "24h"; of pandas, too."""

_COARSE = ("Y", "M", "W")


def lead_times_text(given: Any) -> list[Any]:
    """Lead times: texts as they are, time spans as texts."""
    return [span_text(item) for item in _items(given)]


def span_text(given: Any) -> Any:
    """A time span as text; what is no span is left for the settings to refuse.

    Raises:
        InputError: no whole number of hours.
    """
    if not isinstance(given, timedelta | np.timedelta64):
        return given
    span = np.timedelta64(given)
    cure = "choose whole hours, e.g. 24h"
    if np.isnat(span) or np.datetime_data(span)[0] in ("Y", "M", "generic"):
        raise InputError(f"lead time {given!r} is no time span of a known length; {cure}")
    hours = span / np.timedelta64(1, "h")
    if hours != round(hours):
        raise InputError(f"lead time {given} is no whole number of hours; {cure}")
    return f"{round(hours)}h"


def init_text(given: Any) -> str:
    """Initial times as `--init` writes them; the latest where none is given."""
    return "latest" if given is None else ",".join(_time_text(item) for item in _items(given))


def _items(given: Any) -> list[Any]:
    """One or several: lists, arrays, generators, what pandas and xarray hold their values in."""
    if isinstance(given, str | bytes):
        return [given]
    if hasattr(given, "dims"):  # a DataArray
        given = np.asarray(given.values)
    if isinstance(given, np.ndarray):
        return list(np.atleast_1d(given).ravel())
    return list(given) if isinstance(given, Iterable) else [given]


def _time_text(given: Any) -> str:
    if isinstance(given, str):
        return given
    cure = "write 2018-10-01T06, or give a datetime"
    if not isinstance(given, date | np.datetime64):
        raise InputError(f"initial time {given!r} is no time; {cure}")
    if given != given:  # NaT, also of pandas
        raise InputError(f"initial time {given!r} is no time (NaT): leave it out, or {cure}")
    if isinstance(given, datetime) and given.tzinfo is not None:
        given = given.astimezone(UTC).replace(tzinfo=None)
    time = np.datetime64(given)
    if np.datetime_data(time)[0] in _COARSE:
        raise InputError(f"initial time {given!r} is no day and no hour; write days as text, e.g. 2018, or {cure}")
    hour = time.astype("datetime64[h]")
    if time != hour:
        raise InputError(f"initial time {given} is no whole hour; choose whole hours")
    return str(hour)
