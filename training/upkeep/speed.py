"""How fast training goes, and how much of its time is spent waiting for data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Speed:
    """Clocks of the steps since the last report; validations and checkpoints do not count."""

    def __init__(self) -> None:
        self._samples, self._busy, self._waited = 0, 0.0, 0.0

    @contextmanager
    def step(self, samples: int) -> Iterator[None]:
        """Around a whole step, waiting for its data included."""
        start = time.perf_counter()
        yield
        self._busy += time.perf_counter() - start
        self._samples += samples

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the wait for data, inside `step`."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def take(self) -> dict[str, float]:
        """Samples a second and the share of time spent waiting since the last call."""
        report = {"samples_per_second": self._samples / self._busy, "data_wait_share": self._waited / self._busy}
        self._samples, self._busy, self._waited = 0, 0.0, 0.0
        return report
