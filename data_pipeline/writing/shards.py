"""The tasks that write a store's shards: one task, one writer; each says in the journal that it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weatherfm.data_pipeline.fields.masks import Masks
from weatherfm.data_pipeline.fields.missing_values import check_values
from weatherfm.data_pipeline.store.climatology import accumulate, windowed_means
from weatherfm.data_pipeline.store.measures import Measure, each
from weatherfm.data_pipeline.store.read_faults import read_back
from weatherfm.data_pipeline.store.records.manifest import checksum
from weatherfm.data_pipeline.store.shard_encoding import encode_shard
from weatherfm.data_pipeline.store.sharding import Block
from weatherfm.data_pipeline.store.statistics import join_channels, pairs
from weatherfm.data_pipeline.store.training_store import open_array
from weatherfm.data_pipeline.writing.journal import write_file, write_record


def fingerprint(*parts: np.ndarray | Sequence[str] | str | int | None) -> str:
    """Of what a task is made from; equal when its result would be the same for the same source."""
    texts = [part.tobytes().hex() if isinstance(part, np.ndarray) else repr(part) for part in parts]
    return checksum("\n".join(texts).encode())


def counted_as(measures: Sequence[Measure]) -> list[str]:
    """For `fingerprint`: how channels are counted, where that is not each point once and as it is."""
    area = ["by area"] if any(one.row_weights is not None for one in measures) else []
    return area + [f"log1p {i} {one.log_scale!r}" for i, one in enumerate(measures) if one.log_scale is not None]


@dataclass(frozen=True)
class Done:
    """What a task has dealt with, for the progress bar."""

    bytes: int
    label: str


@dataclass(frozen=True, eq=False)
class StateTask:
    """What it takes to write one shard of `state`."""

    root: Path
    metadata: dict[str, Any]
    block: Block
    channels: tuple[str, ...]
    """Names in this block."""
    times: np.ndarray
    """[time] of this block."""
    training: np.ndarray
    """[time] bool: which of them statistics may use."""
    preliminary: np.ndarray
    """[time] bool: which of them their source will replace."""
    tendency_lead: int
    """Hours."""
    masks: Masks
    """Of its channels."""
    measures: tuple[Measure, ...]
    """Of its channels: how they are counted."""
    more_leads: tuple[int, ...] = ()
    """Hours of further lead times over which changes are measured."""

    @property
    def name(self) -> str:
        """In the journal."""
        return f"state-{self.block.label}"

    @property
    def inputs(self) -> str:
        """Fingerprint of what the shard and its record are made from."""
        masks = [part for name, mask in self.masks.items() for part in (name, np.packbits(mask))]
        parts = (self.channels, self.times, self.training, self.preliminary, self.tendency_lead, *masks)
        return fingerprint(*parts, *counted_as(self.measures), *self.more_leads)

    @property
    def n_bytes(self) -> int:
        """Before compression."""
        rows, columns = self.metadata["shape"][2:]
        return int(4 * len(self.times) * len(self.channels) * rows * columns)

    def run(self, values: np.ndarray) -> Done:
        """Check and write `values` [time, channel, lat, lon] with their statistics.

        Raises:
            EmptyTimes: a channel has no value at all at some time.
            InputError: a value is not finite, or missing elsewhere than its mask says.
        """
        check_values(values, self.channels, self.times, self.masks)
        training = np.flatnonzero(self.training)
        statistics = each(values, self.measures, lambda measure, one: measure.of(one[training]))
        shard = encode_shard(values, self.metadata, (self.block.times.start, self.block.channels.start, 0, 0))
        files = {key: write_file(self.root, key, content) for key, content in _within("state", shard)}
        payload: dict[str, Any] = {"state": statistics.to_dict(), "tendency": self._changes(values, self.tendency_lead)}
        if self.more_leads:
            payload["tendencies"] = {str(lead): self._changes(values, lead) for lead in self.more_leads}
        write_record(self.root, self.name, files, payload, self.inputs)
        return Done(values.nbytes, f"{' '.join(self.channels[:3])} {self.times[0].astype('datetime64[M]')}")

    def _changes(self, values: np.ndarray, lead: int) -> dict[str, str] | None:
        """Of the change over a lead time within this shard; None where no two of its times are so far apart."""
        earlier, later = pairs(self.times, self.training, lead)
        if not len(later):
            return None
        return each(values, self.measures, lambda measure, one: measure.of_changes(one, earlier, later)).to_dict()

    def read_back(self) -> np.ndarray:
        """[time, channel, lat, lon] as written."""
        return read_back(open_array(self.root, "state")[self.block.times, self.block.channels], self.root)


@dataclass(frozen=True, eq=False)
class TendencyTask:
    """Statistics of the change over a lead time, for the pairs that start in one shard and end in a later one."""

    root: Path
    block: Block
    """One or more shards that follow each other, in which the pairs start."""
    channel_blocks: tuple[slice, ...]
    """Chunks of these shards, which are looked at one by one."""
    earlier: np.ndarray
    """[pair] store positions."""
    later: np.ndarray
    """[pair] store positions, the lead after `earlier`."""
    measures: tuple[Measure, ...]
    """Of all channels of the store: how they are counted."""
    inputs: str
    """Fingerprint of the times at both ends."""
    name: str
    """In the journal."""

    def n_bytes(self, field_bytes: int) -> int:
        """Of the fields it reads."""
        n_fields = len(np.union1d(self.earlier, self.later)) * (self.block.channels.stop - self.block.channels.start)
        return int(n_fields * field_bytes)

    def run(self) -> Done:
        """Read each field once, subtract and note the statistics."""
        state = open_array(self.root, "state")
        at, place = np.unique(np.concatenate([self.earlier, self.later]), return_inverse=True)
        earlier, later = np.split(place, 2)
        found, n_bytes = [], 0
        for channels in self.channel_blocks:
            fields = read_back(state.oindex[at, channels], self.root)
            own = self.measures[channels]
            found.append(each(fields, own, lambda measure, one: measure.of_changes(one, earlier, later)))
            n_bytes += fields.nbytes
        write_record(self.root, self.name, {}, join_channels(found).to_dict(), self.inputs)
        return Done(n_bytes, "")


@dataclass(frozen=True, eq=False)
class ClimatologyTask:
    """All days of year of one hour and channel block; its shards are nobody else's."""

    root: Path
    metadata: dict[str, Any]
    channels: slice
    """One chunk."""
    column: int
    """Its number."""
    hour: int
    """Position on the hour dim."""
    indices: np.ndarray
    """[time] store positions of the training times at that hour."""
    days: np.ndarray
    """[time] their positions on the dayofyear dim."""
    n_days: int
    window: int | None
    batch: int
    """Times to hold at once."""
    rows: int
    """Days in one shard."""
    inputs: str
    """Fingerprint of the times."""

    @property
    def name(self) -> str:
        """In the journal."""
        return f"climatology-{self.hour:02d}-{self.column:03d}"

    def run(self, sums: np.ndarray | None = None) -> Done:
        """Average and write; reads the store unless given `sums` [dayofyear, channel, lat, lon] float64."""
        counts = np.bincount(self.days, minlength=self.n_days)
        if sums is None:
            state = open_array(self.root, "state")

            def read(indices: np.ndarray) -> np.ndarray:
                return read_back(state.oindex[indices, self.channels], self.root)

            sums = accumulate(read, self.indices, self.days, self.n_days, self.batch)
        files: dict[str, dict[str, Any]] = {}
        for days, fields in windowed_means(sums, counts, self.window, self.rows):
            start = (days.start, self.hour, self.channels.start, 0, 0)
            shard = encode_shard(fields[:, None], self.metadata, start)
            files |= {key: write_file(self.root, key, content) for key, content in _within("climatology", shard)}
        write_record(self.root, self.name, files, None, self.inputs)
        return Done(len(self.indices) * 4 * int(np.prod(sums.shape[1:])), "")


def _within(array: str, files: dict[str, bytes]) -> list[tuple[str, bytes]]:
    return [(f"{array}/{key}", content) for key, content in files.items()]
