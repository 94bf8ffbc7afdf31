"""How a store's big arrays are cut into chunks (one read) and shards (one file, one writer).

A chunk is one time of a block of channels: what a rank of a training reads. Coarse stores have many times of one block
in a file of 64 MiB. Where three times of all channels are more than that, a file is these three times: 40 years at 0.25
degrees, every 6 h, 69 channels, are 19,480 files of 860 MB before compression, where one block a file made 258,000. All
channels and few times, not the other way round, because a sample is then one file whatever the number of channels;
because ARCO and WeatherBench2 keep one time and all levels of a variable in a chunk at that resolution, and so every
chunk is decoded for one file only; and because an appended day rewrites no more than three times. Sources with long
chunks in time lose by it: such a chunk is decoded once for each file that it reaches into (`data.shard_mib` makes files
of one block and many times). The sharding follows from grid and channels alone, never from the length: stores grow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError

MIB = 2**20
_CHUNK_BYTES = MIB
"""Aim for one chunk: at 5.625 deg that is 128 channels, at 0.25 deg a single one takes 4 MiB."""
_SHARD_MIB = 64
_LARGEST_SHARD_MIB = 1024
"""A writer holds one and what it is encoded to."""
_TIMES_OF_ALL = 3
"""Of a shard that has all channels."""
_CLIMATOLOGY_MIB = 256
"""Of a shard of the climatology, whose writer holds the sums of all days beside it."""
_MOST_TIMES = 4096
"""Of a shard, whose index takes 16 bytes for each, there or not."""
_LEADS = 8
"""Times that statistics of the change are taken over, in leads: what is read twice is one part in so many."""
_CHANGE_BYTES = 256 * MIB
"""Most of one channel block to take them over."""


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
class Sharding:
    """Sizes of chunks and shards: a chunk is (1, channel_block, lat, lon), a shard `shard_times` of these for each of
    `shard_blocks` channel blocks."""

    n_times: int
    n_channels: int
    grid_shape: tuple[int, int]
    channel_block: int
    shard_blocks: int
    shard_times: int
    shard_mib: int
    """Aim for a shard of one block."""

    @property
    def field_bytes(self) -> int:
        """Of one field before compression."""
        return 4 * math.prod(self.grid_shape)

    @property
    def chunk_bytes(self) -> int:
        """Of one chunk before compression."""
        return self.channel_block * self.field_bytes

    @property
    def shard_channels(self) -> int:
        """Channels in a shard; the last may have fewer."""
        return self.channel_block * self.shard_blocks

    @property
    def shard_bytes(self) -> int:
        """Of one shard before compression; a store may be shorter than one."""
        return min(self.shard_times, self.n_times) * min(self.shard_channels, self.n_channels) * self.field_bytes

    @property
    def n_columns(self) -> int:
        """Shards side by side along the channels."""
        return -(-self.n_channels // self.shard_channels)

    @property
    def n_rows(self) -> int:
        """Shards one after the other in time."""
        return -(-self.n_times // self.shard_times)

    @property
    def state_bytes(self) -> int:
        """Of all of `state` before compression."""
        return self.n_times * self.n_channels * self.field_bytes

    def columns(self) -> list[slice]:
        """The channel ranges of shards."""
        return _ranges(self.n_channels, self.shard_channels)

    def channel_blocks(self) -> list[slice]:
        """The channel ranges of chunks."""
        return _ranges(self.n_channels, self.channel_block)

    def groups(self, together: tuple[tuple[int, ...], ...]) -> list[list[int]]:
        """Columns of shards (their numbers) to write from one read, as `together` of the source says."""
        group_of = list(range(self.n_columns))
        for channels in together:
            columns = {channel // self.shard_channels for channel in channels}
            merged = {group_of[column] for column in columns}
            group_of = [min(merged) if group in merged else group for group in group_of]
        return [[i for i, g in enumerate(group_of) if g == group] for group in dict.fromkeys(group_of)]

    def blocks(self) -> Iterator[Block]:
        """All shards of `state`, all channels of a time range before the next time range."""
        yield from self._blocks(self.shard_times)

    def change_rows(self, lead_steps: int) -> int:
        """Shards in a row over which the change over a lead is looked at together, so that short ones are not read
        twice."""
        wanted = -(-_LEADS * lead_steps // self.shard_times)
        return max(1, min(wanted, _CHANGE_BYTES // (self.shard_times * self.chunk_bytes)))

    def change_blocks(self, lead_steps: int) -> Iterator[Block]:
        """As `blocks`, of `change_rows` shards each."""
        yield from self._blocks(self.shard_times * self.change_rows(lead_steps))

    def climatology_rows(self, days: int) -> int:
        """Days of the climatology in one shard, which has one channel block and one hour."""
        return max(1, min(days, min(self.shard_mib, _CLIMATOLOGY_MIB) * MIB // self.chunk_bytes))

    @property
    def batch_times(self) -> int:
        """Times of one channel block that are read at once where there are many to go through."""
        return max(1, min(self.shard_mib, _SHARD_MIB) * MIB // self.chunk_bytes)

    def _blocks(self, times: int) -> Iterator[Block]:
        for row, part in enumerate(_ranges(self.n_times, times)):
            for column, channels in enumerate(self.columns()):
                yield Block(part, channels, row, column)


def choose_sharding(config: DataConfig, n_times: int, grid_shape: tuple[int, int]) -> Sharding:
    """Chunks of about 1 MiB of whole fields unless `config.channel_block` says otherwise; shards as said above.

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
    of_all = -(-_TIMES_OF_ALL * n_channels * field_bytes // MIB)
    if config.shard_mib is None and of_all > _SHARD_MIB:
        size = min(of_all, _LARGEST_SHARD_MIB)
        blocks, times = _fitting_blocks(n_channels, block, field_bytes, size)
        return Sharding(n_times, n_channels, grid_shape, block, blocks, times, size)
    size = config.shard_mib or _SHARD_MIB
    times = max(1, min(size * MIB // (block * field_bytes), _MOST_TIMES))
    return Sharding(n_times, n_channels, grid_shape, block, 1, times, size)


def _fitting_blocks(n_channels: int, block: int, field_bytes: int, size: int) -> tuple[int, int]:
    """(channel blocks, times) of a shard of `size` MiB: of all channels, or of equal parts where one time is larger."""
    n_blocks = -(-n_channels // block)
    parts = -(-n_blocks * block * field_bytes // (size * MIB))
    blocks = -(-n_blocks // parts)
    held = min(blocks * block, n_channels) * field_bytes
    return blocks, max(1, min(size * MIB // held, _TIMES_OF_ALL))


def _ranges(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
