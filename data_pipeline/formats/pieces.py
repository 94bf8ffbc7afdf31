"""What the headers of files tell: for each channel, which file holds which times, before any field is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import numpy as np

from weatherfm.data_pipeline.access import PUBLIC, Access
from weatherfm.data_pipeline.formats.chunks import Chunking
from weatherfm.data_pipeline.formats.orientation import Orientation
from weatherfm.data_pipeline.formats.units import Conversion

NO_MEMBER = -1
"""Member number of fields that belong to no ensemble."""


class Reader(Protocol):
    """Reads fields of one variable of one file (or of all messages of one GRIB file)."""

    @property
    def chunks(self) -> Chunking:
        """Which fields are stored together: reading one of them costs as much as all."""
        ...

    def stored_bytes(self, keys: np.ndarray) -> int:
        """Bytes on disk or across the network of the chunks `keys` (of `chunks.keys`, with all their tiles).

        An estimate where looking at each would take long.
        """
        ...

    def read(self, slots: np.ndarray, levels: Sequence[int]) -> np.ndarray:
        """[slot, level, file lat, file lon] in the file's units and order; missing values are NaN."""
        ...

    def value_step(self, slot: int) -> float:
        """Distance of neighbouring values that a field can hold, in the file's units: the step of its packing.

        Zero where it is not packed, or packed in another way.
        """
        ...


@dataclass(frozen=True, eq=False)
class Slots:
    """The fields that a variable has at one level: one row for each time, lead time and member."""

    times: np.ndarray
    """[slot] datetime64[s], valid times; NaT where the file has no time."""
    leads: np.ndarray
    """[slot] hours since the forecast started; NaN where the file does not say."""
    numbers: np.ndarray
    """[slot] ensemble member, or NO_MEMBER."""
    index: np.ndarray
    """[slot] what the reader calls it."""
    preliminary: np.ndarray
    """[slot] bool: ERA5T, which its centre will replace by final ERA5."""
    accumulated: np.ndarray | None = None
    """[slot] hours that a field is summed over, NaN where it is not; None where the file never says."""
    experiments: np.ndarray | None = None
    """[slot] name of the experiment, empty where none is told; None where the file never says."""
    labels: np.ndarray | None = None
    """[slot] datetime64[s], the file's own times, where `times` are the ends of sums instead."""
    lags: np.ndarray | None = None
    """[slot] hours from these to the ends, by the file's calendar."""

    def keep(self, rows: np.ndarray) -> Slots:
        """Only some of them."""
        columns: list[Any] = [getattr(self, column.name) for column in fields(self)]
        kept: list[Any] = [None if values is None else values[rows] for values in columns]
        return Slots(*kept)


@dataclass(frozen=True, eq=False)
class Piece:
    """One channel in one file."""

    path: str
    name: str
    """The file's name for the field."""
    channel: str
    reader: Reader
    level: int
    """Index of the level, as the reader counts."""
    orientation: Orientation
    units: str | None
    """As the file (or the config) says."""
    conversion: Conversion
    rank: int
    slots: Slots
    archive: str = ""
    """Of a sum whose span the file does not tell: where it comes from (`datasets/span_of_sums.py`)."""
    mean: str = ""
    """Of a mean over a day or less: what its file says."""
    lag: float = 0.0
    """Hours by which sums end after the times they stand at (`sums/labels.py`)."""


@dataclass
class Contents:
    """What one file holds."""

    path: str
    pieces: list[Piece] = field(default_factory=list)
    """Of the channels that are wanted."""
    others: list[str] = field(default_factory=list)
    """Descriptions of all other fields, for messages."""
    refused: dict[str, str] = field(default_factory=dict)
    """Channel -> why a field of that name is not taken: it is no state, but a spread, a monthly mean, ..."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """Provenance the file states about itself."""
    doubts: dict[str, str] = field(default_factory=dict)
    """Wanted channel -> why a field that may be it was not taken for it, and how to say that it is."""
    access: Access = PUBLIC
    """How it was opened."""
    classes: set[str] = field(default_factory=set)
    """Of the wanted fields of a GRIB file, as far as they tell: `ea` is ERA5, `od` ECMWF's operations, ..."""


def best_names(pieces: Iterable[Piece]) -> list[Piece]:
    """Where one file holds a channel under two names, only the pieces under the better one."""
    kept: dict[str, list[Piece]] = {}
    for piece in pieces:
        rivals = kept.setdefault(piece.channel, [])
        if not rivals or piece.rank < rivals[0].rank:
            kept[piece.channel] = [piece]
        elif piece.rank == rivals[0].rank:
            rivals.append(piece)
    return [piece for rivals in kept.values() for piece in rivals]


def are_era5t(versions: Iterable[Any]) -> np.ndarray:
    """[version] bool: experiment version 5, which ECMWF gives to ERA5T (final ERA5 is version 1)."""
    return np.array([str(version).strip().lstrip("0") == "5" for version in versions], bool)
