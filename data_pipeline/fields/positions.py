"""Fields by position on the axes of time and channel: what a source reads from, and what a shard is made of.

Whoever writes a store asks for positions and gets fields. Nothing here knows the whole record, so that a task costs
what it holds, however long the record is; a lazy array of all of it is a view for people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

from weatherfm.earth.grid import Grid

STATE_DIMS = ("time", "channel", "latitude", "longitude")


class Readable:
    """Array-like [time, channel, lat, lon] float32 that is read on indexing, by the `read` of its kind.

    It must pickle, and small, for the workers of a cluster; several threads read from one at a time.
    """

    ndim = 4
    dtype = np.dtype(np.float32)
    shape: tuple[int, ...]

    def __getitem__(self, key: Any) -> np.ndarray:
        """Indexing of each axis by itself, as dask does it."""
        key = key if isinstance(key, tuple) else (key,)
        key = (*key, *[slice(None)] * (4 - len(key)))
        times, channels = (np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.shape[:2], key[:2], strict=True))
        part = self.read(times, channels)
        taken = [0 if isinstance(k, int | np.integer) else slice(None) for k in key[:2]]
        for axis, index in reversed(list(enumerate([*taken, *key[2:]]))):
            part = part[(slice(None),) * axis + (index,)]
        return part

    def read(self, times: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """[len(times), len(channels), lat, lon] for positions on the two axes."""
        raise NotImplementedError


class ArrayFields(Readable):
    """The fields of a DataArray that somebody made: lazy or in memory."""

    def __init__(self, state: xr.DataArray) -> None:
        self._state, self.shape = state, state.shape

    def read(self, times: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """[len(times), len(channels), lat, lon]; of a dask array only the blocks that hold them are computed."""
        part = self._state.variable.isel(time=_evenly(times), channel=_evenly(channels)).data
        if dask.is_dask_collection(part):
            part = part.compute(scheduler="synchronous")
        return np.asarray(part)


def view(fields: Readable, times: np.ndarray, channels: Sequence[str], grid: Grid, blocks: Any) -> xr.DataArray:
    """All fields as one lazy [time, channel, latitude, longitude] array, for people and for headers.

    Args:
        fields: what to read from.
        times: [time] datetime64.
        channels: short names.
        grid: of every field.
        blocks: (lengths along time, lengths along channel) of what is best read at once.
    """
    meta = np.empty((0,) * 4, np.float32)
    data = da.from_array(fields, chunks=(*blocks, *grid.shape), name=False, asarray=False, meta=meta)
    coordinates = {
        "time": times.astype("datetime64[ns]"),
        "channel": list(channels),
        "latitude": grid.latitude,
        "longitude": grid.longitude,
    }
    return xr.DataArray(data, coordinates, STATE_DIMS, name="state")


@dataclass(frozen=True, eq=False)
class BlockEnds:
    """Where the blocks end that a source is best read in."""

    times: np.ndarray
    """[block] position behind the last time of each."""
    channels: np.ndarray
    """[block] position behind the last channel of each."""

    @classmethod
    def of(cls, state: xr.DataArray) -> BlockEnds:
        """The chunks of a dask array; one block where there are none."""
        lengths = state.chunks[:2] if state.chunks else [(n,) for n in state.shape[:2]]
        return cls(*(np.cumsum(one) for one in lengths))

    def largest(self) -> tuple[int, int]:
        """Most times and most channels in a block."""
        times, channels = (int(np.diff(ends, prepend=0).max()) for ends in (self.times, self.channels))
        return times, channels


@dataclass(frozen=True, eq=False)
class Portion:
    """Fields to read at once, block by block: some times of some channels, by ascending positions."""

    times: np.ndarray
    """[time] positions on the source's axis."""
    channels: np.ndarray
    """[channel] positions on the source's axis."""
    parts: tuple[tuple[slice, slice], ...]
    """Ranges of `times` and of `channels` that lie in one block each; together all of them."""

    @classmethod
    def within(cls, ends: BlockEnds, times: np.ndarray, channels: np.ndarray) -> Portion:
        """Cut at the ends of the source's blocks; costs what it holds, not what the source has."""
        rows, columns = _ranges(times, ends.times), _ranges(channels, ends.channels)
        return cls(times, channels, tuple((row, column) for row in rows for column in columns))

    def read(self, fields: Readable, threads: int = 1) -> np.ndarray:
        """[time, channel, lat, lon] float32, each block read once; held beside the result: a block a thread."""
        if len(self.parts) == 1:
            return np.asarray(fields.read(self.times, self.channels), np.float32)
        out = np.empty((len(self.times), len(self.channels), *fields.shape[2:]), np.float32)
        if threads == 1:
            for part in self.parts:
                self._fill(out, fields, part)
            return out
        fill = dask.delayed(self._fill, pure=False, traverse=False)
        dask.compute(*[fill(out, fields, part) for part in self.parts], scheduler="threads", num_workers=threads)
        return out

    def _fill(self, out: np.ndarray, fields: Readable, part: tuple[slice, slice]) -> None:
        out[part] = fields.read(self.times[part[0]], self.channels[part[1]])


def _ranges(positions: np.ndarray, ends: np.ndarray) -> list[slice]:
    """Ranges of ascending `positions` that lie in the same block."""
    blocks = np.searchsorted(ends, positions, side="right")
    starts = [0, *(np.flatnonzero(np.diff(blocks)) + 1).tolist()]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(positions)], strict=True)]


def _evenly(positions: np.ndarray) -> slice | np.ndarray:
    """A slice where the positions are evenly spaced: cheaper for every reader."""
    step = int(positions[1] - positions[0]) if len(positions) > 1 else 1
    if step < 1:
        return positions
    even = slice(int(positions[0]), int(positions[-1]) + 1, step)
    return even if np.array_equal(np.arange(even.start, even.stop, step), positions) else positions
