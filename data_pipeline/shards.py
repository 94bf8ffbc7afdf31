"""The tasks that write a store's shards: one task, one writer; each says in the journal that it is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from weatherfm.data_pipeline.climatology import accumulate, windowed_means
from weatherfm.data_pipeline.journal import write_file, write_record
from weatherfm.data_pipeline.layout import Block
from weatherfm.data_pipeline.statistics import ChannelStatistics
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

    @property
    def name(self) -> str:
        """In the journal."""
        return f"state-{self.block.label}"

    def run(self, values: np.ndarray) -> int:
        """Check and write `values` [time, channel, lat, lon]; returns bytes before compression.

        Raises:
            InputError: a value is not finite.
        """
        values = np.ascontiguousarray(values, np.float32)
        check_finite(values, self.channels, self.times)
        statistics = ChannelStatistics.of(values if self.training.all() else values[self.training])
        shard = encode_shard(values, self.metadata, (self.block.times.start, self.block.channels.start, 0, 0))
        files = {key: write_file(self.root, key, content) for key, content in _within("state", shard)}
        write_record(self.root, self.name, files, statistics.to_dict())
        return values.nbytes


@dataclass(frozen=True, eq=False)
class TendencyTask:
    """Statistics of the change over the tendency lead, for the pairs that start in one block of times."""

    root: Path
    block: Block
    earlier: np.ndarray
    """[pair] store positions."""
    later: np.ndarray
    """[pair] store positions, the lead after `earlier`."""

    @property
    def name(self) -> str:
        """In the journal."""
        return f"tendency-{self.block.label}"

    def run(self) -> int:
        """Read, subtract and note the statistics; returns bytes read."""
        state = open_array(self.root, "state")
        n_channels = self.block.channels.stop - self.block.channels.start
        result, n_bytes = ChannelStatistics.empty(n_channels), 0
        if len(self.earlier):
            first = state.oindex[self.earlier, self.block.channels].read()
            change = state.oindex[self.later, self.block.channels].read().result()
            change -= first.result()
            result, n_bytes = ChannelStatistics.of(change), 2 * change.nbytes
        write_record(self.root, self.name, {}, result.to_dict())
        return n_bytes


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

    @property
    def name(self) -> str:
        """In the journal."""
        return f"climatology-{self.hour:02d}-{self.column:03d}"

    def run(self) -> int:
        """Read, average and write; returns bytes read."""
        state = open_array(self.root, "state")

        def read(indices: np.ndarray) -> np.ndarray:
            return np.asarray(state.oindex[indices, self.channels].read().result())

        sums, counts = accumulate(read, self.indices, self.days, self.n_days, self.batch)
        files: dict[str, dict[str, Any]] = {}
        for days, fields in windowed_means(sums, counts, self.window, self.rows):
            start = (days.start, self.hour, self.channels.start, 0, 0)
            shard = encode_shard(fields[:, None], self.metadata, start)
            files |= {key: write_file(self.root, key, content) for key, content in _within("climatology", shard)}
        write_record(self.root, self.name, files)
        return len(self.indices) * 4 * int(np.prod(sums.shape[1:]))


def _within(array: str, files: dict[str, bytes]) -> list[tuple[str, bytes]]:
    return [(f"{array}/{key}", content) for key, content in files.items()]
