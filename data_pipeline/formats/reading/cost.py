"""What reading fields will take, told from how their files are chunked; no field is read for it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from weatherfm.data_pipeline.fields.source_data import ReadCost
from weatherfm.data_pipeline.formats.pieces import Reader
from weatherfm.data_pipeline.formats.reading.selection import Selection

WASTEFUL = 4.0
"""Times more moved than kept from which on a word is said."""


@dataclass(eq=False)
class _Use:
    """What is wanted of one reader, or of all readers of one variable."""

    reader: Reader
    levels: set[int] = field(default_factory=set)
    parts: set[int] = field(default_factory=set)
    """Chunks along the levels whose keys at the last `slots` are noted."""
    slots: list[np.ndarray] = field(default_factory=list)
    keys: list[np.ndarray] = field(default_factory=list)
    fields: int = 0

    def add(self, slots: np.ndarray, level: int) -> None:
        """One more channel; most have the times of the channel before, which are not gone through again."""
        own = slots if (np.diff(slots) > 0).all() else np.unique(slots)
        known = bool(self.slots) and np.array_equal(own, self.slots[-1])
        part = level // self.reader.chunks.level_chunk
        if not known or part not in self.parts:
            self.keys.append(self.reader.chunks.keys(own, level))
        if not known:
            self.slots.append(own)
            self.parts.clear()
        self.parts.add(part)
        self.levels.add(level)
        self.fields += len(own)

    def cost(self, field_bytes: int) -> ReadCost:
        """Without advice."""
        chunks, keys = self.reader.chunks, np.unique(np.concatenate(self.keys))
        requests = len(keys) * chunks.tiles
        moved = requests * (chunks.chunk_bytes or field_bytes)
        return ReadCost(self.fields * field_bytes, moved, self.reader.stored_bytes(keys), requests)

    def waste(self) -> tuple[str, ...]:
        """Why more is moved than kept, in words."""
        chunks, slots = self.reader.chunks, np.unique(np.concatenate(self.slots))
        parts = len({level // chunks.level_chunk for level in self.levels})
        stored = len(np.unique(chunks.rows(slots))) * chunks.times
        reasons = []
        if parts * chunks.level_chunk >= 2 * len(self.levels):
            asked = f"{len(self.levels)} {'is' if len(self.levels) == 1 else 'are'}"
            reasons.append(f"{chunks.level_chunk} levels in one chunk, of which {asked} asked for")
        if stored >= 2 * len(slots):
            reasons.append(f"{chunks.times} times in one chunk, of which one in {stored / len(slots):.2g} is asked for")
        return tuple(reasons)


def read_cost(selection: Selection, indices: np.ndarray) -> ReadCost:
    """Of all fields that the selection's channels need at positions `indices` on its time axis."""
    field_bytes = 4 * int(np.prod(selection.grid.shape))
    total = ReadCost()
    wasted: dict[tuple[str, ...], tuple[ReadCost, list[str]]] = {}
    for name, use in _uses(selection, indices):
        cost = use.cost(field_bytes)
        total += cost
        if cost.moved >= WASTEFUL * cost.wanted:
            before, names = wasted.get(reasons := use.waste(), (ReadCost(), []))
            wasted[reasons] = before + cost, [*names, *([] if name in names else [name])]
    advice = [_advice(names, reasons, cost.moved / cost.wanted) for reasons, (cost, names) in wasted.items()]
    return total + ReadCost(advice=tuple(advice))


def _uses(selection: Selection, indices: np.ndarray) -> list[tuple[str, _Use]]:
    """(name in the file, what is wanted) of every reader."""
    uses: dict[int, tuple[str, _Use]] = {}
    for channel in range(len(selection.piece_of)):
        pieces, slots = (part.ravel() for part in selection.terms_of(channel, indices))
        order = np.argsort(pieces, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(pieces[order])) + 1):
            if not len(rows):
                continue
            piece = selection.pieces[int(pieces[rows[0]])]
            _, use = uses.setdefault(id(piece.reader), (piece.name, _Use(piece.reader)))
            use.add(slots[rows], piece.level)
    return list(uses.values())


def _advice(names: list[str], reasons: tuple[str, ...], ratio: float) -> str:
    listed = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    why = " and ".join(reasons) or "chunks that reach beyond what is asked for"
    return f"the source keeps {listed} with {why}: {ratio:.3g} times more is moved than kept"
