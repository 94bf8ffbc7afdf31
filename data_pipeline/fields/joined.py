"""Fields of several sources as those of one: by channel, or one source after the other in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weatherfm.data_pipeline.fields.positions import BlockEnds, Portion, Readable
from weatherfm.data_pipeline.fields.source_data import SourceData


@dataclass(frozen=True, eq=False)
class Place:
    """Where a source's fields stand among those of several."""

    fields: Readable
    ends: BlockEnds
    """Of the blocks that the source is best read in; no more than these is read at once."""
    times: np.ndarray
    """[time] positions on the source's axis, one a time of the whole; -1 where another source has it."""
    channels: np.ndarray
    """[channel] the same for channels."""

    @classmethod
    def of(cls, source: SourceData, times: np.ndarray, channels: np.ndarray) -> Place:
        """As the source itself says."""
        return cls(source.fields, BlockEnds.of(source.state), times, channels)


class JoinedFields(Readable):
    """Fields of which each is one source's."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = tuple(places)
        first = places[0]
        self.shape = (len(first.times), len(first.channels), *first.fields.shape[2:])

    def read(self, times: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """[len(times), len(channels), lat, lon] for positions on the two axes."""
        out = np.full((len(times), len(channels), *self.shape[2:]), np.nan, np.float32)
        for place in self._places:
            rows, columns = place.times[times], place.channels[channels]
            mine, own = np.flatnonzero(rows >= 0), np.flatnonzero(columns >= 0)
            if len(mine) and len(own):
                out[np.ix_(mine, own)] = _read(place, rows[mine], columns[own])
        return out


def _read(place: Place, times: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """Of one source, whose blocks want ascending positions."""
    at, row = np.unique(times, return_inverse=True)
    of, column = np.unique(channels, return_inverse=True)
    return Portion.within(place.ends, at, of).read(place.fields)[np.ix_(row, column)]
