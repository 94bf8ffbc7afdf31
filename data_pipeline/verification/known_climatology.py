"""A few days of the climatology, computed again while the fields stream by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weatherfm.data_pipeline.fields.time_axis import hour_of_day
from weatherfm.data_pipeline.store.climatology import day_coordinate, day_index, window_weights
from weatherfm.data_pipeline.store.training_store import Store, open_array
from weatherfm.data_pipeline.verification.report import VerifyReport

_MOST_HOURS = 4
_RELATIVE = 1e-6
"""A float64 mean rounded to float32 is within 6e-8."""


@dataclass(frozen=True, eq=False)
class ClimatologySample:
    """Two days of year at up to four hours, and the weight that each time has in their means."""

    days: np.ndarray
    """[day] positions on the dayofyear dim."""
    hours: np.ndarray
    """[hour] positions on the hour dim."""
    weights: np.ndarray
    """[T, day] float64; 0 for times that are not averaged."""
    column: np.ndarray
    """[T] int64: position in `hours`, or -1."""

    @classmethod
    def of(cls, store: Store) -> ClimatologySample:
        """The first day of the year and the one in its middle."""
        n_days = len(day_coordinate(store.climatology_window))
        days = np.unique([0, n_days // 2])
        n_hours = len(store.climatology_hours)
        hours = np.unique(np.linspace(0, n_hours - 1, min(_MOST_HOURS, n_hours)).astype(np.int64))
        training = store.climatology_period.contains(store.times)
        weights = np.stack([_weights(store, day) for day in days], axis=1) * training[:, None]
        chosen = store.climatology_hours[hours]
        at = hour_of_day(store.times)
        found = np.minimum(np.searchsorted(chosen, at), len(chosen) - 1)
        return cls(days, hours, weights, np.where(chosen[found] == at, found, -1))

    @property
    def shape(self) -> tuple[int, int]:
        """(day, hour) sizes."""
        return len(self.days), len(self.hours)

    def add(self, sums: np.ndarray, positions: np.ndarray, fields: np.ndarray) -> None:
        """Add float64 `fields` [n, lat, lon] at `positions` to `sums` [day, hour, lat, lon]."""
        column = self.column[positions]
        for day in range(len(self.days)):
            weights = self.weights[positions, day]
            for hour in np.unique(column[(weights > 0) & (column >= 0)]):
                used = (weights > 0) & (column == hour)
                sums[day, hour] += np.tensordot(weights[used], fields[used], axes=1)

    def means(self, sums: np.ndarray) -> np.ndarray:
        """[day, hour, lat, lon] float64 from the sums over all times; NaN where no time has a weight."""
        counts = np.stack([self.weights[self.column == hour].sum(axis=0) for hour in range(len(self.hours))], axis=1)
        return np.divide(
            sums, counts[..., None, None], out=np.full_like(sums, np.nan), where=counts[..., None, None] > 0
        )


def compare_climatology(
    store: Store, report: VerifyReport, channel: int, sample: ClimatologySample, sums: np.ndarray
) -> None:
    """One channel of the stored climatology against what the data give."""
    stored = open_array(store.path, "climatology")
    days, hours = day_coordinate(store.climatology_window), store.climatology_hours
    largest = max(abs(store.minimum[channel]), abs(store.maximum[channel]))
    expected = sample.means(sums)
    mask = store.masks.get(store.channels[channel])
    for i, day in enumerate(sample.days):
        for j, hour in enumerate(sample.hours):
            held = stored[day, hour, channel].read().result()
            if mask is not None:
                held = held[~mask][:, None]
            error = np.abs(held - expected[i, j]).max()
            if not error <= _RELATIVE * largest:
                name = store.channels[channel]
                message = f"{name}, day {days[day]}, {hours[hour]:02d} UTC is off by {error:.3g}"
                report.error("climatology", message, kind="climatology", channel=name, value=float(error))


def _weights(store: Store, day: int) -> np.ndarray:
    """[T] weight that each time has in one day's mean, were it a training time."""
    if store.climatology_window is None:
        return np.ones(len(store.times))
    weights = window_weights(store.climatology_window)
    half = len(weights) // 2
    distance = (day_index(store.times, store.climatology_window) - day + 183) % 366 - 183
    return np.where(np.abs(distance) <= half, weights[np.clip(distance + half, 0, 2 * half)], 0)
