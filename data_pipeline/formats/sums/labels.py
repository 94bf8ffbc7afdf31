"""Where sums stand in a store of means: at the times of their files, as all else that covers the same day.

A sum stands at its end. Daily means, as CMIP's, stand in the middle of their day in the file, and the day's rain beside
them too: at its end it would be half a day off the temperatures of the same day. So where every other channel of a
store is a mean over a day or less, sums keep the times of their file, and the manifest says how long after it they end.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from weatherfm.data_pipeline.formats.pieces import Piece
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError

_log = logging.getLogger(__name__)


def at_labels_of_means(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces of a store; among means over a day or less, sums at the times of their files.

    Raises:
        InputError: sums that lie about the times of their files in different ways.
    """
    others = [piece for piece in pieces if not _is_sum(piece) and not parse_channel(piece.channel).variable.constant]
    if not others or not all(piece.mean for piece in others):
        return list(pieces)
    found = [_at_label(piece) if _is_sum(piece) else piece for piece in pieces]
    for channel, lags in _lags(found).items():
        if len(lags) > 1:
            raise InputError(
                f"sums of {channel} end {', '.join(f'{lag:g}h' for lag in sorted(lags))} after the times of their "
                "files, some so and some so; leave some files out (source.exclude)"
            )
        if lag := lags.pop():
            _log.warning(
                "%s stands at the times of its files, %gh before its sums end, as all other channels are means over a "
                "day or less", channel, lag,
            )  # fmt: skip
    return found


def _is_sum(piece: Piece) -> bool:
    return parse_channel(piece.channel).variable.accumulated


def _at_label(piece: Piece) -> Piece:
    lags, labels = piece.slots.lags, piece.slots.labels
    if lags is None or labels is None or not len(lags):
        return piece
    if (lags != lags[0]).any():
        raise InputError(
            f"{piece.path}: the intervals of {piece.name} lie about its times in different ways (they end "
            f"{lags.min():g}h to {lags.max():g}h after them); leave the file out, or mend its bounds"
        )
    return replace(piece, slots=replace(piece.slots, times=labels), lag=float(lags[0]))


def _lags(pieces: Sequence[Piece]) -> dict[str, set[float]]:
    found: dict[str, set[float]] = {}
    for piece in pieces:
        if _is_sum(piece):
            found.setdefault(piece.channel, set()).add(piece.lag)
    return found
