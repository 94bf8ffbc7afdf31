"""Reads once what a store keeps together: lead times that share a chunk are held until they are asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

AHEAD_BYTES = 256 * 2**20
"""Of fields that are kept for one block of initial times; lead times beyond it are read in a further go."""
_BLOCKS = 2
"""Blocks of initial times that are under way at a time."""

Read = Callable[[np.ndarray, Sequence[int], Sequence[str]], np.ndarray]
"""(positions of initial times, positions of lead times, channels) -> [lead, init, member, channel, lat, lon]."""


@dataclass
class _Kept:
    lock: threading.Lock = field(default_factory=threading.Lock)
    fields: dict[int, np.ndarray] | None = None
    """Position of a lead time -> [init, member, channel, lat, lon]; None until they are read."""


class ReadAhead:
    """Fields of one lead time after the other, from a store whose chunks may hold many.

    Args:
        read: reads several lead times together.
        together: lead times in a chunk.
        case_bytes: of one channel from one initial time at one lead time, with all members.
    """

    def __init__(self, read: Read, together: int, case_bytes: int) -> None:
        self._read, self._together, self._case_bytes = read, together, case_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[bytes, tuple[str, ...], tuple[int, ...]], _Kept] = OrderedDict()

    def read(self, inits: np.ndarray, lead: int, channels: Sequence[str], expected: Sequence[int]) -> np.ndarray:
        """[init, member, channel, lat, lon] at these positions; each is kept until it is taken for the first time.

        Args:
            inits: [init] positions.
            lead: position.
            channels: short names.
            expected: ascending positions of the lead times that will be asked for.
        """
        group = self._group(lead, expected, len(inits) * len(channels))
        if len(group) < 2:
            return self._read(inits, [lead], channels)[0]
        kept = self._find((inits.tobytes(), tuple(channels), group))
        with kept.lock:
            if kept.fields is None:
                kept.fields = dict(zip(group, self._read(inits, group, channels), strict=True))
            found = kept.fields.pop(lead, None)
        return self._read(inits, [lead], channels)[0] if found is None else found

    def _group(self, lead: int, expected: Sequence[int], cases: int) -> tuple[int, ...]:
        """Expected lead times in the chunk of this one, no more of them than may be kept."""
        same = [other for other in expected if other // self._together == lead // self._together]
        if lead not in same:
            return (lead,)
        most = max(1, AHEAD_BYTES // max(1, cases * self._case_bytes))
        start = same.index(lead) // most * most
        return tuple(same[start : start + most])

    def _find(self, key: tuple[bytes, tuple[str, ...], tuple[int, ...]]) -> _Kept:
        with self._lock:
            kept = self._kept.setdefault(key, _Kept())
            self._kept.move_to_end(key)
            while len(self._kept) > _BLOCKS:
                self._kept.popitem(last=False)
            return kept
