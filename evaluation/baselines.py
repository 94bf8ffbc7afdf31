"""Persistence and climatology, and the truth they share: each field is read once while time advances (numpy only)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from weatherfm.data_pipeline.store import Store
from weatherfm.errors import InputError

BASELINES: tuple[str, ...] = ("persistence", "climatology")
"""Forecasts that every model is held against."""


class FieldWindow:
    """Fields at a moving set of times, held between the first and the last lead time that need them.

    Args:
        read: datetime64 [n] -> [n, channel, lat, lon].
    """

    def __init__(self, read: Callable[[np.ndarray], np.ndarray]) -> None:
        self._read = read
        self._fields: dict[np.datetime64, np.ndarray] = {}
        self.reads = 0
        """Fields read so far."""

    def at(self, times: np.ndarray) -> np.ndarray:
        """[n, channel, lat, lon] at datetime64 `times` [n]."""
        missing = np.unique([time for time in times if time not in self._fields])
        if len(missing):
            self._fields.update(zip(missing, self._read(missing), strict=True))
            self.reads += len(missing)
        return np.stack([self._fields[time] for time in times])

    def forget_before(self, time: np.datetime64) -> None:
        """Drop what is older than `time`."""
        for old in [held for held in self._fields if held < time]:
            del self._fields[old]


def truth(store: Store, channels: Sequence[str]) -> FieldWindow:
    """The store's own states. At an initial time this is the persistence forecast for every lead time.

    A field that is not finite is an InputError that names channel and time, as is a time the store lacks.
    """

    def read(times: np.ndarray) -> np.ndarray:
        fields = store.read(store.index_of(times), channels)
        _refuse_not_finite(fields, channels, times, f"the truth in {store.path}")
        return fields

    return FieldWindow(read)


def climatology(store: Store, channels: Sequence[str]) -> FieldWindow:
    """The store's climatology at the day of year and hour of each time."""

    def read(times: np.ndarray) -> np.ndarray:
        fields = store.climatology_at(times, channels)
        _refuse_not_finite(fields, channels, times, f"the climatology in {store.path}")
        return fields

    return FieldWindow(read)


def _refuse_not_finite(fields: np.ndarray, channels: Sequence[str], times: np.ndarray, what: str) -> None:
    finite = np.isfinite(fields).all((2, 3))  # [time, channel]
    if not finite.all():
        time, channel = np.argwhere(~finite)[0]
        raise InputError(
            f"{what} has a value that is not finite: {channels[channel]} at {times[time]}; check it with "
            "`weatherfm verify`, or score other channels"
        )
