"""Where one field of a selection stands: file and name, for messages."""

from __future__ import annotations

import numpy as np

from weatherfm.data_pipeline.fields.derived import Derivation
from weatherfm.data_pipeline.formats.selection import Selection


def place_of(selection: Selection, derivation: Derivation, channel: int, time: int) -> str:
    """File and name of the field, or of all that it is computed from.

    Args:
        selection: which field of which file stands for what is stored.
        derivation: how channels come of it.
        channel: position among the channels of `derivation`.
        time: position on the time axis of `selection`.
    """
    pieces = []
    for held in derivation.needed(np.array([channel])):
        numbers, _ = selection.terms_of(int(held), np.array([time]))
        pieces.append(selection.pieces[int(numbers[0, -1])])
    names = dict.fromkeys(f"{piece.name} of {piece.path}" for piece in pieces)
    return " and ".join(names)
