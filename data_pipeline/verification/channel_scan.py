"""What one channel shows while its fields stream by: a few numbers a time, and sums for what is computed again.

Legend: n times of a part, m times before it, H latitudes, W longitudes, T all times of the store.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from weatherfm.data_pipeline.store.measures import PLAIN, Measure
from weatherfm.data_pipeline.store.statistics import ChannelStatistics, total
from weatherfm.data_pipeline.verification.known_climatology import ClimatologySample

SEASON_LATITUDE = 20.0
"""Degrees; poleward of it the seasons are sure."""
_PIECE_VALUES = 2**18
"""Values to compute with at once."""


@dataclass(frozen=True, eq=False)
class Frame:
    """What is the same for all channels of a store."""

    n_times: int
    training: np.ndarray
    """[T] bool."""
    shard_times: int
    """Times in one shard."""
    shard_channels: int
    """Channels in one shard."""
    weights: np.ndarray
    """[H * W] float64 cell areas, sum 1."""
    contrast: np.ndarray
    """[H * W] float64: area mean north of 20 N less that south of 20 S."""
    partners: Mapping[int, np.ndarray]
    """Hours of lead time, the tendency lead first -> [T] int64: position of the time so much earlier, or -1."""
    climatology: ClimatologySample | None
    """None where it is not computed again."""

    def over(self, points: np.ndarray) -> Frame:
        """The same for a channel that has values at some points alone, [lat, lon] bool."""
        some = points.ravel()
        weights = self.weights[some]
        contrast = self.contrast[some]
        for side in (contrast > 0, contrast < 0):
            contrast[side] /= abs(contrast[side].sum()) or 1.0
        return replace(self, weights=weights / weights.sum(), contrast=contrast)


@dataclass(frozen=True, eq=False)
class Part:
    """Some times and those just before them, of one channel."""

    positions: np.ndarray
    """[n] on the store's time axis, ascending."""
    window: np.ndarray
    """[m + n, H, W] float32; the last n are of `positions`."""
    follows: bool
    """True where the window is without holes: every field follows the one before it on the time axis."""

    def pieces(self) -> Iterator[Part]:
        """Parts of a few MiB, whose float64 copies stay in the processor's cache."""
        n, size = len(self.positions), max(1, _PIECE_VALUES // math.prod(self.window.shape[1:]))
        before = len(self.window) - n
        for start in range(0, n, size):
            stop = min(start + size, n)
            yield Part(self.positions[start:stop], self.window[: before + stop], self.follows)


class ChannelScan:
    """Series [T] and sums of one channel; 37 bytes a time.

    Args:
        frame: of all channels.
        shape: (lat, lon) of a field.
        measure: how the channel is counted; of one that has no value at some points the others are looked at, in one
            column.
    """

    def __init__(self, frame: Frame, shape: tuple[int, int], measure: Measure = PLAIN) -> None:
        self.mask = mask = None if measure.points is None else ~measure.points
        self.rows = np.arange(shape[0])  # row of the grid of each row that is looked at
        self.n_inside = np.zeros(frame.n_times, np.int64)  # values where the mask says that there are none
        if mask is not None:
            self.rows, frame = np.nonzero(~mask)[0], frame.over(~mask)
            shape = (len(self.rows), 1)
        self.frame, self.shape = frame, shape
        areas = None if measure.row_weights is None else measure.row_weights[self.rows]
        self.measure = replace(measure, points=None, row_weights=areas)
        n = frame.n_times
        self.low, self.high, self.mean, self.contrast, self.change = (np.full(n, np.nan, np.float32) for _ in range(5))
        self.seen = np.zeros(n, bool)
        self.n_bad = np.zeros(n, np.int64)
        self.bad_rows = np.zeros(shape[0], bool)
        self.trained: dict[int, ChannelStatistics] = {}
        self.all_days = ChannelStatistics.empty(1)  # as they are, each point once: for people
        self.tendencies = {lead: ChannelStatistics.empty(1) for lead in frame.partners}
        sample = frame.climatology
        self.sums = None if sample is None else np.zeros((*sample.shape, *shape))

    def add(self, part: Part) -> None:
        """Take in the next times."""
        if self.mask is not None:
            inside = part.window[-len(part.positions) :, self.mask]
            self.n_inside[part.positions] = (~np.isnan(inside)).sum(1)
            part = replace(part, window=part.window[:, ~self.mask][..., None])
        for piece in part.pieces():
            self._add_piece(piece)

    def _add_piece(self, part: Part) -> None:
        positions = part.positions
        fields = part.window[-len(positions) :]  # [n, H, W]
        self.seen[positions] = True
        if not np.isfinite(fields).all():
            self._add_damaged(positions, fields)
        else:
            exact = fields.astype(np.float64)
            self._add_series(positions, exact)
            self._add_statistics(positions, fields)
            if self.sums is not None:
                self.frame.climatology.add(self.sums, positions, exact)  # type: ignore[union-attr]
        if part.follows:
            self._add_changes(part)

    def _add_damaged(self, positions: np.ndarray, fields: np.ndarray) -> None:
        bad = ~np.isfinite(fields)
        self.n_bad[positions] = bad.sum(axis=(1, 2))
        self.bad_rows |= bad.any(axis=(0, 2))
        whole = ~bad.any(axis=(1, 2))
        self._add_series(positions[whole], fields[whole].astype(np.float64))
        some = np.flatnonzero(~whole & ~bad.all(axis=(1, 2)))
        for i in some:
            values = fields[i][~bad[i]]
            self.low[positions[i]], self.high[positions[i]] = values.min(), values.max()

    def _add_series(self, positions: np.ndarray, fields: np.ndarray) -> None:
        if not len(positions):
            return
        flat = fields.reshape(len(positions), -1)  # [n, H * W]
        self.low[positions], self.high[positions] = flat.min(axis=1), flat.max(axis=1)
        self.mean[positions] = flat @ self.frame.weights
        self.contrast[positions] = flat @ self.frame.contrast

    def _add_statistics(self, positions: np.ndarray, fields: np.ndarray) -> None:
        training = self.frame.training[positions]
        rows = positions // self.frame.shard_times
        for row in np.unique(rows[training]):
            learned = self.measure.of(fields[training & (rows == row)])
            self.trained[int(row)] = self.trained.get(int(row), ChannelStatistics.empty(1)) + learned
        self.all_days += ChannelStatistics.of(fields[:, None])

    def _add_changes(self, part: Part) -> None:
        n, m = len(part.positions), len(part.window) - len(part.positions)
        first = max(m, 1)  # the first time of the store follows nothing
        if m + n > first:
            step = (part.window[first:] - part.window[first - 1 : -1]).reshape(m + n - first, -1)
            self.change[part.positions[first - m :]] = np.sqrt(np.square(step.astype(np.float64)) @ self.frame.weights)
        for lead, partners in self.frame.partners.items():
            partner = partners[part.positions]
            later = np.flatnonzero(partner >= 0)
            if len(later):
                earlier = partner[later] - part.positions[0] + m
                self.tendencies[lead] += self.measure.of_changes(part.window, earlier, later + m)

    @cached_property
    def training(self) -> ChannelStatistics:
        """Of all training times, as the store's statistics are; asked for when all times were added."""
        return total((self.trained[row] for row in sorted(self.trained)), 1)

    @property
    def tendency(self) -> ChannelStatistics:
        """Of the change over the tendency lead."""
        return next(iter(self.tendencies.values()))

    @property
    def whole(self) -> bool:
        """True where every value was finite."""
        return not self.n_bad.any()
