"""What packing leaves of differences: rain cannot be negative, but the difference of two packed sums can."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weatherfm.data_pipeline.formats.pieces import Piece
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError

_PACKED = 2.0**-16
"""Step of 16 bits, as a share of the largest sum there can be: what plain floats may hide, once unpacked from GRIB."""
_FLOAT = 2.0**-23
"""Rounding of float32, as a share of the same."""


def zero_noise(total: np.ndarray, time: np.datetime64, pieces: Sequence[Piece], slots: np.ndarray) -> None:
    """Set what is negative only by packing to zero, in place.

    Each of two packed values may be half a step off, so their difference is, by a step at most.

    Args:
        total: [lat, lon] sum and difference of fields, canonical units.
        time: of the sum.
        pieces: where each term comes from.
        slots: [term] which field.

    Raises:
        InputError: a value is negative by more; names file and time.
    """
    variable = parse_channel(pieces[0].channel).variable
    low, high = variable.bounds
    if low < -1e-3 * high or not (total < 0).any():
        return  # of both signs, as net fluxes
    steps = [abs(p.conversion.factor) * p.reader.value_step(int(slot)) for p, slot in zip(pieces, slots, strict=True)]
    known = all(step > 0 for step in steps)
    limit = _FLOAT * high + (sum(steps) / 2 if known else max(_PACKED * high, *steps))
    worst = float(np.nanmin(total))
    if worst < -limit:
        raise InputError(
            f"{pieces[-1].path}: the sum of {variable.short} that ends {time.astype('datetime64[h]')} would be "
            f"{worst:.3g} {variable.units}, which packing (to about {limit:.1g}) does not explain: its fields are no "
            "sums since a start, or one is damaged; say what they are with source.sums, e.g. 1h, or mend the file"
        )
    total[total < 0] = 0.0
