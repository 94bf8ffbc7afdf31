"""What makes a field unlike the one before it: rows or columns turned round, or other units from here on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from weatherfm.data_pipeline.fields.plausible import other_units
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.data_pipeline.verification.report import Stretch, name_stretches, stretches
from weatherfm.earth.variables import parse_channel

_CLOSER = 0.5
"""Turned back, the field must be at most so far from the other as it is now..."""
_LIKE = 0.7
"""...and so far as the other is from being flat: both show the same weather."""
_STEADY = 3.0
"""The mean of a field in units without a natural zero is beyond so many of its own standard deviations."""


@dataclass(frozen=True)
class Turn:
    """A step that is explained."""

    position: int
    """On the time axis: the field that is unlike the one before it."""
    kind: str
    """`flipped`, `swapped`, `rolled`, `mirrored` or `units`."""
    what: str
    """In words."""
    begins: bool | None
    """True where the fault begins here, False where it ends here, None where both look the same."""


_MOVES: tuple[tuple[str, str, Callable[[np.ndarray], np.ndarray]], ...] = (
    ("flipped", "has its latitudes upside down", lambda field: field[::-1]),
    ("swapped", "has its northern and southern half swapped", lambda field: np.roll(field, field.shape[0] // 2, 0)),
    ("rolled", "is rolled by half of the longitudes", lambda field: np.roll(field, field.shape[1] // 2, 1)),
    ("mirrored", "has its longitudes in reverse", lambda field: field[:, ::-1]),
    ("turned", "is turned upside down and mirrored", lambda field: field[::-1, ::-1]),
)
"""(kind, in words, what undoes it); each field is [lat, lon]."""


def read_turns(store: Store, channel: int, positions: np.ndarray, usual: np.ndarray) -> list[Turn]:
    """Those of the steps at `positions` [n] that a turn or other units explain; reads two fields for each.

    Args:
        store: to read from.
        channel: position of the channel.
        positions: of fields unlike the one before them.
        usual: [n] the change expected at each, canonical units.
    """
    weights = store.grid.area_weights / store.grid.area_weights.sum()
    found = []
    for position, expected in zip(positions, usual, strict=True):
        before, after = store.read([position - 1, position], [store.channels[channel]])[:, 0].astype(np.float64)
        if turn := explain(before, after, store.channels[channel], weights, float(expected)):
            found.append(Turn(int(position), *turn))
    return found


def explain(
    before: np.ndarray, after: np.ndarray, channel: str, weights: np.ndarray, usual: float
) -> tuple[str, str, bool | None] | None:
    """(kind, in words, begins) of what makes two neighbours unlike; None where nothing known does.

    Args:
        before: [lat, lon] float64.
        after: [lat, lon] float64, of the next time.
        channel: short name.
        weights: [lat, lon] of sum 1.
        usual: RMS change between neighbours, canonical units.
    """
    plain = _distance(before, after, weights)
    _, pattern = _mean_and_pattern(before, weights)
    tries: list[tuple[float, str, str, bool | None]] = []

    def attempt(one: np.ndarray, other: np.ndarray, limit: float, kind: str, what: str, begins: bool | None) -> None:
        distance = _distance(one, other, weights)
        if distance < min(_CLOSER * plain, limit):
            tries.append((distance, kind, what, begins))

    for kind, what, undo in _MOVES:
        attempt(undo(after), before, _LIKE * pattern, kind, what, None)
    for units in other_units(parse_channel(channel)):
        what = f"is in {units.name}"
        for one, other, here in ((after, before, True), (before, after, False)):
            mean, pattern = _mean_and_pattern(other, weights)
            steady = abs(mean) > _STEADY * pattern  # else one may be the other's calm, as a dry day that of a wet one
            limit = max(2 * usual, _LIKE * pattern) if steady else _LIKE * pattern
            attempt(units.scale * one + units.offset, other, limit, "units", what, here)
    if not tries:
        return None
    _, kind, what, begins = min(tries, key=lambda tried: tried[0])
    return kind, what, begins


def name_turns(store: Store, channel: int, turns: list[Turn]) -> Iterator[tuple[str, str, tuple[Stretch, ...]]]:
    """(kind, message, times) for each stretch of times that turns enclose."""
    for kind, what in dict.fromkeys((turn.kind, turn.what) for turn in turns):
        edges = [turn for turn in turns if (turn.kind, turn.what) == (kind, what)]
        starts = [0] * (edges[0].begins is False) + [edge.position for edge in edges]
        closed = [np.arange(a, b) for a, b in zip(starts[::2], starts[1::2], strict=False)]
        found = tuple(run for part in closed for run in stretches(store.times[part], store.step_hours))
        where = [f"at {name_stretches(found)}"] if found else []
        if len(starts) % 2:
            last = store.times[starts[-1] :][:1]
            found += stretches(last, store.step_hours)
            unsure = ", or it is the fields before" if edges[-1].begins is None else ""
            where.append(f"from {last[0].astype('datetime64[h]')} on{unsure}")
        yield kind, f"{store.channels[channel]} {what} {' and '.join(where)}", found


def _mean_and_pattern(field: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Area mean, and area RMS of the difference from it."""
    there = np.isfinite(field)
    mean = float((np.where(there, field, 0) * weights).sum() / (weights * there).sum())
    return mean, _distance(field, np.broadcast_to(mean, field.shape), weights)


def _distance(one: np.ndarray, other: np.ndarray, weights: np.ndarray) -> float:
    """Area RMS of the difference where both have values; infinite where they nowhere do."""
    square = np.square(one - other)
    there = np.isfinite(square)
    whole = float((weights * there).sum())
    return float(np.sqrt((np.where(there, square, 0) * weights).sum() / whole)) if whole > 0 else math.inf
