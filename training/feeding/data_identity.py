"""What of a store decides a run: its statistics and the fields of the days it uses, not what came behind these days.

A store that grows is another store, and its training days may be what they were. So these are compared by content: a
shard of nothing but such days by its checksum in the manifest, one that they share with other days (which `append`
writes anew) by their fields. Of the latter there are two at most for a block of channels and a stretch of days, where
it begins and ends: reading them takes about as long as a large batch for each season of a split, and only where the
store has changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from weatherfm.data_pipeline.fields.time_axis import name_times
from weatherfm.data_pipeline.store.records.manifest import canonical_json, checksum
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.data_pipeline.store_config import Period

_PIECE = 2**26
"""Bytes to read at a time."""


def store_digest(store: Store) -> str:
    """SHA-256 of the store's manifest, which holds the checksum of the list of all files and theirs."""
    return checksum(canonical_json(store.manifest).encode())


def describe_data(
    store: Store,
    channels: Sequence[str],
    periods: Sequence[Period | None],
    known: dict[str, Any] | None = None,
    alive: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """JSON-able: `manifest`, the store as a whole; `statistics`, a digest; `days`, by period their times and fields.

    Args:
        store: of the run.
        channels: of the run.
        periods: None: all days of the store.
        known: a former answer; what it has is not read again, if the store is the same.
        alive: called now and then.
    """
    head = {"manifest": store_digest(store), "channels": sorted(channels)}
    same = known is not None and all(known.get(key) == value for key, value in head.items())
    before = known["days"] if known is not None and same else {}
    days = {
        str(period): before.get(str(period))
        or {"times": name_days(store, period)} | {"fields": fields_digest(store, period, channels, alive)}
        for period in periods
    }
    return {**head, "statistics": statistics_digest(store, channels), "days": days}


def statistics_digest(store: Store, channels: Sequence[str]) -> str:
    """Of all that a model knows of its data before it sees them: grid, statistics of its channels, constant fields."""
    domain = store.domain(sorted(channels))
    seal = hashlib.sha256(canonical_json([domain.grid.to_dict(), domain.static_names, domain.channels]).encode())
    for values in (domain.mean, domain.std, domain.tendency_std, domain.static):
        seal.update(np.ascontiguousarray(values).tobytes())
    for lead, spread in domain.tendency_std_by_lead.items():
        seal.update(str(lead).encode() + np.ascontiguousarray(spread).tobytes())
    if domain.log_scales:
        seal.update(canonical_json(dict(domain.log_scales)).encode())
    return seal.hexdigest()


def name_days(store: Store, period: Period | None) -> str:
    """The times of a period, for people."""
    times = store.times[_inside(store, period)]
    ends = f" from {name_times(times[:1])} to {name_times(times[-1:])}" if len(times) else ""
    return f"{len(times)} times every {store.step_hours}h{ends}"


def fields_digest(
    store: Store, period: Period | None, channels: Sequence[str], alive: Callable[[], None] = lambda: None
) -> str:
    """Of the times and fields of a period; other days of the store change nothing in it."""
    inside, names = _inside(store, period), [name for name in store.channels if name in set(channels)]
    length, width = store.shard_shape
    columns = sorted({store.channels.index(name) // width for name in names})
    piece = max(1, _PIECE // (4 * len(names) * int(np.prod(store.grid.shape))))
    listed = store.files()
    seal = hashlib.sha256(store.times[inside].tobytes())
    for row in range(-(-len(inside) // length)):
        own = np.flatnonzero(inside[row * length : (row + 1) * length]) + row * length
        if len(own) == length:  # full, so that no other days can come into it
            files = [listed[f"state/c/{row}/{column}/0/0"]["sha256"] for column in columns]
            seal.update(" ".join(files).encode())
            continue
        for start in range(0, len(own), piece):
            seal.update(store.read(own[start : start + piece], names).tobytes())
            alive()
    return seal.hexdigest()


def _inside(store: Store, period: Period | None) -> np.ndarray:
    return np.ones(len(store.times), bool) if period is None else period.contains(store.times)
