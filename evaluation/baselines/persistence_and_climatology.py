"""Persistence and climatology, and the truth they share: each field is read once while time advances (numpy only)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from weatherfm.data_pipeline.fields.masks import zero_masked
from weatherfm.data_pipeline.fields.time_axis import over_leap_day, skipped_leap_days
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.errors import InputError


class FieldWindow:
    """Fields at a moving set of times, held between the first and the last lead time that need them.

    For one thread; what it gives may be used by others.

    Args:
        read: datetime64 [n] -> [n, channel, lat, lon].
    """

    def __init__(self, read: Callable[[np.ndarray], np.ndarray]) -> None:
        self._read = read
        self._fields: dict[np.datetime64, np.ndarray] = {}
        self.reads = 0
        """Fields read so far."""

    def at(self, times: np.ndarray) -> np.ndarray:
        """[n, channel, lat, lon] at datetime64 `times` [n]; not to be written to, it may be what the window holds."""
        missing = np.unique([time for time in times if time not in self._fields])
        if len(missing):
            block = self._read(missing)
            block.flags.writeable = False
            self._fields.update(zip(missing, block, strict=True))
            self.reads += len(missing)
            if np.array_equal(missing, times):
                return block
        if len(times) == 1:
            return self._fields[times[0]][None]
        return np.stack([self._fields[time] for time in times])

    def forget_before(self, time: np.datetime64) -> None:
        """Drop what is older than `time`."""
        for old in [held for held in self._fields if held < time]:
            del self._fields[old]


def truth(store: Store, channels: Sequence[str]) -> FieldWindow:
    """The store's own states. At an initial time this is the persistence forecast for every lead time.

    A field that is not finite is an InputError that names channel and time, as is a time the store lacks.
    """
    return FieldWindow(lambda times: states_at(store, channels, times))


def climatology(store: Store, channels: Sequence[str]) -> FieldWindow:
    """The store's climatology at the day of year and hour of each time."""
    return FieldWindow(lambda times: normals_at(store, channels, times))


def states_at(store: Store, channels: Sequence[str], times: np.ndarray) -> np.ndarray:
    """States [n, channel, lat, lon] at datetime64 `times` [n]; 0 at points of a mask.

    Raises:
        InputError: a value that is not finite, or a time that the store lacks.
    """
    fields = zero_masked(store.read(store.index_of(times), channels), channels, store.masks)
    _refuse_not_finite(fields, channels, times, f"the truth in {store.path}")
    return fields


def normals_at(store: Store, channels: Sequence[str], times: np.ndarray) -> np.ndarray:
    """Climatology [n, channel, lat, lon] at datetime64 `times` [n]; 0 at points of a mask.

    Raises:
        InputError: a value that is not finite, or an hour of day that the training days do not have.
    """
    fields = zero_masked(store.climatology_at(times, channels), channels, store.masks)
    _refuse_not_finite(fields, channels, times, f"the climatology in {store.path}")
    return fields


def training_times(store: Store) -> np.ndarray:
    """[time] datetime64[s]: what a baseline may be fitted on; none where the store names no training days."""
    train = store.periods.get("train")
    return store.times[:0] if train is None else store.times[train.contains(store.times)]


def training_starts(times: np.ndarray, spans: Sequence[int]) -> np.ndarray:
    """Those of `times` [time] from which every span (hours, earlier ones negative) ends in `times`.

    None of them goes over a leap day that the times skip.
    """
    ends = times[:, None] + np.asarray(spans, "timedelta64[h]")
    there = np.isin(ends, times) & ~over_leap_day(skipped_leap_days(times), times[:, None], ends)
    return times[there.all(1)]


def _refuse_not_finite(fields: np.ndarray, channels: Sequence[str], times: np.ndarray, what: str) -> None:
    finite = np.isfinite(fields).all((2, 3))  # [time, channel]
    if not finite.all():
        time, channel = np.argwhere(~finite)[0]
        raise InputError(
            f"{what} has a value that is not finite: {channels[channel]} at {times[time]}; check it with "
            "`weatherfm verify`, or score other channels"
        )
