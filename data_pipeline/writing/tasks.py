"""The tasks that make up a store, and which finished shards the unfinished ones read again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from weatherfm.data_pipeline.design.store_design import StoreDesign
from weatherfm.data_pipeline.fields.time_axis import hour_of_day
from weatherfm.data_pipeline.store.climatology import day_index
from weatherfm.data_pipeline.writing.journal import Record
from weatherfm.data_pipeline.writing.shards import ClimatologyTask, StateTask, TendencyTask, counted_as, fingerprint
from weatherfm.data_pipeline.writing.skeleton import array_metadata

Task = StateTask | TendencyTask | ClimatologyTask


@dataclass(frozen=True, eq=False)
class Tasks:
    """All tasks that make up a store, in the order in which they are best done."""

    root: Path
    design: StoreDesign
    skeleton: dict[str, bytes]
    """As `skeleton_files` made it."""

    def state(self) -> Iterator[StateTask]:
        """One a shard, all channels of a time range before the next time range."""
        design, metadata = self.design, array_metadata(self.skeleton, "state")
        for block in design.sharding.blocks():
            part = block.times
            yield StateTask(
                self.root, metadata, block, tuple(design.config.channels[block.channels]), design.axis.times[part],
                design.training[part], design.preliminary[part], design.tendency_lead,
                {name: design.masks[name] for name in design.config.channels[block.channels] if name in design.masks},
                design.measures[block.channels], design.more_leads,
            )  # fmt: skip

    def tendency(self) -> Iterator[TendencyTask]:
        """One for some shards that have pairs which end in a later one, of each lead time."""
        design = self.design
        chunks = design.sharding.channel_blocks()
        for lead in (design.tendency_lead, *design.more_leads):
            earlier, later = design.pairs(lead)
            for block in design.sharding.change_blocks(design.steps_of(lead)):
                part = slice(*np.searchsorted(earlier, [block.times.start, block.times.stop]))
                if part.start < part.stop:
                    own = tuple(c for c in chunks if block.channels.start <= c.start < block.channels.stop)
                    counted = counted_as(design.measures[block.channels])
                    yield TendencyTask(
                        self.root, block, own, earlier[part], later[part], design.measures,
                        self._fingerprint(earlier[part], later[part], block.channels, *counted),
                        design.change_name(lead, block.label),
                    )  # fmt: skip

    def climatology(self) -> Iterator[ClimatologyTask]:
        """One an hour of day and channel block."""
        design, sharding, window = self.design, self.design.sharding, self.design.config.climatology_window
        metadata = array_metadata(self.skeleton, "climatology")
        training = np.flatnonzero(design.training)
        hours = hour_of_day(design.axis.times[training])
        for hour, value in enumerate(design.hours):
            indices = training[hours == value]
            days = day_index(design.axis.times[indices], window)
            for column, channels in enumerate(sharding.channel_blocks()):
                yield ClimatologyTask(
                    self.root, metadata, channels, column, hour, indices, days, len(design.days), window,
                    sharding.batch_times, design.climatology_rows,
                    self._fingerprint(indices, indices[:0], channels),
                )  # fmt: skip

    def all(self) -> Iterator[Task]:
        """Every task."""
        yield from self.state()
        yield from self.tendency()
        yield from self.climatology()

    def _fingerprint(self, first: np.ndarray, second: np.ndarray, channels: slice, *more: str) -> str:
        design = self.design
        parts = [array[index] for index in (first, second) for array in (design.axis.times, design.preliminary)]
        return fingerprint(design.config.channels[channels], design.config.climatology_window, *parts, *more)


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
    for block in tasks.design.sharding.blocks():
        blocks.setdefault(block.row, []).append((block.channels, f"state-{block.label}"))
    return {
        name
        for positions, channels in _read(tasks, records)
        for row in np.unique(positions // tasks.design.sharding.shard_times).tolist()
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
