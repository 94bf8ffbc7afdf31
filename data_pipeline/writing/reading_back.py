"""Which shards that were written before are read again: what is built on them is built on what was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from weatherfm.data_pipeline.writing.journal import Record

if TYPE_CHECKING:
    from weatherfm.data_pipeline.writing.writing import Tasks


def shards_to_read(tasks: Tasks, records: Mapping[str, Record], collects: bool) -> set[str]:
    """Names of the finished state tasks whose files the unfinished ones read.

    Args:
        tasks: of the store.
        records: of what is finished.
        collects: the climatology's sums are gathered over all shards.
    """
    if collects:
        return {task.name for task in tasks.state() if task.name in records}
    blocks: dict[int, list[tuple[slice, str]]] = {}
    for block in tasks.plan.layout.blocks():
        blocks.setdefault(block.row, []).append((block.channels, f"state-{block.label}"))
    return {
        name
        for positions, channels in _read(tasks, records)
        for row in np.unique(positions // tasks.plan.layout.shard_times).tolist()
        for held, name in blocks[row]
        if name in records and held.start < channels.stop and channels.start < held.stop
    }


def _read(tasks: Tasks, records: Mapping[str, Record]) -> Iterator[tuple[np.ndarray, slice]]:
    """(store positions, channels) that each unfinished task reads."""
    for change in tasks.tendency():
        if change.name not in records:
            yield np.concatenate([change.earlier, change.later]), change.block.channels
    for mean in tasks.climatology():
        if mean.name not in records:
            yield mean.indices, mean.channels
