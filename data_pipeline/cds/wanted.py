"""Which fields of ERA5 the settings need: for each channel of the store's the hours, pure functions of the settings."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from weatherfm.data_pipeline.fields.time_axis import name_times, select_times
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.earth.variables import Channel, parse_channel
from weatherfm.errors import InputError

Wanted = dict[str, np.ndarray]
"""Channel -> [hour] datetime64[s], ascending."""

LEVELS = (
    1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 125, 150, 175, 200, 225, 250, 300, 350, 400, 450, 500, 550, 600, 650, 700,
    750, 775, 800, 825, 850, 875, 900, 925, 950, 975, 1000,
)  # fmt: skip
"""hPa on which ERA5 is published."""
FIRST_DAY = np.datetime64("1940-01-01")
"""Of ERA5."""
FIRST_SUM = np.datetime64("1940-01-01T07", "s")
"""End of ERA5's first hourly sum: sums come from forecasts that start at 06 and 18 UTC, so a record lacks those of its
first seven hours (ECMWF's ERA5 documentation; seen at its former beginning in 1979: WeatherBench, issues 6 and 33)."""

_UNPUBLISHED = ("ws", "ws10", "r2m")  # ERA5 leaves these to be computed
_HOUR = np.timedelta64(3600, "s")
_STATIC_TIME = np.array(["2000-01-01T00"], "datetime64[s]")  # of constant fields, the same for every store
_log = logging.getLogger(__name__)


def wanted_times(data: DataConfig, channels: Sequence[str] = ()) -> np.ndarray:
    """[time] datetime64[s] of the state, told from the settings alone.

    Args:
        data: the settings.
        channels: what is asked of the store; sums among them have no value in ERA5's first hours.

    Raises:
        InputError: no period, one before ERA5, a step that days cannot be cut into, or sums that begin before ERA5
            (with `data.allow_gaps` these times are left out).
    """
    if data.period is None:
        raise InputError(
            "the Climate Data Store has ERA5 from 1940 to last week: say which days to ask for, e.g. data.period=2020"
        )
    if np.datetime64(data.period.start) < FIRST_DAY:
        raise InputError(f"ERA5 begins on {FIRST_DAY}, but data.period is {data.period}; choose later days")
    start, end = np.datetime64(data.period.start, "s"), np.datetime64(data.period.end, "s") + 24 * _HOUR
    times = select_times(np.arange(start, end, _HOUR), data).times
    return times[times >= _first_end(times, channels, data)]


def _first_end(times: np.ndarray, channels: Sequence[str], data: DataConfig) -> np.datetime64:
    """The first time that every channel has."""
    first = FIRST_DAY.astype("datetime64[s]")
    for name in channels:
        if not parse_channel(name).variable.accumulated:
            continue
        window = window_hours(name, data)
        end = FIRST_SUM + (window - 1) * _HOUR
        early = times[times < end]
        if len(early) and not data.allow_gaps:
            later = (end + 24 * _HOUR - np.timedelta64(1, "s")).astype("datetime64[D]")
            raise InputError(
                f"the {window}h sums of {name} at {name_times(early)} cannot be had: ERA5's first hourly sum ends at "
                f"{FIRST_SUM.astype('datetime64[h]')}; start data.period on {later}, or set data.allow_gaps to leave "
                "these times out"
            )
        if len(early):
            _log.warning("%d times left out: ERA5 begins after the %dh sums of %s at %s", len(early), window, name,
                         name_times(early))  # fmt: skip
        first = max(first, end) if len(early) else first
    return first


def wanted_fields(data: DataConfig, channels: Sequence[str], times: np.ndarray) -> Wanted:
    """The hours that each channel, and each constant field of the settings, takes for a state at `times`.

    Raises:
        InputError: a channel that ERA5 does not have.
    """
    hours: dict[int, np.ndarray] = {}
    found: Wanted = {}
    for name in channels:
        window = window_hours(_checked(name).name, data)
        if window not in hours:
            hours[window] = needed_times(times, window)
        found[name] = hours[window]
    return found | dict.fromkeys(data.static, _STATIC_TIME)


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
