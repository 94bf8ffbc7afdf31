"""Mean of each day of year and hour over the training days (day-of-year window as in WeatherBench2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from weatherfm.data_pipeline.config import Period
from weatherfm.data_pipeline.fields.time_axis import day_of_year, hour_of_day
from weatherfm.errors import InputError

DAYS = 366


def window_weights(window: int) -> np.ndarray:
    """[window] triangle that is 1 on its day and 0 at both ends; a window of 1 is that day alone.

    Raises:
        InputError: an even or non-positive window.
    """
    if window < 1 or window % 2 == 0:
        raise InputError(
            f"climatology_window must be an odd number of days, got {window}; e.g. 61, or null for one mean"
        )
    half = window // 2
    return 1 - np.abs(np.arange(-half, half + 1)) / max(half, 1)


def day_coordinate(window: int | None) -> np.ndarray:
    """[dayofyear] int64: 1..366, or 0 alone for one mean over all days."""
    return np.array([0]) if window is None else np.arange(1, DAYS + 1)


def day_index(times: np.ndarray, window: int | None) -> np.ndarray:
    """[time] int64 positions on the dayofyear dim."""
    return np.zeros(len(times), np.int64) if window is None else day_of_year(times) - 1


def check_coverage(times: np.ndarray, hours: np.ndarray, window: int | None, period: Period) -> None:
    """Every day of year and hour must get data.

    Args:
        times: [time] datetime64 training times.
        hours: [hour] of the climatology.
        window: days, or None.
        period: named in the message.

    Raises:
        InputError: a day of year that the windowed mean of the training times leaves empty.
    """
    if window is None:
        return
    weights = window_weights(window)
    for hour in hours:
        counts = np.bincount(day_index(times[hour_of_day(times) == hour], window), minlength=DAYS)
        empty = np.flatnonzero(_smooth(counts[:, None], weights, slice(0, DAYS))[:, 0] <= 0)
        if len(empty):
            raise InputError(
                f"no training data for day of year {empty[0] + 1} at {hour:02d} UTC ({len(empty)} such days): "
                f"train ({period}) with climatology_window={window} does not cover the year; set "
                "climatology_window=null for one mean over all days, a larger window, or longer training"
            )


def accumulate(
    read: Callable[[np.ndarray], np.ndarray], indices: np.ndarray, days: np.ndarray, n_days: int, batch: int
) -> np.ndarray:
    """Sums by day of year.

    Args:
        read: store positions [n] -> fields [n, channel, lat, lon] float32.
        indices: [time] store positions of one hour's training times.
        days: [time] positions on the dayofyear dim.
        n_days: its length.
        batch: times to hold at once.

    Returns:
        sums [dayofyear, channel, lat, lon] float64.
    """
    sums: np.ndarray | None = None
    for start in range(0, len(indices), batch):
        part = slice(start, start + batch)
        fields = read(indices[part])
        if sums is None:
            sums = np.zeros((n_days, *fields.shape[1:]))
        for day, field in zip(days[part], fields, strict=True):
            sums[day] += field
    if sums is None:
        raise ValueError("a climatology needs at least one time; check_coverage should have said so")
    return sums


def windowed_means(
    sums: np.ndarray, counts: np.ndarray, window: int | None, rows: int
) -> Iterator[tuple[slice, np.ndarray]]:
    """Means over the window round the year, `rows` days at a time: (days, fields [day, channel, lat, lon] float32)."""
    weights = np.ones(1) if window is None else window_weights(window)
    for start in range(0, len(sums), rows):
        part = slice(start, min(start + rows, len(sums)))
        total = _smooth(counts[:, None, None, None], weights, part)
        means = _smooth(sums, weights, part)
        means /= total
        yield part, means.astype(np.float32)


def _smooth(values: np.ndarray, weights: np.ndarray, part: slice) -> np.ndarray:
    """Weighted sums over neighbouring days for the days in `part`, the year closed to a ring.

    Written as a loop in fixed order, not as a matrix product, whose last bits depend on the thread count.
    """
    half = len(weights) // 2
    days = np.arange(part.start, part.stop)
    result = np.zeros((len(days), *values.shape[1:]))
    for offset, weight in zip(range(-half, half + 1), weights, strict=True):
        if weight > 0:
            for row, day in enumerate((days + offset) % len(values)):
                result[row] += weight * values[day]
    return result
