"""Sums over cases of spatial means: what any split of the work adds up to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


class AggregationState:
    """Sums of statistics over cases, apart for groups of cases (months) and lead times; `+` merges other cases in.

    Args:
        groups: how many groups the cases fall into.
        lead_times: how many there are.
    """

    def __init__(self, groups: int, lead_times: int) -> None:
        self.sums: dict[str, np.ndarray] = {}
        """Statistic -> [group, lead, ...] float64."""
        self.cases: np.ndarray = np.zeros((groups, lead_times), np.int64)
        """[group, lead]: how many cases each sum holds."""

    def add(self, lead_index: int, groups: np.ndarray, means: Mapping[str, np.ndarray]) -> None:
        """Add cases of one lead time.

        Args:
            lead_index: which.
            groups: [B] the group of each case.
            means: statistic -> [B, ...].

        Raises:
            ValueError: other statistics, or statistics of other shapes, than those of the cases so far.
        """
        if not self.sums:
            self.sums = {name: np.zeros((*self.cases.shape, *values.shape[1:])) for name, values in means.items()}
        _refuse_other({name: values.shape[2:] for name, values in self.sums.items()}, means, 1)
        for name, values in means.items():
            for group in np.unique(groups):
                self.sums[name][group, lead_index] += values[groups == group].sum(0)
        np.add.at(self.cases[:, lead_index], groups, 1)

    def __add__(self, other: AggregationState) -> AggregationState:
        """The state of both sets of cases.

        Raises:
            ValueError: states of different statistics or shapes.
        """
        if self.cases.shape != other.cases.shape:
            shapes = (self.cases.shape, other.cases.shape)
            raise ValueError(f"states of shapes {shapes} [group, lead] do not belong together")
        if self.sums and other.sums:
            _refuse_other({name: values.shape[2:] for name, values in self.sums.items()}, other.sums, 2)
        merged = AggregationState(*self.cases.shape)
        merged.cases = self.cases + other.cases
        only = self.sums or other.sums
        both = self.sums and other.sums
        merged.sums = {name: self.sums[name] + other.sums[name] if both else only[name].copy() for name in only}
        return merged


def mean_over_cases(sums: np.ndarray, cases: np.ndarray) -> np.ndarray:
    """Sums [group, lead, ...] divided by cases [group, lead]; NaN where there is none."""
    count = np.where(cases > 0, cases, np.nan)
    return sums / count.reshape(*count.shape, *[1] * (sums.ndim - count.ndim))


def _refuse_other(held: Mapping[str, tuple[int, ...]], given: Mapping[str, np.ndarray], leading: int) -> None:
    if held.keys() != given.keys():
        odd = sorted(held.keys() ^ given.keys())
        raise ValueError(
            f"only some of the cases have {', '.join(odd)}; score all of them alike (climatology, members)"
        )
    for name, values in given.items():
        if values.shape[leading:] != held[name]:
            shapes = f"{held[name]} and {values.shape[leading:]}"
            raise ValueError(f"{name} of shapes {shapes} a case do not belong together")
