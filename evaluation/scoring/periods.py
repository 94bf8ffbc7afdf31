"""Periods of the year over which scores are summed: all cases, seasons, months, by the valid time (numpy only)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from weatherfm.errors import InputError

ALL = "all"
SEASONS: dict[str, tuple[int, ...]] = {"DJF": (12, 1, 2), "MAM": (3, 4, 5), "JJA": (6, 7, 8), "SON": (9, 10, 11)}
MONTHS: dict[str, tuple[int, ...]] = {
    name: (number,)
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}
_GROUPS = {"season": SEASONS, "month": MONTHS}


def periods_of(by: Sequence[str], months_present: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Name -> months (1 .. 12) of every period that has cases: `all`, then seasons, then months, as asked for.

    A season of which some months have no case is made of the others.

    Args:
        by: `season`, `month`, both or none.
        months_present: of the valid times of all cases.

    Raises:
        InputError: anything else in `by`.
        ValueError: no month, or one outside 1 .. 12.
    """
    if unknown := [name for name in by if name not in _GROUPS]:
        raise InputError(f"scores cannot be told apart by {unknown[0]!r}; choose of {', '.join(_GROUPS)}")
    present = set(months_present)
    if not present or not present <= set(range(1, 13)):
        raise ValueError(f"months of the cases must be some of 1 .. 12, got {sorted(present)}")
    periods = {ALL: tuple(sorted(present))}
    for kind, group in _GROUPS.items():
        if kind in by:
            found = {name: tuple(month for month in months if month in present) for name, months in group.items()}
            periods |= {name: months for name, months in found.items() if months}
    return periods


def by_period(
    sums: Mapping[str, np.ndarray], cases: np.ndarray, periods: Mapping[str, Sequence[int]]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Sums over the months of each period.

    Args:
        sums: statistic -> [month, lead, ...], January first.
        cases: [month, lead].
        periods: name -> months (1 .. 12).

    Returns:
        Statistic -> [period, lead, ...]; cases [period, lead].
    """
    rows = [[month - 1 for month in months] for months in periods.values()]
    summed = {name: np.stack([values[months].sum(0) for months in rows]) for name, values in sums.items()}
    return summed, np.stack([cases[months].sum(0) for months in rows])
