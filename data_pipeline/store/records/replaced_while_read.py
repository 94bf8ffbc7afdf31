"""Does a store that took the place of one that is being read hold the same at the same positions?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from weatherfm.data_pipeline.fields.time_ranges import from_ranges
from weatherfm.data_pipeline.store.records.manifest import canonical_json, checksum

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


def told_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a record of work on a store has to hold for `is_continued` to know the store again."""
    times = manifest["times"]
    return {"end": times["end"], "count": times["count"], "sha256": _kept_until(manifest, times["end"])}


def is_continued(now: Mapping[str, Any], told: Mapping[str, Any]) -> bool:
    """As `continues`, of what `told_of` said of the store before; False of one that has no later times.

    Raises:
        InputError: a manifest's ranges of times are none.
    """
    longer = now["times"]["count"] > told["count"]
    return bool(longer and _kept_until(now, told["end"]) == told["sha256"])


def _kept_until(manifest: Mapping[str, Any], end: str) -> str:
    """SHA-256 of all that `continues` compares: appending later times does not change it."""
    times = manifest["times"]
    ranges = {key: _until(times, key, end).astype(str).tolist() for key in _RANGES}
    same = {key: manifest[key] for key in _SAME}
    text = canonical_json([same, _kept(manifest), times["start"], times["step_hours"], ranges])
    return checksum(text.encode())


def _until(times: Mapping[str, Any], key: str, end: str) -> np.ndarray:
    found = from_ranges(times[key], times)
    return found[found <= np.datetime64(end, "s")]


def _kept(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry for key, entry in manifest["small"].items() if not key.startswith(_LONGER)}
