"""What the headers of one GRIB file say: each different header once, and a row for every field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weatherfm.data_pipeline.formats.grib.headers import Header, header_of
from weatherfm.data_pipeline.formats.grib.messages import fields_of
from weatherfm.errors import InputError


@dataclass(frozen=True, eq=False)
class GribIndex:
    """Fields of a file in its order."""

    headers: tuple[Header, ...]
    """Those that differ in more than their date."""
    kind: np.ndarray
    """[field] position in `headers`."""
    dates: np.ndarray
    """[field] datetime64[s]: start of the forecast."""
    offsets: np.ndarray
    """[field] where its message starts."""
    lengths: np.ndarray
    """[field] bytes of its message."""
    numbers: np.ndarray
    """[field] which field of its message, from 0."""

    @classmethod
    def of(cls, headers: Sequence[Header], columns: Sequence[Sequence[int]]) -> GribIndex:
        """From plain numbers, in the order of the attributes; dates in seconds since 1970.

        Raises:
            ValueError: columns of other lengths, or a header that there is not.
        """
        kind, dates, offsets, lengths, numbers = (np.array(column, np.int64) for column in columns)
        if {column.shape for column in (kind, dates, offsets, lengths, numbers)} != {(len(kind),)}:
            raise ValueError("columns of an index differ in length")
        if not len(kind) or kind.min() < 0 or kind.max() >= len(headers) or min(offsets.min(), numbers.min()) < 0:
            raise ValueError("an index of no fields, or of other headers")
        return cls(tuple(headers), kind, dates.astype("datetime64[s]"), offsets, lengths, numbers)


def read_grib_index(path: str) -> GribIndex:
    """The index of a file; no field is decoded.

    Raises:
        InputError: truncated, damaged, no GRIB, or a header that ecCodes cannot read (without the file's name).
    """
    positions: dict[Header, int] = {}
    rows: list[tuple[int, int, int, int, int]] = []
    for field in fields_of(path):
        header, date = header_of(field)
        kind = positions.setdefault(header, len(positions))
        rows.append((kind, int(date.astype(np.int64)), field.offset, field.length, field.number))
    if not rows:
        raise InputError("it holds no GRIB message; fetch it again")
    return GribIndex.of(tuple(positions), list(zip(*rows, strict=True)))
