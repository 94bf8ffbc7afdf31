"""GRIB through ecCodes: an index of all messages of a file, and reading some of them.

Messages are indexed one by one and not as a hypercube, so that files with surface and upper-air fields, several
forecast steps, members or gaps in any mixture read the same, and nothing missing is filled in silently.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weatherfm.data_pipeline.formats.chunks import Chunking
from weatherfm.data_pipeline.formats.files.identity import Stamp, refuse_changed, stamp_of
from weatherfm.data_pipeline.formats.grib.channel import Left, Meanings, Taken
from weatherfm.data_pipeline.formats.grib.codes import GUARD, eccodes
from weatherfm.data_pipeline.formats.grib.index import GribIndex, read_grib_index
from weatherfm.data_pipeline.formats.grib.messages import field_alone
from weatherfm.data_pipeline.formats.grib.rows import Rows
from weatherfm.data_pipeline.formats.meaning.names import NameRules
from weatherfm.data_pipeline.formats.pieces import Contents, Piece
from weatherfm.errors import InputError

_MISSING = 1e34


@dataclass(frozen=True, eq=False)
class GribReader:
    """Fields of a GRIB file; a slot is the position of a field in its index, levels have no meaning.

    Threads read side by side: each field is a message of its own in memory.
    """

    path: str
    offsets: np.ndarray
    """[slot] where its message starts."""
    lengths: np.ndarray
    """[slot] bytes of its message."""
    numbers: np.ndarray
    """[slot] which field of a message of several, from 0."""
    stamp: Stamp | None = None
    """Of the file when it was indexed; reading refuses another."""

    @property
    def chunks(self) -> Chunking:
        """A message is a field."""
        return Chunking.single_fields(len(self.offsets))

    def stored_bytes(self, keys: np.ndarray) -> int:
        """Their share of the file."""
        return os.path.getsize(self.path) * len(keys) // len(self.offsets)

    def read(self, slots: np.ndarray, levels: Sequence[int]) -> np.ndarray:
        """[slot, 1, file lat, file lon] float64 in the file's units; missing points are NaN.

        Raises:
            InputError: a file that changed since it was indexed, or a message that ecCodes cannot decode; names file,
                message and field.
        """
        refuse_changed(self.path, self.stamp)
        order = np.argsort(slots)
        out: np.ndarray | None = None
        with open(self.path, "rb") as file:
            for i in order:
                values = self._decode(self._message(file.fileno(), int(slots[i])), int(slots[i]))
                if len(slots) == 1:
                    return values[None, None]
                out = np.empty((len(slots), 1, *values.shape)) if out is None else out
                if out.shape[2:] != values.shape:
                    raise self._damaged(int(slots[i]), "", f"is on another grid: {values.shape}, not {out.shape[2:]}")
                out[i, 0] = values
        assert out is not None
        return out

    def value_step(self, slot: int) -> float:
        """2^E / 10^D of simple and CCSDS packing; 0 for others."""
        with open(self.path, "rb") as file:
            content = self._message(file.fileno(), slot)
        with GUARD:
            message = eccodes.codes_new_from_message(content)
            try:
                keys = ("binaryScaleFactor", "decimalScaleFactor")
                told = [eccodes.codes_get_long(message, k) if eccodes.codes_is_defined(message, k) else 0 for k in keys]
            finally:
                eccodes.codes_release(message)
        return float(2.0 ** told[0] / 10.0 ** told[1])

    def _message(self, descriptor: int, slot: int) -> bytes:
        """A slot's field as a message of its own."""
        length = int(self.lengths[slot])
        content = os.pread(descriptor, length, int(self.offsets[slot]))
        if len(content) < length or not content.startswith(b"GRIB") or not content.endswith(b"7777"):
            raise InputError(f"{self.path}: message {slot + 1} is gone; the file changed while it was read")
        return field_alone(content, int(self.numbers[slot]))

    def _decode(self, content: bytes, slot: int) -> np.ndarray:
        """[file lat, file lon]."""
        name = ""
        with GUARD:
            try:
                message = eccodes.codes_new_from_message(content)
            except eccodes.CodesInternalError as error:
                raise self._damaged(slot, "", f"is damaged ({error})") from error
            try:
                name = eccodes.codes_get_string(message, "shortName")
                holes = eccodes.codes_get(message, "bitmapPresent")
                if holes:
                    eccodes.codes_set(message, "missingValue", _MISSING)
                values = eccodes.codes_get_values(message)
                columns_first = eccodes.codes_get(message, "jPointsAreConsecutive")
                shape = eccodes.codes_get(message, "Nj"), eccodes.codes_get(message, "Ni")
            except eccodes.CodesInternalError as error:
                raise self._damaged(slot, name, f"is damaged ({error})") from error
            finally:
                eccodes.codes_release(message)
        if values.size != shape[0] * shape[1]:
            raise self._damaged(slot, name, f"holds {values.size} values for {shape[0]} x {shape[1]} points")
        if holes:
            values[values == _MISSING] = np.nan
        return values.reshape(shape[::-1]).T if columns_first else values.reshape(shape)

    def _damaged(self, slot: int, name: str, what: str) -> InputError:
        of = f" ({name})" if name else ""
        return InputError(f"{self.path}: message {slot + 1}{of} {what}; fetch the file again")


def index_grib(path: str, rules: NameRules, wanted: Collection[str]) -> Contents:
    """What a GRIB file holds of the wanted channels; reads its headers.

    Raises:
        InputError: truncated, damaged, or a wanted field on an unsupported grid (without the file's name).
    """
    stamp = stamp_of(path)  # before reading: a change while it is read is noticed
    return contents_of_grib(path, stamp, read_grib_index(path), Meanings(rules, wanted))


def contents_of_grib(path: str, stamp: Stamp | None, index: GribIndex, meanings: Meanings) -> Contents:
    """What a GRIB file with these headers holds; reading refuses it once its stamp is another.

    Raises:
        InputError: a wanted field on an unsupported grid, in units that do not fit, or there twice with other values
            (without the file's name).
    """
    contents, others = Contents(path), set()
    series: dict[tuple[Any, ...], tuple[Taken, Rows]] = {}
    for number, header in enumerate(index.headers):
        known = meanings.of(path, header)
        if isinstance(known, Left):
            others.add(known.description)
            if known.why:
                contents.refused.setdefault(known.channel, f"{known.channel} {known.why}")
            continue
        key = known.found.channel, known.found.name, known.orientation, known.found.units, known.rate_hours
        rows = series.setdefault(key, (known, Rows()))[1]
        rows.add(index, number, known.found.variable, known.monthly, known.rate_hours)
        contents.attributes.setdefault("GRIB_centre", header.centre)
        contents.classes |= {header.mars_class} - {""}
    contents.others = sorted(others)
    reader = GribReader(path, index.offsets, index.lengths, index.numbers, stamp)
    for known, rows in series.values():
        found, slots = known.found, rows.slots(known.found.channel, index, reader)
        contents.pieces.append(
            Piece(
                path, found.name, found.channel, reader, 0, known.orientation, known.units, known.conversion,
                found.rank, slots,
            )
        )  # fmt: skip
    return contents
