"""Fields of a store that are kept in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class KeptFields:
    """Some times of some channels, as a store holds them."""

    fields: np.ndarray
    """[kept, channel, lat, lon] float32."""
    rows: np.ndarray
    """[time] int64 position of each time of the store in `fields`; -1 where it is not kept."""
    channels: tuple[str, ...]
    """Names along `fields`."""

    def take(self, time_indices: np.ndarray, channels: tuple[str, ...], out: np.ndarray) -> bool:
        """Copy the fields of `time_indices` [n] into `out` [n, channel, lat, lon]; False where one is not kept."""
        inside = (time_indices >= 0) & (time_indices < len(self.rows))
        if not inside.all() or not set(channels) <= set(self.channels):
            return False
        rows = self.rows[time_indices]
        if (rows < 0).any():
            return False
        if channels == self.channels:
            np.take(self.fields, rows, axis=0, out=out, mode="clip")  # other modes copy twice
        else:
            out[...] = self.fields[rows[:, None], [self.channels.index(name) for name in channels]]
        return True
