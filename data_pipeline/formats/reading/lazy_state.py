"""The selected fields by position: a block is read when asked for, each stored field of it once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from weatherfm.data_pipeline.fields.derived import Derivation
from weatherfm.data_pipeline.fields.positions import Readable
from weatherfm.data_pipeline.formats.pieces import Piece, Reader
from weatherfm.data_pipeline.formats.reading.blocks import batches
from weatherfm.data_pipeline.formats.reading.packing import pack, unpack
from weatherfm.data_pipeline.formats.reading.selection import Selection
from weatherfm.data_pipeline.formats.sums.packing_noise import zero_noise
from weatherfm.errors import InputError, OutsideError


@dataclass
class _ReaderShare:
    """Fields wanted from one reader."""

    reader: Reader
    rows: list[tuple[int, np.ndarray, Piece, np.ndarray, np.ndarray]]
    """(channel position, time positions, piece, slots, signs in a sum) in the block that is being filled."""
    first: tuple[int, int]
    """(time position, term of its sum) of the first field wanted."""


class Fields(Readable):
    """The fields of a selection, read from its files; small, and it pickles."""

    def __init__(self, selection: Selection, derivation: Derivation | None = None) -> None:
        self._selection, self._derivation = selection, derivation
        n_channel, n_time = selection.piece_of.shape
        if derivation is not None:
            n_channel, self._hours = len(derivation.channels), derivation.window(selection.times)
        self.shape = (n_time, n_channel, *selection.grid.shape)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (self._packed,)

    @cached_property
    def _packed(self) -> bytes:
        return pack(self._selection, self._derivation)

    def read(self, times: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """[len(times), len(channels), lat, lon] for positions on the two axes."""
        if self._derivation is None or not self._derivation.computed:
            return self._stored(times, channels)
        held = self._derivation.needed(channels)
        at, grid = self._selection.times[times], self._selection.grid
        return self._derivation.compute(self._stored(times, held), held, channels, at, grid, self._hours)

    def _stored(self, times: np.ndarray, channels: np.ndarray) -> np.ndarray:
        out = np.empty((len(times), len(channels), *self.shape[2:]), np.float32)  # not touched before it is filled
        sums = {
            i: np.zeros((len(times), *self.shape[2:]))
            for i, channel in enumerate(channels)
            if channel in self._selection.sums
        }
        shares = self._by_reader(times, channels)
        for share in shares:
            try:
                if len(shares) == 1 and (whole := self._whole(share, out.shape)) is not None:
                    return whole
                self._fill(out, sums, share)
            except (InputError, OutsideError):
                raise
            except (OSError, RuntimeError, IndexError, ValueError) as error:
                piece, time = share.rows[0][2], self._selection.times[times[share.first[0]]]
                raise InputError(
                    f"{piece.path} could not be read ({type(error).__name__}: {error}; {piece.name} from "
                    f"{time.astype('datetime64[m]')} on); fetch it again"
                ) from error
        for i, total in sums.items():
            self._settle(total, times, int(channels[i]))
            out[:, i] = total
        return out

    def _settle(self, sums: np.ndarray, times: np.ndarray, channel: int) -> None:
        """Mend or refuse what differences of fields left below zero in `sums` [time, lat, lon]."""
        if (signs := self._selection.signs.get(channel)) is None:
            return
        pieces, slots = self._selection.terms_of(channel, times)
        for total, time, piece, slot, sign in zip(sums, times, pieces, slots, signs[times], strict=True):
            if (sign < 0).any():
                used = sign != 0
                zero_noise(
                    total, self._selection.times[time], [self._selection.pieces[i] for i in piece[used]], slot[used]
                )

    def _by_reader(self, times: np.ndarray, channels: np.ndarray) -> list[_ReaderShare]:
        """What each reader has to deliver, so that one read serves all levels and times of a block."""
        found: dict[int, _ReaderShare] = {}
        for i, channel in enumerate(channels):
            pieces, slots = self._selection.terms_of(int(channel), times)
            signs = self._signs(int(channel), times, pieces.shape)
            for number in np.unique(pieces):
                piece = self._selection.pieces[number]
                where, term = np.nonzero((pieces == number) & (signs != 0))
                if not len(where):
                    continue
                first = int(where[0]), int(term[0])
                share = found.setdefault(id(piece.reader), _ReaderShare(piece.reader, [], first))
                share.first = min(share.first, first)
                share.rows.append((i, where, piece, slots[where, term], signs[where, term]))
        # each file is opened once; sums go forward in time where files do
        return sorted(found.values(), key=lambda share: (share.first, share.rows[0][2].path))

    def _signs(self, channel: int, times: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """[time, term] 1 where a field is added, -1 where it is taken off, 0 where it is not needed."""
        signs = self._selection.signs.get(channel)
        return np.ones(shape, np.int8) if signs is None else signs[times]

    def _whole(self, share: _ReaderShare, shape: tuple[int, ...]) -> np.ndarray | None:
        """What one read gives, where that is the block already, without a copy. Else None, and nothing is read."""
        pieces, slots = [row[2] for row in share.rows], share.rows[0][3]
        levels = [piece.level for piece in pieces]
        ascending = bool((np.diff(slots) > 0).all()) and levels == sorted(set(levels))
        complete = len(slots) == shape[0] and len(levels) == shape[1]
        in_order = complete and ascending and all(piece.orientation.in_order for piece in pieces)
        alike = all(np.array_equal(row[3], slots) and row[0] not in self._selection.sums for row in share.rows)
        if not (in_order and alike and all(piece.conversion.is_identity for piece in pieces)):
            return None
        if len(list(batches(slots, levels, share.reader, 4 * int(np.prod(shape[2:]))))) > 1:
            return None
        return pieces[0].orientation.arrange(share.reader.read(slots, levels)).astype(np.float32, copy=False)

    def _fill(self, out: np.ndarray, sums: dict[int, np.ndarray], share: _ReaderShare) -> None:
        wanted = np.unique(np.concatenate([row[3] for row in share.rows]))
        levels = sorted({row[2].level for row in share.rows})
        field_bytes = 4 * int(np.prod(self.shape[2:]))
        for slots in batches(wanted, levels, share.reader, field_bytes):
            values = share.reader.read(slots, levels)  # [slot, level, file lat, file lon]
            for channel, where, piece, own, signs in share.rows:
                here = np.isin(own, slots)
                level = values[:, levels.index(piece.level)]
                at = np.searchsorted(slots, own[here])
                for position, slot, sign in zip(where[here], at, signs[here], strict=True):
                    field = piece.orientation.arrange(level[slot])
                    if channel in sums:
                        sums[channel][position] += sign * piece.conversion.exactly(field)
                    else:
                        out[position, channel] = piece.conversion.apply(field)


@lru_cache(maxsize=4)
def _unpacked(packed: bytes) -> Fields:
    """Once a process, not once a task."""
    return Fields(*unpack(packed))
