"""How a store's big arrays are cut into chunks (one read) and shards (one file, one writer)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from weatherfm.data_pipeline.config import DataConfig
from weatherfm.errors import InputError

MIB = 2**20
_CHUNK_BYTES = MIB
"""Aim for one chunk: at 5.625 deg that is 128 channels, at 0.25 deg a single one takes 4 MiB."""

_MOST_TIMES = 4096
"""Of a shard, whose index takes 16 bytes for each, there or not."""


@dataclass(frozen=True)
class Block:
    """A range of times (or days of year) and of channels."""

    times: slice
    channels: slice
    row: int
    """Number of the time range."""
    column: int
    """Number of the channel range."""

    @property
    def label(self) -> str:
        """Short text for file names and messages."""
        return f"{self.row:05d}-{self.column:03d}"


@dataclass(frozen=True)
class Layout:
    """Sizes of chunks and shards: a chunk is (1, channel_block, lat, lon), a shard `shard_times` of these."""

    n_times: int
    n_channels: int
    grid_shape: tuple[int, int]
    channel_block: int
    shard_times: int
    shard_mib: int

    @property
    def chunk_bytes(self) -> int:
        """Of one chunk before compression."""
        return 4 * self.channel_block * math.prod(self.grid_shape)

    @property
    def shard_bytes(self) -> int:
        """Of one shard before compression; a store may be shorter than one."""
        return min(self.shard_times, self.n_times) * self.chunk_bytes

    @property
    def n_columns(self) -> int:
        """Channel blocks."""
        return -(-self.n_channels // self.channel_block)

    @property
    def state_bytes(self) -> int:
        """Of all of `state` before compression."""
        return 4 * self.n_times * self.n_channels * math.prod(self.grid_shape)

    def channel_blocks(self) -> list[slice]:
        """The channel ranges."""
        return _ranges(self.n_channels, self.channel_block)

    def groups(self, together: tuple[tuple[int, ...], ...]) -> list[list[int]]:
        """Channel blocks (their numbers) to write from one read, as `together` of the source says."""
        group_of = list(range(self.n_columns))
        for channels in together:
            columns = {channel // self.channel_block for channel in channels}
            merged = {group_of[column] for column in columns}
            group_of = [min(merged) if group in merged else group for group in group_of]
        return [[i for i, g in enumerate(group_of) if g == group] for group in dict.fromkeys(group_of)]

    def blocks(self) -> Iterator[Block]:
        """All shards of `state`, all channels of a time range before the next time range."""
        for row, times in enumerate(_ranges(self.n_times, self.shard_times)):
            for column, channels in enumerate(self.channel_blocks()):
                yield Block(times, channels, row, column)

    def shard_rows(self, n: int) -> int:
        """How many of `n` chunks along the first dim of another array go into a shard of the same size."""
        return max(1, min(n, self.shard_mib * MIB // self.chunk_bytes))


def choose_layout(config: DataConfig, n_times: int, grid_shape: tuple[int, int]) -> Layout:
    """Chunks of about 1 MiB of whole fields unless `config.channel_block` says otherwise; shards of `shard_mib`.

    Raises:
        InputError: a channel block below 1.
    """
    n_channels = len(config.channels)
    field_bytes = 4 * math.prod(grid_shape)
    if config.channel_block is not None and config.channel_block < 1:
        raise InputError(
            f"channel_block must be at least 1, got {config.channel_block}; leave it out to have it chosen"
        )
    most = config.channel_block or max(1, _CHUNK_BYTES // field_bytes)
    n_blocks = -(-n_channels // most)
    block = min(most, n_channels) if config.channel_block else -(-n_channels // n_blocks)  # chosen: of even size
    fitting = config.shard_mib * MIB // (block * field_bytes)
    shard_times = max(1, min(fitting, _MOST_TIMES))  # whatever the length of the store: stores grow
    return Layout(n_times, n_channels, grid_shape, block, shard_times, config.shard_mib)


def _ranges(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
