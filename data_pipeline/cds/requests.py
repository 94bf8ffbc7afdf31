"""One request to the Climate Data Store: what is sent, and how it is cut when it is too large."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from weatherfm.data_pipeline.cds.box import NATIVE_STEP, Box
from weatherfm.earth.variables import VARIABLES, parse_channel

SINGLE_LEVELS = "reanalysis-era5-single-levels"
PRESSURE_LEVELS = "reanalysis-era5-pressure-levels"

_HOUR = np.timedelta64(3600, "s")
_NAMED = 2
"""Variables that a label names; further ones are counted."""
_PACKED_BITS = 16
"""Of a point in ERA5's GRIB files."""
_HEADER = 200
"""Bytes of a GRIB message beside its points, about."""


@dataclass(frozen=True)
class Request:
    """Some variables of one data set, each at the same levels, days and hours of one month."""

    dataset: str
    variables: tuple[str, ...]
    """Short names of ours."""
    levels: tuple[int, ...]
    """hPa; empty in the data set of single levels."""
    month: str
    """As 2020-02."""
    days: tuple[int, ...]
    hours: tuple[int, ...]
    box: Box

    @property
    def label(self) -> str:
        """For a person."""
        names = [store_name(short) for short in self.variables]
        more = len(names) - _NAMED
        return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "") + f" {self.month}"

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """Ours, that the answer holds."""
        return channels_of(self.variables, self.levels)

    @cached_property
    def times(self) -> np.ndarray:
        """[time] datetime64[s]: every hour of every day asked for, ascending."""
        return product_of(self.month, self.days, self.hours)

    @property
    def fields(self) -> int:
        """Horizontal fields in the answer, which is what the store counts."""
        return len(self.times) * len(self.variables) * max(1, len(self.levels))

    @property
    def bytes(self) -> int:
        """Of the answer, about."""
        return self.fields * field_bytes(self.box)

    @cached_property
    def body(self) -> dict[str, Any]:
        """What is sent; GRIB, because it says of every field what it is, ERA5 or ERA5T included."""
        year, month = self.month.split("-")
        levels = {"pressure_level": [str(level) for level in self.levels]} if self.levels else {}
        area = {} if self.box == Box.globe(self.box.step) else {"area": self.box.area}
        return {
            "product_type": ["reanalysis"],
            "variable": [store_name(short) for short in self.variables],
            **levels,
            "year": [year],
            "month": [month],
            "day": [f"{day:02d}" for day in self.days],
            "time": [f"{hour:02d}:00" for hour in self.hours],
            "data_format": "grib",
            "download_format": "unarchived",
            **_grid(self.box.step),
            **area,
        }

    @cached_property
    def name(self) -> str:
        """Begin of the file name of the answer: equal for equal requests, different for all others."""
        sent = json.dumps([self.dataset, self.body], sort_keys=True)
        what = store_name(self.variables[0]) if len(self.variables) == 1 else self.dataset.removeprefix("reanalysis-")
        return f"{what}_{self.month}_{hashlib.sha256(sent.encode()).hexdigest()[:16]}"

    def halves(self) -> tuple[Request, ...]:
        """Two requests that together ask the same, cut by days, else by variables, levels, hours; itself if one field.

        Days come first: then each part still has all that the archive keeps together, which is by month and day.
        """
        for part in ("days", "variables", "levels", "hours"):
            values = getattr(self, part)
            if len(values) > 1:
                middle = (len(values) + 1) // 2
                changes: tuple[dict[str, Any], ...] = ({part: values[:middle]}, {part: values[middle:]})
                return tuple(replace(self, **change) for change in changes)
        return (self,)

    def cut(self, most: int) -> list[Request]:
        """Requests of `most` fields each, or fewer, that together ask the same."""
        if self.fields <= most or len(parts := self.halves()) == 1:
            return [self]
        return [small for part in parts for small in part.cut(most)]


def _grid(step: float) -> dict[str, str]:
    """The key `grid`, if it is needed.

    The store counts what a request costs before it takes it, by multiplying the lengths of the lists in it: `grid` as
    the list [0.25, 0.25] therefore doubles the cost, and requests that pass without it come back with 403 "cost limits
    exceeded"; as one text "0.25/0.25" they pass (seen by users: ecmwf/cdsapi issue 113, ArcticSnow/TopoPyScale issue
    113, both 2024). ERA5's own grid is what comes without the key.
    """
    return {} if step == NATIVE_STEP else {"grid": f"{step:.10g}/{step:.10g}"}


def product_of(month: str, days: Sequence[int], hours: Sequence[int]) -> np.ndarray:
    """[time] datetime64[s]: every one of `hours` on every one of `days` (from 1) of a month such as 2020-02."""
    first = np.datetime64(month, "D") + np.array(days) - 1
    found: np.ndarray = (first.astype("datetime64[s]")[:, None] + np.array(hours) * _HOUR).ravel()
    return found


def channels_of(variables: Sequence[str], levels: Sequence[int]) -> tuple[str, ...]:
    """Ours, of variables by their short names at these levels in hPa, or at single levels where there are none.

    The wind at 10 hPa has no name: u10 is the one at 10 m.
    """
    if not levels:
        return tuple(variables)
    names = [f"{short}{level}" for short in variables for level in levels]
    return tuple(name for name in names if parse_channel(name).variable.on_levels)


def store_name(short: str) -> str:
    """What the store calls a variable of ours."""
    return "geopotential" if short == "orography" else VARIABLES[short].era5


def field_bytes(box: Box) -> int:
    """About what one field takes in a file."""
    return int(np.prod(box.grid.shape)) * _PACKED_BITS // 8 + _HEADER
