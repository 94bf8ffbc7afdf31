"""The selected fields as one lazy array: a block is read when asked for, each stored field of it once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np

from weatherfm.data_pipeline.formats.pieces import Piece, Reader
from weatherfm.data_pipeline.formats.selection import Selection
from weatherfm.errors import InputError

_BLOCK_BYTES = 32 * 2**20
_LARGEST_BLOCK_BYTES = 256 * 2**20  # where the file's own chunks are long, to decode each only once


def lazy_state(selection: Selection) -> da.Array:
    """[time, channel, lat, lon] float32, canonical units; one task a block, whatever the number of files."""
    fields = Fields(selection)
    n_channel, n_time = selection.piece_of.shape
    chunks = (*_block_shape(selection, n_time, n_channel), *selection.grid.shape)
    return da.from_array(
        fields, chunks=chunks, name=False, asarray=False, fancy=False, meta=np.empty((0,) * 4, np.float32)
    )


@dataclass
class _Request:
    """Fields wanted from one reader."""

    reader: Reader
    rows: list[tuple[int, np.ndarray, Piece, np.ndarray]]
    """(channel position, time positions, piece, slots) in the block that is being filled."""


class Fields:
    """Array-like [time, channel, lat, lon] float32 that reads files on indexing; small, and it pickles."""

    ndim = 4
    dtype = np.dtype(np.float32)

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        n_channel, n_time = selection.piece_of.shape
        self.shape = (n_time, n_channel, *selection.grid.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Basic indexing, as dask does it."""
        key = key if isinstance(key, tuple) else (key,)
        key = (*key, *[slice(None)] * (4 - len(key)))
        times, channels = (np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.shape[:2], key[:2], strict=True))
        block = self.read(times, channels)
        lead = tuple(0 if isinstance(k, int | np.integer) else slice(None) for k in key[:2])
        part: np.ndarray = block[(*lead, *key[2:])]
        return part

    def read(self, times: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """[len(times), len(channels), lat, lon] for positions on the two axes."""
        out = np.empty((len(times), len(channels), *self.shape[2:]), np.float32)
        for request in self._requests(times, channels):
            try:
                self._fill(out, request)
            except (OSError, RuntimeError, IndexError) as error:
                path = request.rows[0][2].path
                raise InputError(
                    f"{path} could not be read ({type(error).__name__}: {error}); fetch it again"
                ) from error
        return out

    def _requests(self, times: np.ndarray, channels: np.ndarray) -> list[_Request]:
        """What each reader has to deliver, so that one read serves all levels and times of a block."""
        found: dict[int, _Request] = {}
        for i, channel in enumerate(channels):
            pieces, slots = self._selection.piece_of[channel, times], self._selection.slot_of[channel, times]
            for number in np.unique(pieces):
                piece = self._selection.pieces[number]
                where = np.flatnonzero(pieces == number)
                request = found.setdefault(id(piece.reader), _Request(piece.reader, []))
                request.rows.append((i, where, piece, slots[where]))
        return sorted(found.values(), key=lambda request: request.rows[0][2].path)  # each file is opened once

    def _fill(self, out: np.ndarray, request: _Request) -> None:
        slots = np.unique(np.concatenate([row[3] for row in request.rows]))
        levels = sorted({row[2].level for row in request.rows})
        values = request.reader.read(slots, levels)  # [slot, level, file lat, file lon]
        for channel, where, piece, wanted in request.rows:
            level = values[:, levels.index(piece.level)]
            for position, slot in zip(where, np.searchsorted(slots, wanted), strict=True):
                out[position, channel] = piece.conversion.apply(piece.orientation.arrange(level[slot]))


def _block_shape(selection: Selection, n_time: int, n_channel: int) -> tuple[int, int]:
    """(times, channels) of a block: about `_BLOCK_BYTES`, in step with how the files are chunked in time."""
    field = 4 * int(np.prod(selection.grid.shape))
    channels = min(n_channel, max(1, _BLOCK_BYTES // field))
    fitting = max(1, _BLOCK_BYTES // (field * channels))
    stored = max(piece.reader.time_chunk for piece in selection.pieces)
    largest = max(1, _LARGEST_BLOCK_BYTES // (field * channels))
    times = fitting // stored * stored if stored <= fitting else min(stored, largest)
    return min(times, n_time), channels
