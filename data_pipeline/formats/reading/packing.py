"""A selection made small for the way to another process: 60,000 times of 90 channels are 60 MB, packed a few kB."""

from __future__ import annotations

import pickle
import zlib
from dataclasses import replace
from typing import Any

import numpy as np

from weatherfm.data_pipeline.formats.pieces import Piece, Slots
from weatherfm.data_pipeline.formats.reading.selection import Selection

_NO_SLOTS = Slots(*(np.empty(0, kind) for kind in ("datetime64[s]", float, int, int, bool)))


def pack(selection: Selection, *others: Any) -> bytes:
    """What reading needs of a selection; which time of a file is which has been settled and stays behind."""
    lean = replace(
        selection,
        times=_steps(selection.times.astype(np.int64)[None]),
        pieces=[_lean(piece) for piece in selection.pieces],
        piece_of=_steps(selection.piece_of),
        slot_of=_steps(selection.slot_of),
        sums={i: (_steps(piece.T), _steps(slot.T)) for i, (piece, slot) in selection.sums.items()},
        signs={i: _steps(signs.T) for i, signs in selection.signs.items()},
    )
    return zlib.compress(pickle.dumps((lean, *others), protocol=5), 1)


def unpack(packed: bytes) -> tuple[Any, ...]:
    """(selection, *others) of `pack`."""
    lean, *others = pickle.loads(zlib.decompress(packed))
    whole = replace(
        lean,
        times=_sums(lean.times)[0].astype("datetime64[s]"),
        piece_of=_sums(lean.piece_of),
        slot_of=_sums(lean.slot_of),
        sums={i: (_sums(piece).T, _sums(slot).T) for i, (piece, slot) in lean.sums.items()},
        signs={i: _sums(signs).T for i, signs in lean.signs.items()},
    )
    return whole, *others


def _lean(piece: Piece) -> Piece:
    return replace(piece, slots=_NO_SLOTS)


def _steps(rows: np.ndarray) -> np.ndarray:
    """[row, time] -> differences along time, which compress to nothing."""
    return np.diff(rows, axis=1, prepend=rows.dtype.type(0))


def _sums(steps: np.ndarray) -> np.ndarray:
    return np.cumsum(steps, axis=1, dtype=steps.dtype)
