"""Sums for the climatology, gathered while shards are written, so that the store need not be read again."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from weatherfm.data_pipeline.store.shard_layout import Block


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
