"""Times of a store as ranges: lists that may be long take a line a stretch in the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from weatherfm.errors import InputError


def to_ranges(times: np.ndarray, step_hours: int) -> list[list[str]]:
    """Datetime64[s] `times` [n], ascending, as [first, last] of each stretch of neighbours `step_hours` apart."""
    if len(times) == 0:
        return []
    breaks = np.flatnonzero(np.diff(times) != np.timedelta64(step_hours, "h")) + 1
    return [[str(run[0]), str(run[-1])] for run in np.split(times, breaks)]


def from_ranges(ranges: Sequence[Sequence[str]], stated: Mapping[str, Any]) -> np.ndarray:
    """Inverse of `to_ranges`: [n] datetime64[s].

    Args:
        ranges: of a manifest.
        stated: its `times`: the ranges must lie between `start` and `end`, on ascending times.

    Raises:
        InputError: no such ranges.
    """
    step = np.timedelta64(int(stated["step_hours"]), "h")
    low = np.datetime64(stated["start"], "s")
    found = []
    for ends in ranges:
        try:
            first, last = (np.datetime64(text, "s") for text in ends)
        except ValueError:
            raise InputError(
                f"the manifest has {str(ends)[:80]} for a range of times; prepare the store anew"
            ) from None
        if not low <= first <= last <= np.datetime64(stated["end"], "s"):
            raise InputError(f"the manifest's times {first} to {last} are out of place; prepare the store anew")
        found.append(np.arange(first, last + step, step))
        low = last + step
    return np.concatenate(found) if found else np.zeros(0, "datetime64[s]")
