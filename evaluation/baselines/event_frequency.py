"""How often an event happens on training days by place, month and hour: the forecast of an event that knows no day.

A climatology's mean state says of hardly any event that it happens; its frequency is the reference that the Brier score
is held against (Wilks 2019, Statistical Methods in the Atmospheric Sciences, 4th ed., section 9.4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from weatherfm.data_pipeline.fields.time_axis import hour_of_day
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.evaluation.baselines.persistence_and_climatology import states_at, training_times
from weatherfm.evaluation.metrics.events import Event

_MOST = 300
"""States of a month and hour at most, evenly thinned: uncertainty of p adds p (1 - p) / 300 to the Brier score."""
_FEWEST = 10
"""Below which a frequency is unknown."""
_BATCH_BYTES = 64 * 2**20
"""Memory of the fields read at once."""


@dataclass(frozen=True, eq=False)
class EventFrequency:
    """Learned from training days; picklable."""

    hours: tuple[int, ...]
    """Of the day, UTC, that training days have."""
    probability: np.ndarray
    """[month, hour, event, lat, lon] float32, January first; NaN where it was not learned."""

    def at(self, valid_times: np.ndarray) -> np.ndarray:
        """[B, event, lat, lon] at datetime64 `valid_times` [B]; NaN at an hour that training days lack."""
        months = valid_times.astype("datetime64[M]").astype(np.int64) % 12
        found = np.full((len(valid_times), *self.probability.shape[2:]), np.nan, np.float32)
        for case, (month, hour) in enumerate(zip(months, hour_of_day(valid_times).tolist(), strict=True)):
            if hour in self.hours:
                found[case] = self.probability[month, self.hours.index(hour)]
        return found


def event_frequency(
    store: Store,
    events: Sequence[Event],
    months: Sequence[int],
    progress: Callable[[int], object] = lambda times: None,
) -> EventFrequency:
    """Learn the events' frequencies.

    Where the store's climatology is one mean over all days, so is the frequency, of each hour.

    Args:
        store: states and training days.
        events: of channels that the store has.
        months: 1 .. 12, those wanted; others stay NaN.
        progress: told the number of training times done with every month and hour.

    Raises:
        InputError: a value that is not finite.
    """
    hours = tuple(np.unique(hour_of_day(training_times(store))).tolist())
    channels = list(dict.fromkeys(event.channel for event in events))
    found = np.full((12, len(hours), len(events), *store.grid.shape), np.nan, np.float32)
    for (month, hour), times in times_learned_from(store, months).items():
        found[month - 1, hours.index(hour)] = _shares(store, events, channels, times)
        progress(len(times))
    return EventFrequency(hours, found)


def times_learned_from(store: Store, months: Sequence[int]) -> dict[tuple[int, int], np.ndarray]:
    """(Month 1 .. 12, hour of the day) -> training times [n] datetime64[s]; those with too few are left out."""
    known = training_times(store)
    of_month, hours = known.astype("datetime64[M]").astype(np.int64) % 12 + 1, hour_of_day(known)
    all_alike = store.climatology_window is None
    found = {}
    for month in months:
        for hour in np.unique(hours).tolist():
            times = known[((of_month == month) | all_alike) & (hours == hour)]
            times = times[:: max(1, -(-len(times) // _MOST))]
            if len(times) >= _FEWEST:
                found[month, hour] = times
    return found


def _shares(store: Store, events: Sequence[Event], channels: Sequence[str], times: np.ndarray) -> np.ndarray:
    """[event, lat, lon]: share of `times` at which each event happens."""
    counts = np.zeros((len(events), *store.grid.shape))
    batch = max(1, _BATCH_BYTES // (4 * len(channels) * int(np.prod(store.grid.shape))))
    for first in range(0, len(times), batch):
        fields = states_at(store, channels, times[first : first + batch])
        for e, event in enumerate(events):
            counts[e] += event.happens(fields[:, channels.index(event.channel)]).sum(0)
    return counts / len(times)
