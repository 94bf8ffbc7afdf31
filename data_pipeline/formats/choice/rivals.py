"""Two names for one channel in one file: one is taken, once both are known to hold the same values."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import numpy as np

from weatherfm.data_pipeline.formats.pieces import Piece, best_names
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError

_log = logging.getLogger(__name__)
_ALIKE = 2e-3
"""Of the spread of a field: z and g times a packed gh differ by less."""
_OTHER_ESTIMATES = {"mslet", "msletmsl", "mslet_meansealevel"}
"""Known to differ, as NCEP reduces pressure to sea level in two ways; the first name of the table is meant."""


def one_name_each(pieces: Iterable[Piece]) -> list[Piece]:
    """The pieces of one file, of each channel those under its best name.

    Raises:
        InputError: two names of one channel hold different values, and `source.rename` chooses neither.
    """
    rivals: dict[str, list[Piece]] = {}
    for piece in pieces:
        rivals.setdefault(piece.channel, []).append(piece)
    return [piece for some in rivals.values() for piece in _settled(some)]


def _settled(pieces: Sequence[Piece]) -> list[Piece]:
    if len({piece.name for piece in pieces}) == 1:
        return list(pieces)
    best = best_names(pieces)
    kept = [piece for piece in best if piece.name == best[0].name]
    chosen = kept[0].rank < 0
    if not chosen and parse_channel(kept[0].channel).variable.accumulated:
        return kept  # by the span that a sum's name tells
    for other in pieces:
        if chosen and other.rank >= 0:
            continue  # the config says which
        if other.name != kept[0].name and other.name.lower() not in _OTHER_ESTIMATES:
            for piece in kept:
                _compare(piece, other)
    return kept


def _compare(piece: Piece, other: Piece) -> None:
    """Refuse two fields that are not the same at the first or the last time they share."""
    rows, columns = _shared(piece.slots.times, other.slots.times)
    for row, column in zip(rows, columns, strict=True):
        mine, theirs = _field(piece, row), _field(other, column)
        if mine.shape != theirs.shape or not _alike(mine, theirs):
            time = piece.slots.times[row]
            raise InputError(
                f"{piece.path}: {piece.name} and {other.name} are both {piece.channel} and differ"
                f"{'' if np.isnat(time) else f' at {time}'}{_by_how_much(mine, theirs)}; say which is meant with "
                f"source.rename: {{{piece.name}: {piece.channel}}} or {{{other.name}: {piece.channel}}}"
            )
    if rows:
        names = piece.path, piece.name, other.name, piece.channel, piece.name
        _log.info("%s: %s and %s are both %s, with equal values; read is %s", *names)


def _shared(first: np.ndarray, second: np.ndarray) -> tuple[list[int], list[int]]:
    """Positions of the first and the last time that both have; of fields without times, the only one."""
    if len(first) and len(second) and np.isnat(first).all() and np.isnat(second).all():
        return [0], [0]
    _, rows, columns = np.intersect1d(first, second, return_indices=True)
    ends = sorted({0, len(rows) - 1}) if len(rows) else []
    return [int(rows[i]) for i in ends], [int(columns[i]) for i in ends]


def _field(piece: Piece, slot: int) -> np.ndarray:
    """[lat, lon] float64 in canonical units."""
    values = piece.reader.read(piece.slots.index[[slot]], [piece.level])[0, 0]
    return piece.conversion.exactly(piece.orientation.arrange(values))


def _alike(first: np.ndarray, second: np.ndarray) -> bool:
    if not np.array_equal(np.isnan(first), np.isnan(second)):
        return False
    there = first[~np.isnan(first)]
    spread = float(np.ptp(there)) if there.size else 0.0
    return bool(np.allclose(first, second, rtol=1e-6, atol=_ALIKE * spread, equal_nan=True))


def _by_how_much(first: np.ndarray, second: np.ndarray) -> str:
    if first.shape != second.shape:
        return f" in their grids ({first.shape} and {second.shape})"
    gap = np.abs(first - second)
    return f" by up to {np.nanmax(gap):g}" if np.isfinite(gap).any() else " in which points they have"
