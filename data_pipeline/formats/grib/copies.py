"""Fields that stand in one GRIB file twice, as NCEP's sums over the first hours of a forecast do."""

from __future__ import annotations

import logging

import numpy as np

from weatherfm.data_pipeline.formats.grib.index import GribIndex
from weatherfm.data_pipeline.formats.pieces import Reader, Slots
from weatherfm.errors import InputError

_log = logging.getLogger(__name__)


def refuse_different_copies(
    channel: str, slots: Slots, order: np.ndarray, twice: np.ndarray, index: GribIndex, reader: Reader
) -> None:
    """Compare each of the fields `order[twice]` with the one after it, which says the same of itself.

    Equal are values that differ by what packing makes of them: GFS holds its rain of the first six hours as the sum of
    the last six and as that since the start.

    Args:
        channel: what the fields hold.
        slots: all fields of the channel in the file.
        order: [field] positions in `slots`, those of the same time one after the other.
        twice: positions in `order`.
        index: of the file, which tells the kind of each field.
        reader: of its fields.

    Raises:
        InputError: two that differ (without the file's name).
    """
    for at in twice:
        first, second = (int(slots.index[order[at + i]]) for i in (0, 1))
        if (gap := _gap(first, second, reader)) > 0:
            kinds = [index.headers[index.kind[i]].data_type for i in (first, second)]
            told = f", one of type {kinds[0]} and one of type {kinds[1]}" if kinds[0] != kinds[1] else ""
            raise InputError(
                f"it holds {channel} at {slots.times[order[at]]} twice (messages {first + 1} and {second + 1}{told}), "
                f"with other values (by up to {gap:.3g}); keep one of them, e.g. with `grib_copy -w type=an` or "
                "`-w count=N`"
            )
    if len(twice):
        _log.info(
            "%d fields of %s stand in their file twice with equal values, the first at %s",
            len(twice), channel, slots.times[order[twice[0]]],
        )  # fmt: skip


def _gap(first: int, second: int, reader: Reader) -> float:
    """By how much two fields differ beyond their packing, in the file's units."""
    one, other = (reader.read(np.array([slot]), [0])[0, 0] for slot in (first, second))
    if one.shape != other.shape or not np.array_equal(np.isnan(one), np.isnan(other)):
        return float("inf")
    gap = float(np.nanmax(np.abs(one - other), initial=0.0))
    allowed = (reader.value_step(first) + reader.value_step(second)) / 2
    return gap if gap > allowed * (1 + 1e-6) else 0.0
