"""A sum over the span that a store wants, put together from the sums that files hold.

A field is the sum from its start to its end. Going back from the wanted end, fields are added one before the other;
where the last of them begins too early, as sums since 00 UTC or since the start of a forecast do, the field of the same
start that ends at the wanted start is taken off: 06-12 UTC is 00-12 UTC less 00-06 UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

_NONE = -1
_MOST = 10_000


@dataclass(frozen=True, eq=False)
class Terms:
    """Fields whose sum, with their signs, is each wanted sum."""

    rows: np.ndarray
    """[end, term] int64 positions among the fields, forward in time; the last one ends at the wanted end."""
    signs: np.ndarray
    """[end, term] int8: 1 added, -1 taken off, 0 not needed (its row stands for no field of its own)."""
    complete: np.ndarray
    """[end] bool: nothing is missing."""
    early: np.ndarray
    """[end] bool: not complete, because it begins before the files do."""


@dataclass(frozen=True, eq=False)
class HeldSums:
    """All fields of one accumulated channel, as int64 seconds; sorted, so that the best of an end comes first."""

    ends: np.ndarray
    starts: np.ndarray
    runs: np.ndarray
    """Start of the forecast that a field is of; the smallest integer where the file does not say."""
    chosen: np.ndarray
    """[field] bool: of the lead time asked for; all where none is."""
    order: np.ndarray
    """[field] positions of the sorted fields in the order they were given in."""

    @classmethod
    def of(cls, times: np.ndarray, hours: np.ndarray, leads: np.ndarray, chosen: np.ndarray) -> HeldSums:
        """Of fields [field] that end at datetime64 `times` and span `hours`; fields over no time are left out."""
        ends = times.astype("datetime64[s]").astype(np.int64)
        starts = ends - np.round(hours * 3600).astype(np.int64)
        told = ~np.isnan(leads)
        unknown = np.iinfo(np.int64).min
        runs = np.where(told, ends - np.round(np.where(told, leads, 0) * 3600).astype(np.int64), unknown)
        order = np.lexsort((starts, -np.maximum(runs, unknown + 1), ends))
        order = order[starts[order] < ends[order]]
        return cls(ends[order], starts[order], runs[order], chosen[order], order)

    def terms(self, wanted: np.ndarray, span: int, first: int) -> Terms:
        """Fields whose sum spans the `span` seconds before each datetime64 in `wanted`.

        Args:
            wanted: [end] datetime64, ascending.
            span: seconds.
            first: int64 seconds, the end of the first field that any file holds.
        """
        ends = wanted.astype("datetime64[s]").astype(np.int64)
        start, at = ends - span, ends.copy()
        run = np.full(len(ends), _NONE)
        open_, stuck = np.ones(len(ends), bool), np.zeros(len(ends), bool)
        near = np.zeros(len(ends), bool)
        columns: list[tuple[np.ndarray, int]] = []
        while open_.any() and len(columns) < _MOST:
            here = np.flatnonzero(open_)
            row, less, held = self._before(at[here], start[here], run[here])
            columns.append((_column(len(ends), here, row), 1))
            if (less != _NONE).any():
                columns.append((_column(len(ends), here, less), -1))
            lost = row == _NONE
            stuck[here[lost]], near[here[lost]] = True, held[lost]
            at[here] = np.where(lost, at[here], np.maximum(self.starts[row], start[here]))
            run[here] = np.where(lost, run[here], row)
            open_[here] = ~lost & (at[here] > start[here])
        rows = np.stack([column for column, _ in reversed(columns)], axis=1)
        signs = np.where(rows == _NONE, 0, np.array([sign for _, sign in reversed(columns)], np.int8)).astype(np.int8)
        early = stuck & (start < first) & (near | (at <= first))
        filled = np.where(rows == _NONE, rows[:, -1:], rows)
        return Terms(self.order[filled], signs, ~stuck, early)

    def _before(
        self, at: np.ndarray, start: np.ndarray, before: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(field that ends `at`, field to take off it or -1, whether any field ends `at`) of each unfinished sum.

        A field that begins at `start` or later comes before one that begins too early; of several, the first in order,
        but with a lead time chosen, one of the same run as the field `before`.
        """
        low, high = np.searchsorted(self.ends, at, "left"), np.searchsorted(self.ends, at, "right")
        whole, same, row, less = (np.full(len(at), _NONE) for _ in range(4))
        for k in range(int((high - low).max(initial=0))):
            candidate = np.minimum(low + k, len(self.ends) - 1)
            of_run = (before != _NONE) & (self.runs[candidate] == self.runs[before])
            usable = (low + k < high) & (of_run | self.chosen[candidate])
            fits = usable & (self.starts[candidate] >= start)
            whole = np.where(fits & (whole == _NONE), candidate, whole)
            same = np.where(fits & of_run & (same == _NONE), candidate, same)
            for i in np.flatnonzero(usable & ~fits & (whole == _NONE)):
                self._take_off(row, less, int(i), int(candidate[i]), int(start[i]))
        if not self.chosen.all():
            whole = np.where(same != _NONE, same, whole)
        found = whole != _NONE
        return np.where(found, whole, row), np.where(found, _NONE, less), high > low

    def _take_off(self, row: np.ndarray, less: np.ndarray, i: int, candidate: int, start: int) -> None:
        """Note the difference of two fields of a run for sum `i`; of several, the one with the shortest fields."""
        key = (start, int(self.starts[candidate]), int(self.runs[candidate]))
        taken = self._companions.get(key, _NONE)
        same_run = row[i] == _NONE or self.runs[row[i]] == self.runs[candidate]
        if taken != _NONE and same_run:
            row[i], less[i] = candidate, taken

    @cached_property
    def _companions(self) -> dict[tuple[int, int, int], int]:
        """(end, start, run) -> field."""
        keys = zip(self.ends.tolist(), self.starts.tolist(), self.runs.tolist(), strict=True)
        return {key: row for row, key in enumerate(keys)}


def _column(length: int, where: np.ndarray, rows: np.ndarray) -> np.ndarray:
    column = np.full(length, _NONE)
    column[where] = rows
    return column
