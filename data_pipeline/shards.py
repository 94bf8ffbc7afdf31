"""The tasks that write a store's shards: one task, one writer; each says in the journal that it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from weatherfm.data_pipeline.climatology import accumulate, windowed_means
from weatherfm.data_pipeline.journal import write_file, write_record
from weatherfm.data_pipeline.layout import Block
from weatherfm.data_pipeline.manifest import checksum
from weatherfm.data_pipeline.statistics import ChannelStatistics, pairs
from weatherfm.data_pipeline.store import open_array
from weatherfm.data_pipeline.time_axis import name_times
from weatherfm.errors import InputError


def encode_shard(values: np.ndarray, metadata: dict[str, Any], start: tuple[int, ...]) -> dict[str, bytes]:
    """The file that holds `values`, by its key within the array.

    Args:
        values: a whole shard, or what is left of one at the array's end.
        metadata: the array's zarr.json.
        start: position of `values` in the array.
    """
    array = ts.open({"driver": "zarr3", "kvstore": "memory://", "metadata": metadata}, create=True).result()
    region = tuple(slice(a, a + n) for a, n in zip(start, values.shape, strict=True))
    array[region].write(values).result()
    files = array.kvstore
    assert files is not None  # the zarr3 driver has one
    keys = [key for key in files.list().result() if key != b"zarr.json"]
    return {key.decode(): files.read(key).result().value for key in keys}


def check_finite(values: np.ndarray, channels: tuple[str, ...], times: np.ndarray) -> None:
    """`values` [time, channel, lat, lon] must hold no NaN and no infinity.

    Raises:
        InputError: names the channels, how many values and the first times.
    """
    bad = ~np.isfinite(values)
    if not bad.any():
        return
    texts = []
    for channel in np.flatnonzero(bad.any(axis=(0, 2, 3))):
        when = times[bad[:, channel].any(axis=(1, 2))]
        texts.append(f"{channels[channel]} has {int(bad[:, channel].sum())} at {name_times(when, 3)}")
    raise InputError(
        f"values that are not finite (NaN or infinite): {'; '.join(texts)}. "
        "Leave the channel out, choose other days, or mend the source; shards written before are kept"
    )


def fingerprint(*parts: np.ndarray | Sequence[str] | str | int | None) -> str:
    """Of what a task is made from; equal when its result would be the same for the same source."""
    texts = [part.tobytes().hex() if isinstance(part, np.ndarray) else repr(part) for part in parts]
    return checksum("\n".join(texts).encode())


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

    @property
    def name(self) -> str:
        """In the journal."""
        return f"state-{self.block.label}"

    @property
    def inputs(self) -> str:
        """Fingerprint of what the shard and its record are made from."""
        return fingerprint(self.channels, self.times, self.training, self.preliminary, self.tendency_lead)

    @property
    def n_bytes(self) -> int:
        """Before compression."""
        rows, columns = self.metadata["shape"][2:]
        return int(4 * len(self.times) * len(self.channels) * rows * columns)

    def run(self, values: np.ndarray) -> Done:
        """Check and write `values` [time, channel, lat, lon] with their statistics.

        Raises:
            InputError: a value is not finite.
        """
        values = np.ascontiguousarray(values, np.float32)
        check_finite(values, self.channels, self.times)
        statistics = ChannelStatistics.of(values if self.training.all() else values[self.training])
        earlier, later = pairs(self.times, self.training, self.tendency_lead)
        changes = ChannelStatistics.of(values[later] - values[earlier])
        shard = encode_shard(values, self.metadata, (self.block.times.start, self.block.channels.start, 0, 0))
        files = {key: write_file(self.root, key, content) for key, content in _within("state", shard)}
        payload = {"state": statistics.to_dict(), "tendency": changes.to_dict()}
        write_record(self.root, self.name, files, payload, self.inputs)
        return Done(values.nbytes, f"{' '.join(self.channels[:3])} {self.times[0].astype('datetime64[M]')}")

    def read_back(self) -> np.ndarray:
        """[time, channel, lat, lon] as written."""
        return np.asarray(open_array(self.root, "state")[self.block.times, self.block.channels].read().result())


@dataclass(frozen=True, eq=False)
class TendencyTask:
    """Statistics of the change over the tendency lead, for the pairs that start in one shard and end in a later one."""

    root: Path
    block: Block
    earlier: np.ndarray
    """[pair] store positions."""
    later: np.ndarray
    """[pair] store positions, the lead after `earlier`."""
    inputs: str
    """Fingerprint of the times at both ends."""

    @property
    def name(self) -> str:
        """In the journal."""
        return f"tendency-{self.block.label}"

    def run(self) -> Done:
        """Read, subtract and note the statistics."""
        state = open_array(self.root, "state")
        first = state.oindex[self.earlier, self.block.channels].read()
        change = state.oindex[self.later, self.block.channels].read().result()
        change -= first.result()
        write_record(self.root, self.name, {}, ChannelStatistics.of(change).to_dict(), self.inputs)
        return Done(2 * change.nbytes, "")


@dataclass(frozen=True, eq=False)
class ClimatologyTask:
    """All days of year of one hour and channel block; its shards are nobody else's."""

    root: Path
    metadata: dict[str, Any]
    channels: slice
    column: int
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
                return np.asarray(state.oindex[indices, self.channels].read().result())

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
