"""How the lazy state is cut into blocks, so that each stored chunk is decoded once and never too many at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from weatherfm.data_pipeline.fields.derived import Derivation
from weatherfm.data_pipeline.formats.pieces import Piece, Reader
from weatherfm.data_pipeline.formats.reading.selection import Selection

_log = logging.getLogger(__name__)

BLOCK_BYTES = 32 * 2**20
"""Aim for one block of fields."""
LARGEST_BLOCK_BYTES = 256 * 2**20
"""Where the source's chunks are long in time, to decode each only once."""
DECODE_BYTES = 128 * 2**20
"""Decoded chunks held at a time, unless a single one is larger (ARCO-ERA5's are 154 MB)."""


_MOST_TOGETHER = 40
"""Channels that are kept together at most: a little more than ERA5's 37 levels."""
_FINE = 2**20
"""Bytes of a field from which on `prepare` writes channels apart, and what shares no chunk is read apart."""


@dataclass(frozen=True)
class Blocks:
    """How the channels of a state are cut, and its times."""

    times: tuple[int, ...]
    """Lengths along time; whole chunks of the source."""
    channels: tuple[int, ...]
    """Lengths along channel."""
    together: tuple[tuple[int, ...], ...]
    """Neighbouring channels that share chunks (or stand between such): reading one costs as much as all."""


def blocks_of(selection: Selection, derivation: Derivation | None, n_channel: int) -> Blocks:
    """About `BLOCK_BYTES` each, in step with how the source is chunked in time; what shares chunks shares a block.

    Slices of the state reach down to the reader, so that a block may be larger than what is asked for at a time.
    """
    field = 4 * int(np.prod(selection.grid.shape))
    runs = _runs(sharing(selection, derivation, n_channel), n_channel, field)
    most = max(1, BLOCK_BYTES // field)
    lengths = [0]
    for run in runs:
        if lengths[-1] and (field >= _FINE or lengths[-1] + len(run) > most):  # a block of one reader is not copied
            lengths.append(0)
        lengths[-1] += len(run)
    fitting = max(1, BLOCK_BYTES // (field * max(lengths)))
    largest = max(fitting, LARGEST_BLOCK_BYTES // (field * max(lengths)))
    times = tuple(_joined(_chunk_lengths(selection), fitting, largest))
    return Blocks(times, tuple(lengths), tuple(tuple(run) for run in runs if len(run) > 1))


def _runs(groups: Sequence[Sequence[int]], n_channel: int, field_bytes: int) -> list[range]:
    """Runs of neighbouring channels that hold each group whole; single channels where that would join too many."""
    last = list(range(n_channel))
    for group in groups:
        last[group[0]] = group[-1]
    runs, start, end = [], 0, 0
    for channel in range(n_channel):
        end = max(end, last[channel])
        if channel == end:
            runs.append(range(start, end + 1))
            start = end = end + 1
    if max(map(len, runs)) <= _MOST_TOGETHER:
        return runs
    if field_bytes >= _FINE:
        _log.warning(
            "channels of one variable stand far apart in data.channels: each reads their common chunks again; list the "
            "levels of a variable side by side"
        )
    return [range(i, i + 1) for i in range(n_channel)]


def sharing(selection: Selection, derivation: Derivation | None, n_channel: int) -> list[list[int]]:
    """Positions of channels that are in the same stored chunks at the first time, as sets in the order of the first."""
    first = np.zeros(1, np.int64)
    owners: dict[tuple[int, int], int] = {}
    group_of = list(range(n_channel))
    for channel in range(n_channel):
        for held in [channel] if derivation is None else derivation.needed(np.array([channel])):
            pieces, slots = selection.terms_of(int(held), first)
            piece = selection.pieces[int(pieces[0, -1])]
            for key in piece.reader.chunks.keys(slots[0, -1:], piece.level).tolist():
                owner = group_of[owners.setdefault((id(piece.reader), key), channel)]
                old = group_of[channel]
                group_of = [owner if group == old else group for group in group_of]
    return [[i for i, group in enumerate(group_of) if group == one] for one in dict.fromkeys(group_of)]


def batches(slots: np.ndarray, levels: Sequence[int], reader: Reader, field_bytes: int) -> Iterator[np.ndarray]:
    """Ascending `slots` in parts, so that each chunk is in one part and a part's chunks take `DECODE_BYTES` or less."""
    rows = reader.chunks.rows(slots)
    order = np.argsort(rows, kind="stable")
    starts = np.flatnonzero(np.diff(rows[order], prepend=-1))
    most = max(1, DECODE_BYTES // batch_row_bytes(levels, reader, field_bytes))
    for part in np.split(order, starts[most::most]):
        yield np.sort(slots[part])


def batch_row_bytes(levels: Sequence[int], reader: Reader, field_bytes: int) -> int:
    """Held for one row of chunks: decoded chunks, or the fields as float64 where these are more."""
    chunks = reader.chunks
    return max(chunks.row_bytes(levels, field_bytes), 2 * field_bytes * len(levels) * chunks.times)


def block_bytes(selection: Selection, blocks: Blocks) -> int:
    """Most that reading one block holds beside it: chunks as stored, decoded, and the fields taken out of them."""
    field = 4 * int(np.prod(selection.grid.shape))
    readers: dict[int, list[Piece]] = {}
    for piece in selection.pieces:
        readers.setdefault(id(piece.reader), []).append(piece)
    row = max(batch_row_bytes([piece.level for piece in own], own[0].reader, field) for own in readers.values())
    sums = 2 * field * max(blocks.times) * min(len(selection.sums), max(blocks.channels))
    return 3 * max(row, min(DECODE_BYTES, row * max(blocks.times))) + sums


def _chunk_lengths(selection: Selection) -> list[int]:
    """Numbers of selected times that lie in the same chunk, of the channel whose chunks are longest."""
    numbers = [int(row[0]) for row in selection.piece_of]
    channel = max(range(len(numbers)), key=lambda i: selection.pieces[numbers[i]].reader.chunks.times)
    pieces, slots = selection.piece_of[channel], selection.slot_of[channel]
    keys = np.empty(len(slots), np.int64)
    for number in np.unique(pieces):
        where = pieces == number
        keys[where] = selection.pieces[number].reader.chunks.rows(slots[where])
    return [len(list(same)) for _, same in groupby(zip(pieces.tolist(), keys.tolist(), strict=True))]


def _joined(lengths: Sequence[int], fitting: int, largest: int) -> Iterator[int]:
    """Whole chunks joined up to `fitting`; a chunk longer than `largest` is cut."""
    joined = 0
    for length in lengths:
        if joined and joined + length > fitting:
            yield joined
            joined = 0
        while length > largest:
            yield largest
            length -= largest
        joined += length
    if joined:
        yield joined
