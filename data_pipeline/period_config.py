"""Days of a record: a period, several, or months and seasons of years."""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from itertools import pairwise, product
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from weatherfm.config import Config

_SEASONS = {"DJF": (12, 1, 2), "MAM": (3, 4, 5), "JJA": (6, 7, 8), "SON": (9, 10, 11)}
_DAY = timedelta(days=1)


class Period(Config):
    """Whole days from `start` to `end`, both included.

    Written as a year, month or day (`2008`, `2008-03`, `2008-03-05`), as two with a slash (`2000-01-01/2000-06-30`), or
    as two years with a hyphen (`2000-2007`).
    """

    start: date
    end: date

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return _ends_of(value)

    @model_validator(mode="after")
    def _forward(self) -> Period:
        if self.end < self.start:
            raise ValueError(f"the period ends ({self.end}) before it starts ({self.start}); swap the two")
        return self

    def __str__(self) -> str:
        return f"{self.start}/{self.end}"

    @property
    def pieces(self) -> tuple[Period, ...]:
        """Periods without a break."""
        return (self,)

    def overlaps(self, other: Period) -> bool:
        """True when the two share a day."""
        pairs = product(self.pieces, other.pieces)
        return any(one.start <= two.end and two.start <= one.end for one, two in pairs)

    def contains(self, times: np.ndarray) -> np.ndarray:
        """[time] bool: which datetime64 values fall into the period."""
        found = np.zeros(np.shape(times), bool)
        for piece in self.pieces:
            end = np.datetime64(piece.end) + np.timedelta64(1, "D")
            found |= (times >= np.datetime64(piece.start)) & (times < end)
        return found


class MonthsOfYears(Config):
    """Months of years: `{years: 1979-2015, season: DJF}` or `{years: 1979-2015, months: [5, 6, 9]}`.

    Months are those of the calendar: DJF of 1979-2015 begins with January and February 1979 and ends with December
    2015; between them each December goes on into the next January without a break.
    """

    years: Period
    """Whole years, as `1979-2015` or `2016`."""
    months: list[Annotated[int, Field(ge=1, le=12)]] | None = Field(None, min_length=1)
    """1 is January."""
    season: Literal["DJF", "MAM", "JJA", "SON"] | None = None
    """Or a season: DJF, MAM, JJA or SON."""

    @model_validator(mode="after")
    def _whole(self) -> MonthsOfYears:
        first, last = self.years.start, self.years.end
        if (first.month, first.day, last.month, last.day) != (1, 1, 12, 31):
            raise ValueError(f"years are whole, as 1979-2015, not {self.years}")
        if (self.months is None) == (self.season is None):
            raise ValueError("give either months, as [12, 1, 2], or season, as DJF")
        if self.months is not None and len(set(self.months)) < len(self.months):
            raise ValueError(f"months {self.months} repeat one; name each once")
        return self

    @property
    def periods(self) -> list[Period]:
        """Stretches of months without a break, ascending."""
        wanted = set(self.months or _SEASONS[self.season or ""])
        found: list[Period] = []
        for year in range(self.years.start.year, self.years.end.year + 1):
            for month in sorted(wanted):
                first, last = _days_of(f"{year}-{month:02d}")
                goes_on = bool(found) and found[-1].end + _DAY == first
                start = found.pop().start if goes_on else first
                found.append(Period(start=start, end=last))
        return found


class Days(Period):
    """A period, or several: `[1979-1990, 1995-2015]`, ascending, each written as a `Period` or as `MonthsOfYears`."""

    parts: tuple[Period, ...] = ()
    """The periods; none where it is one, from `start` to `end`."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, Period) and not isinstance(value, Days):
            return {"start": value.start, "end": value.end}
        if not isinstance(value, list | tuple) and not _names_months(value):
            return _ends_of(value)
        parts = [part for one in (value if isinstance(value, list | tuple) else [value]) for part in _periods_of(one)]
        if not parts:
            raise ValueError("name at least one period, or leave the setting out")
        for one, two in pairwise(parts):
            if two.start <= one.end:
                raise ValueError(f"{two} does not come after {one}; write periods in order, none inside another")
        whole = {"start": parts[0].start, "end": parts[-1].end}
        return whole | ({"parts": parts} if len(parts) > 1 else {})

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        told: dict[str, Any] = handler(self)
        return told if self.parts else {key: value for key, value in told.items() if key != "parts"}

    def __str__(self) -> str:
        return _months_in_words(self.parts) or ", ".join(map(str, self.parts)) or super().__str__()

    @property
    def pieces(self) -> tuple[Period, ...]:
        """Periods without a break."""
        return self.parts or (self,)


def _names_months(value: Any) -> bool:
    return isinstance(value, Mapping) and bool({"years", "months", "season"} & value.keys())


def _periods_of(value: Any) -> list[Period]:
    """What one entry of a list of days means."""
    return MonthsOfYears.model_validate(value).periods if _names_months(value) else [Period.model_validate(value)]


def _months_in_words(parts: Sequence[Period]) -> str:
    """`DJF 1979-2015` of periods that are the same months of successive years; empty of any others."""
    if len(parts) < 2:
        return ""
    months = sorted({month for part in parts for month in _months_of(part)})
    first, last = parts[0].start.year, parts[-1].end.year
    if MonthsOfYears(years=Period.model_validate(f"{first}-{last}"), months=months).periods != list(parts):
        return ""
    season = next((name for name, own in _SEASONS.items() if sorted(own) == months), "")
    which = season or f"months {' '.join(map(str, months))} of"
    return f"{which} {first}" + (f"-{last}" if last > first else "")


def _months_of(part: Period) -> list[int]:
    count = 12 * (part.end.year - part.start.year) + part.end.month - part.start.month + 1
    return [(part.start.month - 1 + i) % 12 + 1 for i in range(min(count, 12))]


def _ends_of(value: Any) -> Any:
    """First and last day of a period that is written as text; anything else as it is."""
    if not isinstance(value, str | int | date):
        return value
    text = str(value).strip()  # YAML reads 2008-03-05 as a date
    years = re.fullmatch(r"(\d{4})\s*-\s*(\d{4})", text)
    parts = years.groups() if years else re.split(r"\s*/\s*", text)
    if len(parts) > 2 or not all(re.fullmatch(r"\d{4}(-\d\d){0,2}", part) for part in parts):
        raise ValueError("write a period as 2000-2007, 2008, 2008-03 or 2000-01-01/2000-06-30")
    return {"start": _days_of(parts[0])[0], "end": _days_of(parts[-1])[1]}


def _days_of(text: str) -> tuple[date, date]:
    """First and last day of a year, month or day."""
    year, month, day = [*map(int, text.split("-")), 0, 0][:3]
    first, last_month = date(year, month or 1, day or 1), month or 12
    return first, date(year, last_month, day or monthrange(year, last_month)[1])
