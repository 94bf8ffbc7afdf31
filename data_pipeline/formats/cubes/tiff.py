"""Opening a GeoTIFF with the package rasterio."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from weatherfm.errors import InputError


@contextmanager
def opened(path: str) -> Iterator[Any]:
    """A file of rasterio.

    Raises:
        InputError: rasterio is not installed, or this is no GeoTIFF.
    """
    try:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
    except ImportError as error:
        raise InputError(
            "GeoTIFF files need the package rasterio, which is not installed; pip install 'weatherfm[geotiff]'"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            file = rasterio.open(path, driver="GTiff")
    except RasterioIOError as error:
        raise InputError(f"{path} is no GeoTIFF, or is cut ({error})") from None
    with file:
        yield file


def read_bands(path: str) -> np.ndarray:
    """[band, row, column] as stored.

    Raises:
        InputError: as of `opened`; a file that is damaged.
    """
    with opened(path) as file:
        from rasterio.errors import RasterioIOError

        try:
            held: np.ndarray = file.read()
        except RasterioIOError as error:
            raise InputError(
                f"{path} cannot be read ({error.__cause__ or error}); it is cut or damaged: fetch it again"
            ) from None
    return held
