"""Streams over the cases: every field is read once for all metrics, regions and periods.

Initial times pass in order, a block at a time; truth and climatology stay in memory while lead times need them. The
lead times of a block are scored side by side on threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.evaluation.baselines.names import BASELINES, DAMPED, PROBABILISTIC, RIDGE, name_of_mean
from weatherfm.evaluation.baselines.persistence_and_climatology import climatology, truth
from weatherfm.evaluation.baselines.probabilistic_climatology import ProbabilisticClimatology
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.metrics.events import frequency_means
from weatherfm.evaluation.metrics.gaussian import Gaussian
from weatherfm.evaluation.metrics.spectra import coefficients_of
from weatherfm.evaluation.scoring.case_statistics import Wanted, case_means, mean_field
from weatherfm.evaluation.scoring.fitted import Fitted, ToFit
from weatherfm.evaluation.scoring.sums_and_series import ScoredCases, months_of

_BLOCK_BYTES = 16 * 2**20
"""Memory of one block of initial times at one lead time, one forecast with all its members; at least one time."""

Means = dict[str, dict[str, np.ndarray]]
"""Forecast -> statistic -> [B, ...]."""


@dataclass(frozen=True, eq=False)
class Task:
    """What is scored on one group of channels; it may travel to other processes."""

    lead_times: tuple[int, ...]
    """Hours."""
    wanted: Wanted
    """Channels and metrics."""
    to_fit: ToFit = ToFit()  # noqa: RUF009 - frozen
    """What is fitted before."""
    members: int | None = None
    """Of the probabilistic climatology, if it is scored."""
    means: bool = False
    """The mean of every ensemble forecast is scored as a forecast of its own, too."""


class Scorer:
    """Scores all forecasts and baselines on one group of channels.

    Args:
        files: forecast -> file.
        store: truth and climatology.
        task: what is scored.
        fitted: what the task asks to be fitted.
        threads: lead times scored side by side.
    """

    def __init__(
        self, files: Mapping[str, ForecastFile], store: Store, task: Task, fitted: Fitted, threads: int = 1
    ) -> None:
        self._files, self._task, self._threads, self._masks = files, task, threads, store.masks
        self._fitted, self._wanted = fitted, replace(task.wanted, seeps=fitted.seeps)
        channels, members = task.wanted.channels, task.members
        self._states, self._normals = truth(store, channels), climatology(store, channels)
        self._sampled = None if members is None else ProbabilisticClimatology(store, channels, members)
        most = max([1, members or 1, *(file.members or 1 for file in files.values())])
        case_bytes = 4 * most * len(channels) * int(np.prod(store.grid.shape))
        self._block = max(1, _BLOCK_BYTES // case_bytes)

    @property
    def forecasts(self) -> tuple[str, ...]:
        """Names of all that is scored, in the order of the scores."""
        asked = {DAMPED: self._fitted.damped, RIDGE: self._fitted.ridge, PROBABILISTIC: self._sampled}
        files = [name for file in self._files for name in (file, self._mean_of(file)) if name]
        return (*files, *BASELINES, *(name for name, found in asked.items() if found is not None))

    def score(
        self, init_times: np.ndarray, done: Callable[[int], object] = lambda cases: None
    ) -> dict[str, ScoredCases]:
        """Score these initial times [case], ascending; called again with later ones it reads nothing twice.

        Args:
            init_times: datetime64[s].
            done: told the number of initial times of every block that is scored.
        """
        scored = {name: ScoredCases.empty(init_times, len(self._task.lead_times)) for name in self.forecasts}
        one_each = threadpool_limits(1, user_api="blas")  # threads of threads would wait for each other
        with one_each, ThreadPoolExecutor(self._threads, thread_name_prefix="evaluate") as pool:
            for first, lead_index, months, future in self._ahead(pool, init_times):
                for name, means in future.result().items():
                    scored[name].add(first, lead_index, months, means)
                if lead_index == len(self._task.lead_times) - 1:
                    done(len(months))
        return scored

    def _ahead(
        self, pool: ThreadPoolExecutor, init_times: np.ndarray
    ) -> Iterator[tuple[int, int, np.ndarray, Future[Means]]]:
        """Work in order, so much under way that no thread waits for the reading of truth."""
        running: deque[tuple[int, int, np.ndarray, Future[Means]]] = deque()
        for first in range(0, len(init_times), self._block):
            for lead_index, months, task in self._tasks(init_times[first : first + self._block]):
                running.append((first, lead_index, months, pool.submit(task)))
                if len(running) > self._threads:
                    yield running.popleft()
        yield from running

    def _tasks(self, inits: np.ndarray) -> Iterator[tuple[int, np.ndarray, Callable[[], Means]]]:
        """(lead index, months of the valid times, work) of a block; truth is read here, by one thread."""
        for window in (self._states, self._normals):
            window.forget_before(inits[0])
        now = self._states.at(inits)
        anomaly = now - self._normals.at(inits) if self._fitted.damped else None
        for lead_index, hours in enumerate(self._task.lead_times):
            valid = inits + np.timedelta64(hours, "h")
            months = months_of(valid)
            observed, normal = self._states.at(valid), self._normals.at(valid)
            given: dict[str, np.ndarray | Gaussian] = {"persistence": now, "climatology": normal}
            if self._fitted.damped and anomaly is not None:
                given[DAMPED] = self._fitted.damped.forecast(anomaly, normal, lead_index)
            if self._fitted.ridge:
                given[RIDGE] = self._fitted.ridge.forecast(inits, normal, lead_index)
            if self._sampled:
                given[PROBABILISTIC] = self._sampled.at(valid)
            yield lead_index, months, partial(self._means, inits, hours, given, observed, normal, months)

    def _means(
        self,
        inits: np.ndarray,
        hours: int,
        given: Mapping[str, np.ndarray | Gaussian],
        observed: np.ndarray,
        normal: np.ndarray,
        months: np.ndarray,
    ) -> Means:
        """All statistics of the cases from `inits` at one lead time; reads the forecasts."""
        wanted, found = self._wanted, {}
        waves = None if wanted.spectra is None else coefficients_of(observed, wanted.spectra)  # once for all forecasts
        for name, file in self._files.items():
            fields = file.read(file.positions(inits), hours, wanted.channels, self._masks)
            found[name] = case_means(name, fields, observed, normal, months, wanted, waves)
            if mean := self._mean_of(name):
                found[mean] = case_means(mean, mean_field(fields), observed, normal, months, wanted, waves)
        for name, baseline in given.items():
            found[name] = case_means(name, baseline, observed, normal, months, wanted)
        if (frequency := self._fitted.frequency) is not None:
            known = frequency.at(inits + np.timedelta64(hours, "h"))
            found["climatology"] |= frequency_means(known, observed, wanted.events, wanted.channels, wanted.weights)
        return found

    def _mean_of(self, name: str) -> str | None:
        """What the mean of this forecast is called, if it is scored."""
        return name_of_mean(name) if self._task.means and self._files[name].members else None
