"""What is said of a field that stands in two places: whether both are equal, looked at in a few fields."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weatherfm.data_pipeline.formats.pieces import Piece
from weatherfm.errors import InputError, OutsideError

_LOOKED_AT = 3


def refuse_overlap(
    channel: str,
    times: np.ndarray,
    leads: np.ndarray,
    piece: np.ndarray,
    slot: np.ndarray,
    twice: np.ndarray,
    pieces: Sequence[Piece],
) -> None:
    """Refuse rows `twice` of a table in order of time, each of which has the time of the row after it.

    Raises:
        InputError: always; it names both files, and tells whether their values are equal.
    """
    i = int(twice[0])
    first, second = pieces[piece[i]], pieces[piece[i + 1]]
    where = f"{first.path} and {second.path}" if first.path != second.path else f"{first.path} (twice)"
    names = "" if first.name == second.name else f" (as {first.name} and as {second.name})"
    ends = leads[i], leads[i + 1]
    cure = "leave one out (source.exclude) or cut the files so that they do not overlap"
    if ends[0] != ends[1] and not np.isnan(ends).any():
        cure = (
            f"their lead times are {', '.join(f'{lead:g}h' for lead in sorted(ends))}: choose one with "
            "source.lead_time, or the latest forecast for each time with source.lead_time=shortest"
        )
    looked = twice[np.unique(np.linspace(0, len(twice) - 1, _LOOKED_AT).astype(int))]
    pairs = [[(pieces[piece[row]], int(slot[row])) for row in (int(k), int(k) + 1)] for k in looked]
    raise InputError(
        f"{channel} at {times[i]} stands in {where}{names}; {len(twice)} such "
        f"{'time' if len(twice) == 1 else 'times'} in all, {_compared(pairs)}; {cure}"
    )


def _compared(pairs: Sequence[Sequence[tuple[Piece, int]]]) -> str:
    """Words on how far the fields of each pair differ."""
    changes = []
    for first, second in pairs:
        try:
            one, other = (p.conversion.apply(p.orientation.arrange(p.reader.read(np.array([slot]), [p.level])[0, 0]))
                          for p, slot in (first, second))  # fmt: skip
        except (OSError, RuntimeError, IndexError, InputError, OutsideError) as error:
            return f"whose values could not be compared ({error})"
        alike = one.shape == other.shape and np.array_equal(np.isnan(one), np.isnan(other))
        changes.append(float(np.nanmax(np.abs(one - other), initial=0.0)) if alike else np.inf)
    subject = "" if len(pairs) == 1 else f" in the {len(pairs)} looked at"
    if max(changes) == 0:
        return f"with equal values{subject}"
    return f"with other values{subject}" + (f" (by up to {max(changes):.3g})" if np.isfinite(max(changes)) else "")
