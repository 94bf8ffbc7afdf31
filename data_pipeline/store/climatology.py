"""Mean of each day of year and hour over the training days (day-of-year window as in WeatherBench2)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from weatherfm.data_pipeline.fields.time_axis import day_of_year, hour_of_day
from weatherfm.data_pipeline.store.sharding import Block
from weatherfm.data_pipeline.store_config import Period
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


class ClimatologySums:
    """Sums by day of year and hour of every column of shards.

    Shards are finished in any order, but floating-point sums depend on theirs: each column takes its shards in
    the order of time, a shard that is early waits. They must be handed out in that order, or they wait for ever.

    Args:
        hours: [time] position of each time of the store on the hour dim, -1 for times that are not learned from.
        days: [time] their positions on the dayofyear dim.
        shape: (hours, days) of the climatology.
        fields: (channels, lat, lon) of each column of shards; all but the last have as many channels.
    """

    def __init__(
        self, hours: np.ndarray, days: np.ndarray, shape: tuple[int, int], fields: Sequence[tuple[int, int, int]]
    ) -> None:
        self._hours, self._days = hours, days
        self._sums = [np.zeros((*shape, *size)) for size in fields]  # [hour, day, channel, lat, lon] by column
        self._width = fields[0][0]
        self._next = [0] * len(fields)
        self._turn = threading.Condition()
        self._stopped = False

    def add(self, block: Block, values: np.ndarray) -> None:
        """Take a shard's `values` [time, channel, lat, lon], once all earlier ones of its column are taken."""
        with self._turn:
            self._turn.wait_for(lambda: self._stopped or self._next[block.column] == block.row)
            if self._stopped:
                return
        sums = self._sums[block.column]
        for position, field in zip(range(block.times.start, block.times.stop), values, strict=True):
            if self._hours[position] >= 0:
                sums[self._hours[position], self._days[position]] += field
        with self._turn:
            self._next[block.column] += 1
            self._turn.notify_all()

    def stop(self) -> None:
        """Let nobody wait for a shard that failed; the sums are worth nothing after that."""
        with self._turn:
            self._stopped = True
            self._turn.notify_all()

    def of(self, channels: slice, hour: int) -> np.ndarray:
        """[dayofyear, channel, lat, lon] float64 of channels of one column, complete when every shard was added."""
        column, first = divmod(channels.start, self._width)
        sums: np.ndarray = self._sums[column][hour][:, first : first + channels.stop - channels.start]
        return sums
