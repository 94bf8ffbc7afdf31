"""What to ask of the Climate Data Store: pure functions from settings to requests, nothing is sent here."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from weatherfm.data_pipeline.config import DataConfig, RegridConfig
from weatherfm.data_pipeline.formats.orientation import orientation_of
from weatherfm.data_pipeline.source_config import CdsSource
from weatherfm.data_pipeline.time_axis import select_times
from weatherfm.errors import InputError
from weatherfm.grid import Grid
from weatherfm.variables import VARIABLES, Channel, parse_channel

SINGLE_LEVELS = "reanalysis-era5-single-levels"
PRESSURE_LEVELS = "reanalysis-era5-pressure-levels"
LEVELS = (
    1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 125, 150, 175, 200, 225, 250, 300, 350, 400, 450, 500, 550, 600, 650, 700,
    750, 775, 800, 825, 850, 875, 900, 925, 950, 975, 1000,
)  # fmt: skip
"""hPa on which ERA5 is published."""
FIRST_DAY = np.datetime64("1940-01-01")
"""Of ERA5."""

_UNPUBLISHED = ("ws", "ws10", "r2m")  # ERA5 leaves these to be computed
_HOUR = np.timedelta64(3600, "s")
_STATIC_TIME = np.array(["2000-01-01T00"], "datetime64[s]")  # of constant fields, the same for every store


@dataclass(frozen=True)
class Box:
    """Part of a regular grid that contains (0 N, 0 E): rows and columns counted in steps from there."""

    step: float
    """Degrees."""
    north: int
    west: int
    south: int
    east: int

    @classmethod
    def globe(cls, step: float) -> Box:
        """The whole Earth, both poles included."""
        quarter = round(90 / step)
        return cls(step, quarter, 0, -quarter, 4 * quarter - 1)

    @property
    def area(self) -> list[float]:
        """Degrees [north, west, south, east], as the store wants it."""
        return [round(index * self.step, 6) for index in (self.north, self.west, self.south, self.east)]

    @cached_property
    def grid(self) -> Grid:
        """Of the fields that come."""
        latitude = np.arange(self.north, self.south - 1, -1) * self.step
        return orientation_of(latitude, np.arange(self.west, self.east + 1) * self.step).grid


@dataclass(frozen=True)
class Request:
    """One request: one variable, at all its levels, in one month."""

    dataset: str
    variable: str
    """As the store calls it."""
    channels: tuple[str, ...]
    """Ours, that the answer holds."""
    levels: tuple[int, ...]
    """hPa; empty for a single-level variable."""
    month: str
    """As 2020-02."""
    days: tuple[int, ...]
    hours: tuple[int, ...]
    box: Box

    @property
    def label(self) -> str:
        """For a person."""
        return f"{self.variable} {self.month}"

    @cached_property
    def times(self) -> np.ndarray:
        """[time] datetime64[s]: every hour of every day asked for, ascending."""
        days = np.datetime64(self.month, "D") + np.array(self.days) - 1
        found: np.ndarray = (days.astype("datetime64[s]")[:, None] + np.array(self.hours) * _HOUR).ravel()
        return found

    @property
    def fields(self) -> int:
        """Horizontal fields in the answer."""
        return len(self.times) * len(self.channels)

    @cached_property
    def body(self) -> dict[str, Any]:
        """What is sent; GRIB, because it says of every field what it is, ERA5 or ERA5T included."""
        year, month = self.month.split("-")
        levels = {"pressure_level": [str(level) for level in self.levels]} if self.levels else {}
        area = {} if self.box == Box.globe(self.box.step) else {"area": self.box.area}
        return {
            "product_type": ["reanalysis"],
            "variable": [self.variable],
            **levels,
            "year": [year],
            "month": [month],
            "day": [f"{day:02d}" for day in self.days],
            "time": [f"{hour:02d}:00" for hour in self.hours],
            "data_format": "grib",
            "download_format": "unarchived",
            "grid": [self.box.step, self.box.step],
            **area,
        }

    @cached_property
    def name(self) -> str:
        """File name of the answer: equal for equal requests, different for all others."""
        sent = json.dumps([self.dataset, self.body], sort_keys=True)
        return f"{self.variable}_{self.month}_{hashlib.sha256(sent.encode()).hexdigest()[:16]}.grib"


def wanted_times(data: DataConfig) -> np.ndarray:
    """[time] datetime64[s] of the state, told from the settings alone.

    Raises:
        InputError: no period, one before ERA5, or a step that days cannot be cut into.
    """
    if data.period is None:
        raise InputError(
            "the Climate Data Store has ERA5 from 1940 to last week: say which days to ask for, e.g. data.period=2020"
        )
    if np.datetime64(data.period.start) < FIRST_DAY:
        raise InputError(f"ERA5 begins on {FIRST_DAY}, but data.period is {data.period}; choose later days")
    start, end = np.datetime64(data.period.start, "s"), np.datetime64(data.period.end, "s") + 24 * _HOUR
    return select_times(np.arange(start, end, _HOUR), data).times


def window_hours(channel: str, data: DataConfig) -> int:
    """Hourly fields in one value of a channel: 1 unless it is accumulated."""
    if not parse_channel(channel).variable.accumulated:
        return 1
    return data.accumulation or data.step or 1


def needed_times(times: np.ndarray, window: int) -> np.ndarray:
    """[hour] datetime64[s], ascending: the ends of all hours that sums over `window` hours ending at `times` take."""
    return np.unique(times[:, None] - np.arange(window) * _HOUR)


def is_published(name: str) -> bool:
    """True when the store has this channel."""
    channel = parse_channel(name)
    return channel.variable.short not in _UNPUBLISHED and (channel.level is None or channel.level in LEVELS)


def requests_for(data: DataConfig, channels: Sequence[str], box: Box, times: np.ndarray) -> list[Request]:
    """What these channels take at `times`, month by month and variable by variable.

    A month of one variable at all 37 levels is 27,528 fields: far below what the store allows in one request.

    Raises:
        InputError: a channel that ERA5 does not have.
    """
    by_variable: dict[str, list[Channel]] = {}
    for name in channels:
        channel = _checked(name)
        by_variable.setdefault(channel.variable.short, []).append(channel)
    found = []
    for levels in by_variable.values():
        hours = needed_times(times, window_hours(levels[0].name, data))
        months = hours.astype("datetime64[M]")
        found += [_request(levels, hours[months == month], box) for month in np.unique(months)]
    return sorted(found, key=lambda request: (request.month, request.variable, request.dataset))


def static_requests(names: Sequence[str], box: Box) -> list[Request]:
    """One request for each constant field, in the order of `names`."""
    return [_request([Channel(VARIABLES[name])], _STATIC_TIME, box) for name in names]


def box_of(data: DataConfig) -> Box:
    """The part of the store's grid that the settings need: `data.area`, wider where it will be regridded.

    Raises:
        InputError: a grid that does not reach the poles evenly, or an area that holds no points of it.
    """
    assert isinstance(data.source, CdsSource)
    step, globe = data.source.grid, Box.globe(data.source.grid)
    if abs(globe.north * step - 90) > 1e-9:
        raise InputError(f"90 is not a multiple of source.grid {step:g}; choose e.g. 0.25, 0.5, 1, 1.5 or 2.5")
    if data.area is None:
        return globe
    margin = 0 if data.regrid is None else math.ceil(_spacing(data.regrid) / step) + 1
    small = 1e-6  # a hundredth of a metre: an edge on a row of points keeps the row
    north = min(math.floor(data.area.north / step + small) + margin, globe.north)
    south = max(math.ceil(data.area.south / step - small) - margin, globe.south)
    west = math.ceil(data.area.west / step - small) - margin
    east = math.floor(data.area.east / step + small) + margin
    if east - west >= globe.east:
        west, east = globe.west, globe.east
    if north - south < 1 or east - west < 1:
        raise InputError(
            f"data.area holds {max(0, north - south + 1)} x {max(0, east - west + 1)} points of a grid of {step:g} "
            "degrees, and a field needs 2 x 2; widen it or lower source.grid"
        )
    return Box(step, north, west, south, east)


def _spacing(regrid: RegridConfig) -> float:
    """Degrees between points of the grid that is wanted."""
    return regrid.resolution if regrid.resolution is not None else 90 / (regrid.gaussian or 1)


def _checked(name: str) -> Channel:
    channel = parse_channel(name)
    if channel.variable.constant:
        raise InputError(f"{name} does not change with time and cannot be a channel; list it under data.static")
    if channel.level is not None and channel.level not in LEVELS:
        near = sorted(sorted(LEVELS, key=lambda level: abs(level - (channel.level or 0)))[:2])
        raise InputError(
            f"channel {name}: ERA5 has no level {channel.level} hPa; the nearest are {near[0]} and {near[1]}"
        )
    return channel


def _request(channels: Sequence[Channel], times: np.ndarray, box: Box) -> Request:
    """One request for `times` within one month; where their hours differ from day to day, for all of them."""
    variable = channels[0].variable
    days = times.astype("datetime64[D]")
    month = days[0].astype("datetime64[M]")
    hours = np.unique((times - days) // _HOUR)
    return Request(
        dataset=PRESSURE_LEVELS if variable.on_levels else SINGLE_LEVELS,
        variable="geopotential" if variable.short == "orography" else variable.era5,
        channels=tuple(sorted(channel.name for channel in channels)),
        levels=tuple(sorted(channel.level for channel in channels if channel.level is not None)),
        month=str(month),
        days=tuple(((np.unique(days) - month.astype("datetime64[D]")).astype(int) + 1).tolist()),
        hours=tuple(hours.astype(int).tolist()),
        box=box,
    )
