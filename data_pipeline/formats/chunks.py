"""How a variable is stored: what reading one of its fields drags along."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class Chunking:
    """The chunks of a variable [*slots, level, lat, lon]; fields that share a chunk are read together or twice."""

    slots: tuple[int, ...]
    """Sizes of its dimensions of times, steps and members."""
    slot_chunks: tuple[int, ...]
    """Lengths of a chunk along them."""
    levels: int
    level_chunk: int
    tiles: int
    """Chunks that make up one field."""
    chunk_bytes: int
    """Of one chunk, decoded; 0 where a chunk is one field of whatever size."""

    @classmethod
    def single_fields(cls, count: int) -> Chunking:
        """Of `count` fields that are stored one by one, such as GRIB messages."""
        return cls((count,), (1,), 1, 1, 1, 0)

    @classmethod
    def of(cls, variable: xr.Variable, slots: Sequence[str], level: str | None) -> Chunking:
        """Of a variable as its file says; one that is not chunked is taken to be stored field by field."""
        lengths = _lengths(variable, {*slots, *([] if level is None else [level])})
        horizontal = [dim for dim in map(str, variable.dims) if dim not in slots and dim != level]
        return cls(
            tuple(variable.sizes[dim] for dim in slots),
            tuple(lengths[dim] for dim in slots),
            1 if level is None else variable.sizes[level],
            1 if level is None else lengths[level],
            math.prod(-(-variable.sizes[dim] // lengths[dim]) for dim in horizontal),
            int(math.prod(lengths.values()) * np.dtype(variable.encoding.get("dtype", variable.dtype)).itemsize),
        )

    @property
    def times(self) -> int:
        """Fields at one level in a chunk."""
        return math.prod(self.slot_chunks)

    @property
    def count(self) -> int:
        """Of all chunks."""
        return self.tiles * self.level_parts * math.prod(self._rows_along)

    @property
    def level_parts(self) -> int:
        """Chunks along the levels."""
        return -(-self.levels // self.level_chunk)

    def rows(self, slots: np.ndarray) -> np.ndarray:
        """[slot] number of the row of chunks that each slot lies in."""
        if not self.slots:
            return np.zeros(len(slots), np.int64)
        along = np.unravel_index(slots, self.slots)
        rows = [index // length for index, length in zip(along, self.slot_chunks, strict=True)]
        return np.ravel_multi_index(rows, self._rows_along)

    def place(self, row: int) -> tuple[int, ...]:
        """Number of a row of chunks along each dimension of slots."""
        return tuple(int(i) for i in np.unravel_index(row, self._rows_along)) if self.slots else ()

    def keys(self, slots: np.ndarray, level: int) -> np.ndarray:
        """Numbers of the distinct chunks (without regard to tiles) that hold a level at some slots."""
        found: np.ndarray = np.unique(self.rows(slots)) * self.level_parts
        return found + level // self.level_chunk

    def row_bytes(self, levels: Sequence[int], field_bytes: int) -> int:
        """Decoded bytes of the chunks of one row that hold `levels`."""
        parts = len({level // self.level_chunk for level in levels})
        return parts * self.tiles * (self.chunk_bytes or field_bytes)

    @property
    def _rows_along(self) -> tuple[int, ...]:
        return tuple(-(-size // length) for size, length in zip(self.slots, self.slot_chunks, strict=True))


def _lengths(variable: xr.Variable, single: set[str]) -> dict[str, int]:
    """Length of a chunk along each dimension."""
    dims = [str(dim) for dim in variable.dims]
    told = variable.encoding.get("chunks") or variable.encoding.get("chunksizes")
    if told is None or len(told) != len(dims):
        return {dim: 1 if dim in single else variable.sizes[dim] for dim in dims}
    return {dim: max(1, int(length)) for dim, length in zip(dims, told, strict=True)}
