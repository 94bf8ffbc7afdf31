"""Inputs known at every time and place without data: position, time of day and year, sunlight (numpy only)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from weatherfm.earth.grid import Grid
from weatherfm.earth.solar import toa_solar_fraction
from weatherfm.errors import InputError

_TROPICAL_YEAR_DAYS = 365.2422


def _time_of_day(hours: np.ndarray, grid: Grid) -> np.ndarray:
    """[time, 1, lon] local mean solar time as an angle: midnight 0, noon pi."""
    return 2 * np.pi * (hours[:, None, None] / 24 + grid.longitude / 360)


def _time_of_year(hours: np.ndarray, grid: Grid) -> np.ndarray:
    """[time, 1, 1] angle from the start of 1970 in tropical years."""
    return (2 * np.pi * hours / 24 / _TROPICAL_YEAR_DAYS)[:, None, None]


def _toa_solar(hours: np.ndarray, grid: Grid) -> np.ndarray:
    """[time, lat, lon] sunlight at the top of the atmosphere at that instant, as a part of the solar constant."""
    return toa_solar_fraction(np.round(hours * 3600).astype("datetime64[s]"), grid)


_FIELDS: dict[str, Callable[[np.ndarray, Grid], np.ndarray]] = {
    "latitude": lambda hours, grid: grid.latitude[None, :, None] / 90,
    "sin_longitude": lambda hours, grid: np.sin(np.deg2rad(grid.longitude)),
    "cos_longitude": lambda hours, grid: np.cos(np.deg2rad(grid.longitude)),
    "sin_time_of_day": lambda hours, grid: np.sin(_time_of_day(hours, grid)),
    "cos_time_of_day": lambda hours, grid: np.cos(_time_of_day(hours, grid)),
    "sin_time_of_year": lambda hours, grid: np.sin(_time_of_year(hours, grid)),
    "cos_time_of_year": lambda hours, grid: np.cos(_time_of_year(hours, grid)),
    "toa_solar": _toa_solar,
}

FORCINGS: tuple[str, ...] = tuple(_FIELDS)
"""Names of all forcings. Values lie in [-1, 1], those of `toa_solar` in [0, 1.035]: none needs normalisation."""


CLOCK: tuple[str, ...] = ("sin_time_of_day", "sin_time_of_year", "cos_time_of_day", "cos_time_of_year")
"""What `clock` tells of a time. The day is Greenwich's."""


def clock(names: Sequence[str], times: np.ndarray) -> np.ndarray:
    """[time, name] float32 in [-1, 1] of `CLOCK` for datetime64 `times` [time] (UTC), one for the whole Earth."""
    turns = _hours(times)[:, None] / 24 / np.array([1, _TROPICAL_YEAR_DAYS])
    told = np.concatenate([np.sin(2 * np.pi * turns), np.cos(2 * np.pi * turns)], 1)
    return told[:, [CLOCK.index(name) for name in names]].astype(np.float32)


def require_place(names: Sequence[str], grid: Grid) -> None:
    """Refuse forcings of a plane of pixels, which has no place on Earth and no time of day.

    Raises:
        InputError: there are some.
    """
    if grid.plane and names:
        raise InputError(
            f"model.forcings names {', '.join(names)}, and the fields are pictures ({grid}), which lie nowhere on "
            "Earth and at no time of day; set model.forcings: []"
        )


def forcing_fields(names: Sequence[str], times: np.ndarray, grid: Grid) -> np.ndarray:
    """[time, forcing, lat, lon] float32 for datetime64 `times` [time] (UTC).

    Raises:
        InputError: the grid is a plane of pixels.
    """
    require_place(names, grid)
    hours = _hours(times)
    out = np.empty((len(times), len(names), *grid.shape), np.float32)
    for i, name in enumerate(names):
        out[:, i] = _FIELDS[name](hours, grid)
    return out


def _hours(times: np.ndarray) -> np.ndarray:
    """[time] since 1970."""
    hours: np.ndarray = times.astype("datetime64[s]").astype(np.int64) / 3600
    return hours
