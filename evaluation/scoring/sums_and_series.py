"""What the scored cases of one forecast add up to, in memory and as the file of a finished part of the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np

from weatherfm.evaluation.metrics.case_sums import AggregationState
from weatherfm.evaluation.scoring.case_statistics import STATISTIC_DIMS
from weatherfm.evaluation.scoring.sealed_arrays import read_sealed, write_sealed

MONTHS = 12
SERIES: tuple[str, ...] = ("squared_error", "crps_skill", "crps_spread")
"""Statistics whose every case is kept: tests of significance need them in order of time."""


@dataclass(frozen=True, eq=False)
class ScoredCases:
    """Sums by month of the valid time, and series of cases; `+` merges other initial times in, in any order."""

    state: AggregationState
    """Groups are the months."""
    init_times: np.ndarray
    """[case] datetime64[s], ascending."""
    series: dict[str, np.ndarray]
    """Statistic -> [case, lead, region, channel] float64; float32 would do for the test, not for merging exactly."""

    @classmethod
    def empty(cls, init_times: np.ndarray, lead_times: int) -> ScoredCases:
        """No case yet of these initial times."""
        return cls(AggregationState(MONTHS, lead_times), init_times, {})

    def add(self, first: int, lead_index: int, months: np.ndarray, means: dict[str, np.ndarray]) -> None:
        """Add the cases [B] from the initial time at position `first` on; `months` 1 .. 12 of their valid times."""
        self.state.add(lead_index, months - 1, means)
        for name in SERIES:
            if name in means:
                shape = (len(self.init_times), self.state.cases.shape[1], *means[name].shape[1:])
                held = self.series.setdefault(name, np.full(shape, np.nan))
                held[first : first + len(months), lead_index] = means[name]

    def __add__(self, other: ScoredCases) -> ScoredCases:
        """Both sets of initial times.

        Raises:
            ValueError: an initial time in both, or states of different statistics or shapes.
        """
        if len(twice := np.intersect1d(self.init_times, other.init_times)):
            raise ValueError(f"{len(twice)} initial times, the first {twice[0]}, are in both parts; score each once")
        times = np.concatenate([self.init_times, other.init_times])
        order = np.argsort(times)
        series = {name: np.concatenate([self.series[name], other.series[name]])[order] for name in self.series}
        return ScoredCases(self.state + other.state, times[order], series)


def merge(parts: Sequence[dict[str, ScoredCases]]) -> dict[str, ScoredCases]:
    """Forecast -> all of its cases."""
    return {name: reduce(add, [part[name] for part in parts]) for name in parts[0]}


def join_channel_groups(parts: Sequence[ScoredCases]) -> ScoredCases:
    """The same cases of several groups of channels as one."""
    state = AggregationState(*parts[0].state.cases.shape)
    state.cases = parts[0].state.cases
    state.sums = _side_by_side([part.state.sums for part in parts])
    return ScoredCases(state, parts[0].init_times, _side_by_side([part.series for part in parts]))


def months_of(times: np.ndarray) -> np.ndarray:
    """1 .. 12 of datetime64 times."""
    return times.astype("datetime64[M]").astype(np.int64) % MONTHS + 1


def save_part(path: Path, part: Mapping[str, ScoredCases], seal: bytes = b"") -> None:
    """Write a finished part, whole or not at all, with a checksum over `seal`, which says what it is of, and itself."""
    arrays: dict[str, np.ndarray] = {}
    for i, (name, scored) in enumerate(part.items()):
        arrays |= {f"{i}/name": np.array(name), f"{i}/cases": scored.state.cases, f"{i}/times": scored.init_times}
        arrays |= {f"{i}/sums/{statistic}": values for statistic, values in scored.state.sums.items()}
        arrays |= {f"{i}/series/{statistic}": values for statistic, values in scored.series.items()}
    write_sealed(path, arrays, seal)


def load_part(path: Path, seal: bytes = b"") -> dict[str, ScoredCases]:
    """Inverse of `save_part`.

    Raises:
        ValueError: it was changed since, or is of something else.
        OSError: it cannot be read.
    """
    arrays = read_sealed(path, seal)
    part: dict[str, ScoredCases] = {}
    for i in range(sum(name.endswith("/name") for name in arrays)):
        state = AggregationState(*arrays[f"{i}/cases"].shape)
        state.cases = arrays[f"{i}/cases"]
        state.sums = _named(arrays, f"{i}/sums/")
        part[str(arrays[f"{i}/name"])] = ScoredCases(state, arrays[f"{i}/times"], _named(arrays, f"{i}/series/"))
    return part


def _named(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): values for key, values in arrays.items() if key.startswith(prefix)}


def _side_by_side(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Statistics along their channels or events, after the two leading dims; one that has neither is in one part."""
    joined = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        found = [part[name] for part in parts if name in part]
        dims = STATISTIC_DIMS[name]
        apart = next((2 + dims.index(dim) for dim in ("channel", "event") if dim in dims), None)
        joined[name] = found[0] if apart is None else np.concatenate(found, axis=apart)
    return joined
