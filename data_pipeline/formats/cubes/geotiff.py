"""GeoTIFF: bands, their wavelengths and what stands for none, as GDAL tells them through the package rasterio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from weatherfm.data_pipeline.formats.cubes.cube import Cube
from weatherfm.data_pipeline.formats.cubes.tiff import opened
from weatherfm.data_pipeline.formats.cubes.wavelengths import in_nm
from weatherfm.data_pipeline.formats.files.identity import stamp_of
from weatherfm.data_pipeline.picture_config import CubesSource
from weatherfm.errors import InputError

ENDINGS = (".tif", ".tiff")


def open_geotiff(path: str, name: str, source: CubesSource) -> Cube:
    """The cube of a GeoTIFF; where it lies on Earth is not asked.

    Args:
        path: of the file.
        name: short, of the cube.
        source: what the file may leave out.

    Raises:
        InputError: rasterio is not installed; no GeoTIFF; numbers that are not real; bands that are scaled or filled
            otherwise than the first; some of the bands without a wavelength.
    """
    with opened(path) as file:
        kinds = {np.dtype(kind) for kind in file.dtypes}
        if len(kinds) > 1 or next(iter(kinds)).kind not in "iuf":
            raise InputError(f"{path} holds {', '.join(map(str, kinds))}; a cube is of real numbers of one type")
        _refuse_masked(file, path)
        return Cube(
            path=path,
            data=path,
            name=name,
            shape=(file.height, file.width, file.count),
            dtype=next(iter(kinds)).str,
            axes=("band", "row", "column"),
            offset=0,
            stamp=stamp_of(path),
            wavelengths=_wavelengths(file, path, source),
            scale=_scale(file, path),
            ignored=_of_all_bands(file.nodatavals, "values for no data", path),
        )


def _wavelengths(file: Any, path: str, source: CubesSource) -> tuple[float, ...]:
    """[band] nm; empty where no band has one. GDAL keeps them by band: `CENTRAL_WAVELENGTH_UM` among what it knows of
    images, or `wavelength` and `wavelength_units`, as they come from headers of ENVI."""
    known = [file.tags(band, ns="IMAGERY").get("CENTRAL_WAVELENGTH_UM") for band in file.indexes]
    units: str | None = "um"
    if not any(known):
        told = [{key.lower(): value for key, value in file.tags(band).items()} for band in file.indexes]
        known, units = [one.get("wavelength") for one in told], told[0].get("wavelength_units")
    if not any(known):
        return ()
    if None in known:
        raise InputError(f"{path} has no wavelength of band {known.index(None) + 1}, but of others; correct the file")
    try:
        values = [float(one) for one in known]
    except ValueError as error:
        raise InputError(f"{path} has a wavelength that is no number ({error}); correct the file") from None
    return in_nm(values, units, source.wavelength_units, path)


def _refuse_masked(file: Any, path: str) -> None:
    """Masks beside the numbers (of the file, in a .msk, or a band of opacity) are not read."""
    from rasterio.enums import MaskFlags

    if any(not {MaskFlags.all_valid, MaskFlags.nodata} & set(flags) for flags in file.mask_flag_enums):
        raise InputError(
            f"{path} has a mask beside its bands, which is not read; write a value for no data (nodata) into its bands "
            "in place of it, or give it as source.plant.image"
        )


def _scale(file: Any, path: str) -> float | None:
    """What reflectances were multiplied with."""
    factor = _of_all_bands(file.scales, "scales", path)
    if _of_all_bands(file.offsets, "offsets", path) or not factor:
        raise InputError(f"{path} has offsets, or scales of 0, which are not known here; give it without, or as .npy")
    return None if factor == 1 else 1 / factor


def _of_all_bands(values: Sequence[float | None], what: str, path: str) -> float | None:
    first = values[0]
    if any(one != first and not (one != one and first != first) for one in values):  # NaN is NaN here
        raise InputError(f"{path} has {what} that are not the same in all bands; give one file a kind of bands")
    return first
