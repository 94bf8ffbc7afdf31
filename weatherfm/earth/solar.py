"""Where the sun stands and what it sends to the top of the atmosphere (numpy only).

Legend: sun angles in radians; an hour angle is 0 when the sun stands in the south (or north) and grows by 2 pi a day.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weatherfm.earth.constants import SOLAR_CONSTANT
from weatherfm.earth.grid import Grid

_EPOCH = np.datetime64("2000-01-01T12:00:00", "s")  # J2000


@dataclass(frozen=True, eq=False)
class SunPosition:
    """The sun as seen from the centre of the Earth, [time] float64 each."""

    declination: np.ndarray
    """Radians north of the equator."""
    equation_of_time: np.ndarray
    """Radians that the true sun runs ahead of the mean sun (2 pi is a day)."""
    distance: np.ndarray
    """Astronomical units."""


def sun_position(times: np.ndarray) -> SunPosition:
    """Position of the sun at datetime64 `times` [time] (UTC).

    The low-precision solar coordinates of the Astronomical Almanac (page C5): right within 0.01 degrees and 0.1
    minutes of time from 1950 to 2050, and little worse a century around.
    """
    days = (times.astype("datetime64[s]") - _EPOCH).astype(np.float64) / 86400
    mean_longitude = np.deg2rad((280.460 + 0.9856474 * days) % 360)
    anomaly = np.deg2rad((357.528 + 0.9856003 * days) % 360)
    longitude = mean_longitude + np.deg2rad(1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))
    obliquity = np.deg2rad(23.439 - 4e-7 * days)
    ascension = np.arctan2(np.cos(obliquity) * np.sin(longitude), np.cos(longitude))
    return SunPosition(
        declination=np.arcsin(np.sin(obliquity) * np.sin(longitude)),
        equation_of_time=_wrap(mean_longitude - ascension),
        distance=1.00014 - 0.01671 * np.cos(anomaly) - 0.00014 * np.cos(2 * anomaly),
    )


def toa_solar_fraction(times: np.ndarray, grid: Grid) -> np.ndarray:
    """[time, lat, lon] sunlight on a level surface at the top of the atmosphere, by `SOLAR_CONSTANT`.

    The value at that instant and point: cos(zenith angle) / distance^2, zero at night; at most 1.035, in January.
    """
    sun = sun_position(times)
    rise, swing = _elevation_terms(sun, grid)
    cosine = rise + swing * np.cos(_hour_angle(times, sun)[:, None, None] + np.deg2rad(grid.longitude))
    lit: np.ndarray = np.maximum(cosine, 0) / sun.distance[:, None, None] ** 2
    return lit


def toa_incident_solar_radiation(times: np.ndarray, grid: Grid, hours: int) -> np.ndarray:
    """[time, lat, lon] float64 J m-2 that arrived in the `hours` that end at datetime64 `times` [time] (UTC).

    ERA5's `tisr`, whose hours also end at their time. Each hour is integrated exactly over the sun's path, with
    its declination and distance at half past.
    """
    total = np.zeros((len(times), *grid.shape))
    ends = times.astype("datetime64[s]")
    for hour in range(hours):
        total += _hour_fraction(ends - np.timedelta64(hours - hour, "h"), grid)
    return SOLAR_CONSTANT * 3600 * total


def _hour_fraction(starts: np.ndarray, grid: Grid) -> np.ndarray:
    """[time, lat, lon] mean of `toa_solar_fraction` over the hour from `starts` on."""
    middle = sun_position(starts + np.timedelta64(1800, "s"))
    rise, swing = _elevation_terms(middle, grid)
    ends = starts + np.timedelta64(3600, "s")
    first = _hour_angle(starts, sun_position(starts))
    turned = _wrap(_hour_angle(ends, sun_position(ends)) - first)
    # half the day's length: 0 in polar night, pi in polar day; at a pole `swing` is 0 but for rounding
    ratio = np.divide(-rise, swing, out=-np.sign(rise) * np.ones_like(swing), where=swing > 1e-12)
    sunset = np.arccos(np.clip(ratio, -1, 1))
    begin = first[:, None, None] + np.deg2rad(grid.longitude)
    end = begin + turned[:, None, None]
    lit = _light_since_noon(end, rise, swing, sunset) - _light_since_noon(begin, rise, swing, sunset)
    fraction: np.ndarray = lit / (turned * middle.distance**2)[:, None, None]
    return fraction


def _light_since_noon(angle: np.ndarray, rise: np.ndarray, swing: np.ndarray, sunset: np.ndarray) -> np.ndarray:
    """Integral of max(0, rise + swing cos h) for h from 0 to `angle`, of any size."""
    turns = np.floor((angle + np.pi) / (2 * np.pi))
    today = np.clip(angle - 2 * np.pi * turns, -sunset, sunset)
    integral: np.ndarray = 2 * turns * (rise * sunset + swing * np.sin(sunset)) + rise * today + swing * np.sin(today)
    return integral


def _elevation_terms(sun: SunPosition, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """[time, lat, 1] a and b of cos(zenith angle) = a + b cos(hour angle)."""
    latitude = np.deg2rad(grid.latitude)[None, :, None]
    declination = sun.declination[:, None, None]
    return np.sin(latitude) * np.sin(declination), np.cos(latitude) * np.cos(declination)


def _hour_angle(times: np.ndarray, sun: SunPosition) -> np.ndarray:
    """[time] at Greenwich."""
    seconds = (times.astype("datetime64[s]") - times.astype("datetime64[D]")).astype(np.float64)
    angle: np.ndarray = 2 * np.pi * seconds / 86400 - np.pi + sun.equation_of_time
    return angle


def _wrap(angle: np.ndarray) -> np.ndarray:
    """The same angle in [-pi, pi)."""
    wrapped: np.ndarray = (angle + np.pi) % (2 * np.pi) - np.pi
    return wrapped
