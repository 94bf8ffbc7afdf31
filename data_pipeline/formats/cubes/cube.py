"""A picture of many bands on disk: where its numbers lie, and at which wavelengths; read when it is asked for.

Legend: R rows, W columns, B bands.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from weatherfm.data_pipeline.formats.cubes.tiff import read_bands
from weatherfm.data_pipeline.formats.files.identity import Stamp, refuse_changed
from weatherfm.errors import InputError

AXES = ("row", "column", "band")
_PACKED = (".npz", ".tif", ".tiff")


@dataclass(frozen=True)
class Cube:
    """Of one file, or of a header and the file beside it; it is small, and it pickles."""

    path: str
    """As it was named."""
    data: str
    """The file that holds the numbers."""
    name: str
    """Short, without ending; tells it from the other cubes of a source."""
    shape: tuple[int, int, int]
    """R, W, B."""
    dtype: str
    """Of NumPy, with the byte order."""
    axes: tuple[str, ...]
    """Order of row, column and band in the file."""
    offset: int
    """Bytes before the numbers."""
    stamp: Stamp | None
    """Of `data`, when it was opened."""
    wavelengths: tuple[float, ...] = ()
    """[B] nm; empty where they are not told."""
    bad: frozenset[int] = frozenset()
    """Bands that the file itself calls bad."""
    scale: float | None = None
    """What reflectances were multiplied with, where the file says it."""
    ignored: float | None = None
    """The value that stands for none, where the file says it."""

    def pixels(self) -> np.ndarray:
        """[R, W, B] as stored, read-only: memory that is read from the file when it is used.

        Raises:
            InputError: the file changed since it was opened, or is damaged.
        """
        refuse_changed(self.data, self.stamp)
        held = _unpacked(self) if self.packed else _mapped(self)
        return held.transpose([self.axes.index(axis) for axis in AXES])

    @property
    def packed(self) -> bool:
        """True of an archive and of a GeoTIFF, which are read as a whole."""
        return self.data.lower().endswith(_PACKED)


@lru_cache(maxsize=16)
def _mapped(cube: Cube) -> np.ndarray:
    sizes = dict(zip(AXES, cube.shape, strict=True))
    shape = tuple(sizes[axis] for axis in cube.axes)
    return np.memmap(cube.data, np.dtype(cube.dtype), "r", cube.offset, shape)


@lru_cache(maxsize=2)
def _unpacked(cube: Cube) -> np.ndarray:
    if not cube.data.lower().endswith(".npz"):
        return read_bands(cube.data)
    with np.load(cube.data, allow_pickle=False) as archive:
        held: np.ndarray = archive[archive.files[0]]
    return held


def refuse_other_size(cube: Cube) -> None:
    """Compare the file with what its header says.

    Raises:
        InputError: it holds less, or more.
    """
    wanted = cube.offset + np.dtype(cube.dtype).itemsize * int(np.prod(cube.shape, dtype=np.int64))
    if (found := os.path.getsize(cube.data)) != wanted:
        rows, columns, bands = cube.shape
        raise InputError(
            f"{cube.data} has {found:,} bytes, and {rows} rows x {columns} columns x {bands} bands of "
            f"{np.dtype(cube.dtype).name} behind {cube.offset} bytes take {wanted:,}; it is cut, or of another header"
        )
