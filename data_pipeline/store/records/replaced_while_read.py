"""Does a store that took the place of one that is being read hold the same at the same positions?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from weatherfm.data_pipeline.fields.time_ranges import from_ranges

_SAME = ("channels", "static", "grid", "statistics", "climatology", "tendency")
_LONGER = ("time/", "state/", "zarr.json")
"""Small files that every longer store has anew."""
_RANGES = ("missing", "preliminary")


def continues(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """True when `append` only put times behind the last: who reads positions of `before` reads the same fields.

    False when preliminary fields were replaced, gaps filled, or training days added, which changes the statistics.

    Args:
        now: manifest of the store that is there.
        before: of the one that was opened.

    Raises:
        InputError: a manifest's ranges of times are none.
    """
    if any(now[key] != before[key] for key in _SAME) or _kept(now) != _kept(before):
        return False
    then, times = before["times"], now["times"]
    if any(times[key] != then[key] for key in ("start", "step_hours")) or times["count"] < then["count"]:
        return False
    return all(np.array_equal(_until(times, key, then["end"]), from_ranges(then[key], then)) for key in _RANGES)


def _until(times: Mapping[str, Any], key: str, end: str) -> np.ndarray:
    found = from_ranges(times[key], times)
    return found[found <= np.datetime64(end, "s")]


def _kept(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry for key, entry in manifest["small"].items() if not key.startswith(_LONGER)}
