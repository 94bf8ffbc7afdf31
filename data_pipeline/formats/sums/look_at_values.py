"""A look at a few real fields: are they sums of their own, or do they grow from a start, such as 00 UTC?

Sums since a start never fall until they begin anew; of sums one after the other, about half do. Only values above zero
say something: nights and dry spells look the same in both. What the look cannot settle stays open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

Manner = Literal["each", "growing", "unknown"]
"""`each`: a sum of its own at every time. `growing`: sums since a start. `unknown`: the values do not tell."""

_DAYS = 6
"""Groups of fields (days, or runs of a forecast) that are looked at, spread over the record."""
_IN_GROUP = 26
_POINTS = 20_000
_NOISE = 2.0**-13
"""Of the largest value: changes below it may come from packing into 16 bits."""
_FALLS_OF_SUMS, _FALLS_OF_GROWTH = 0.1, 0.001
"""Share of the values above zero that fall to the next time: from the first on `each`, up to the second `growing`."""
_FEW_TIMES, _FEW_VALUES = 6, 20


@dataclass
class _Seen:
    """Counts over all groups looked at."""

    values: int = 0
    """Above zero, with a next one in the same group."""
    falls: int = 0
    times: int = 0
    falling_times: int = 0
    starts: int = 0
    """Changes of group after a field that is not all zero."""
    drops: int = 0
    """Of these, where most points fall."""
    groups: int = 0
    """With growing values."""

    def add(self, fields: np.ndarray, first_of_next: np.ndarray | None, noise: float) -> None:
        """`fields` [time, point] of a group, and the field after them."""
        limit = max(_NOISE * float(np.nan_to_num(np.abs(fields)).max(initial=0.0)), noise)
        grew = 0
        for now, after in pairwise(fields):
            above = np.abs(now) > limit
            falls = int((np.abs(after)[above] < np.abs(now)[above] - limit).sum())
            self.values, self.falls = self.values + int(above.sum()), self.falls + falls
            self.times, self.falling_times = self.times + bool(above.any()), self.falling_times + (falls > 0)
            grew += bool(above.any())
        self.groups += grew > 0
        above = np.abs(fields[-1]) > limit
        if first_of_next is not None and above.any():
            self.starts += 1
            self.drops += float((np.abs(first_of_next)[above] < np.abs(fields[-1])[above] - limit).mean()) > 0.5

    @property
    def grew(self) -> bool:
        """Values never fell, in enough of them to be sure."""
        enough = self.times >= _FEW_TIMES and self.values >= _FEW_VALUES
        return enough and self.falls <= _FALLS_OF_GROWTH * self.values

    def verdict(self, restarts: bool, groups: int, may_fall: bool) -> Manner:
        """What the counts say; `groups` there are at all, `may_fall` tells of variables of both signs."""
        share = self.falls / max(1, self.values)
        if share >= _FALLS_OF_SUMS and self.falling_times >= 2 and not may_fall:
            return "each"
        began_anew = not restarts or (self.starts >= 1 and self.drops == self.starts)
        return "growing" if self.grew and began_anew and self.groups >= min(2, groups) else "unknown"


def look(
    groups: np.ndarray,
    read: Callable[[np.ndarray], np.ndarray],
    restarts: bool,
    may_fall: bool,
    noise: float,
) -> tuple[Manner, bool]:
    """How the fields of one channel are summed, told from some of them.

    Args:
        groups: [field] ascending number of the day (from after 00 UTC to 00 UTC) or run that a field belongs to; in a
            group, fields go forward in time.
        read: positions [n] -> [n, point] values.
        restarts: the group after the next one in time follows at once, so that growth must drop there.
        may_fall: the variable may be negative and positive, so that falling tells nothing.
        noise: what packing may change a value by.

    Returns:
        (manner, whether values never fell, though nothing says from which start they grow).
    """
    numbers, first, counts = np.unique(groups, return_index=True, return_counts=True)
    several = np.flatnonzero(counts >= 2)
    seen = _Seen()
    for i in several[_spread(len(several))]:
        rows = first[i] + np.arange(counts[i])
        rows = rows[:: max(1, -(-len(rows) // _IN_GROUP))]
        follows = i + 1 < len(numbers) and numbers[i + 1] == numbers[i] + 1 and rows[-1] + 1 == first[i + 1]
        wanted = np.append(rows, first[i + 1]) if restarts and follows else rows
        fields = read(wanted)
        fields = fields[:, :: max(1, fields.shape[1] // _POINTS)]
        seen.add(fields[: len(rows)], fields[-1] if len(wanted) > len(rows) else None, noise)
        if (manner := seen.verdict(restarts, len(several), may_fall)) != "unknown":
            return manner, False
    return "unknown", seen.grew


def _spread(count: int) -> list[int]:
    """Some of `count` positions, far apart: the middle first, for records often begin and end in part of a day."""
    if count == 0:
        return []
    places = np.unique(np.linspace(0, count - 1, min(count, _DAYS)).round().astype(int)).tolist()
    return sorted(places, key=lambda place: abs(place - (count - 1) / 2))
