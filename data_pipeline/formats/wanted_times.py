"""Which times of a file are looked at, before anything is made of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from weatherfm.data_pipeline.formats.pieces import Slots
from weatherfm.data_pipeline.store_config import DataConfig

Range = tuple[np.datetime64, np.datetime64]
"""First and last time, both included."""


@dataclass(frozen=True)
class Span:
    """Times worth a look: a store that is hourly for 150 years is told apart in an instant."""

    offered: Range | None = None
    """Only these times hold data; whatever a file lists beyond them is never used."""
    wanted: Range | None = None
    """What the config could need; a file that has none of it keeps all its times, so that messages can name them."""

    step: int = 1
    """Hours between times of instantaneous fields that the config could need, from 00 UTC on."""

    @classmethod
    def of(cls, data: DataConfig, offered: Range | None = None) -> Span:
        """What `data.period` needs: its days, and before them what the sums of its first times are made of."""
        step = math.gcd(data.step or 1, data.step_offset, 24)  # 12 UTC is on steps of 12 h
        if data.period is None:
            return cls(offered, step=step)
        before = max(24, data.step or 0, data.accumulation or 0) + 24
        first = np.datetime64(data.period.start, "s") - np.timedelta64(before, "h")
        return cls(offered, (first, np.datetime64(data.period.end, "s") + np.timedelta64(24, "h")), step)

    def limit(self, slots: Slots, accumulated: bool) -> Slots:
        """The slots inside; those without a time stay, and of `accumulated` fields those between steps."""
        keep = _inside(slots.times, self.offered)
        near = keep & _inside(slots.times, self.wanted)
        if self.step > 1 and not accumulated:
            since = (slots.times - np.datetime64(0, "s")) % np.timedelta64(self.step, "h")
            near &= np.isnat(slots.times) | (since == np.timedelta64(0, "s"))
        if (near & ~np.isnat(slots.times)).any():
            keep = near
        return slots if keep.all() else slots.keep(keep)


def _inside(times: np.ndarray, span: Range | None) -> np.ndarray:
    if span is None:
        return np.ones(len(times), bool)
    inside: np.ndarray = np.isnat(times) | ((times >= span[0]) & (times <= span[1]))
    return inside
