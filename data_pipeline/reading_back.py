"""Which shards that were written before are read again: what is built on them is built on what was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from weatherfm.data_pipeline.journal import Record

if TYPE_CHECKING:
    from weatherfm.data_pipeline.writing import Tasks


def shards_to_read(tasks: Tasks, records: Mapping[str, Record], collects: bool) -> set[str]:
    """Names of the finished state tasks whose files the unfinished ones read.

    Args:
        tasks: of the store.
        records: of what is finished.
        collects: the climatology's sums are gathered over all shards.
    """
    if collects:
        return {task.name for task in tasks.state() if task.name in records}
    return {name for name in _read_by_others(tasks, records) if name in records}


def _read_by_others(tasks: Tasks, records: Mapping[str, Record]) -> Iterator[str]:
    length = tasks.plan.layout.shard_times
    for change in tasks.tendency():
        if change.name not in records:
            for row in np.unique(np.concatenate([change.earlier, change.later]) // length):
                yield f"state-{row:05d}-{change.block.column:03d}"
    for mean in tasks.climatology():
        if mean.name not in records:
            for row in np.unique(mean.indices // length):
                yield f"state-{row:05d}-{mean.column:03d}"
