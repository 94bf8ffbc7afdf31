"""States that several models read at about the same time: from their place once, for all who ask for the same."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import numpy as np

from weatherfm.data_pipeline.store.states import States

_KEPT = 4
"""Reads: of two groups of initial times, the one in work and the next, what is started from and what is read ahead."""


class ReadOnce:
    """The same states, of which the last reads are kept; called from any number of threads.

    What it gives is shared: nobody may change it.
    """

    def __init__(self, states: States) -> None:
        self._states, self._lock = states, Lock()
        self._kept: dict[tuple[bytes, tuple[str, ...]], np.ndarray] = {}
        self.name, self.channels, self.grid, self.times = states.name, states.channels, states.grid, states.times
        self.numbers, self.simulated, self.source = states.numbers, states.simulated, states.source

    def read(self, times: np.ndarray, channels: Sequence[str]) -> np.ndarray:
        """[time, member, channel, lat, lon] float32 in canonical units at datetime64 `times` [time]."""
        key = (times.astype("datetime64[s]").tobytes(), tuple(channels))
        with self._lock:  # one read after the other: each has all threads of the store
            if key not in self._kept:
                self._kept[key] = self._states.read(times, channels)
                for oldest in list(self._kept)[:-_KEPT]:
                    del self._kept[oldest]
            return self._kept[key]
