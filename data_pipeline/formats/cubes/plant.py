"""Which pixels of a cube are plant: above a threshold at a wavelength or of an index, or by a picture.

Legend: R rows, W columns.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from weatherfm.data_pipeline.formats.cubes.cube import Cube
from weatherfm.data_pipeline.formats.cubes.opening import beside, load_array, open_cube
from weatherfm.data_pipeline.formats.cubes.reflectance import references_of, to_reflectance
from weatherfm.data_pipeline.formats.files.paths import find_files
from weatherfm.data_pipeline.picture_config import CubesSource, Plant
from weatherfm.errors import InputError


@lru_cache(maxsize=8)
def plant_of(cube: Cube, settings: str) -> np.ndarray:
    """[R, W] bool of a whole cube, read once; `settings` are those of the source, as JSON, with `plant`.

    Raises:
        InputError: no band near a wavelength, or an image that is not there or of another shape.
    """
    source = CubesSource.model_validate_json(settings)
    plant = source.plant
    assert plant is not None  # asked for only then
    if plant.image is not None:
        return _image(plant.image, cube, source)
    bands = np.array(plant_bands(cube, source))
    values = to_reflectance(cube.pixels()[:, :, bands], *references_of(cube, settings), slice(None), bands)
    return _above(values, plant)


def plant_bands(cube: Cube, source: CubesSource) -> list[int]:
    """The bands that tell what is plant; none where an image does.

    Raises:
        InputError: no band near a wavelength.
    """
    plant = source.plant
    if plant is None or plant.image is not None:
        return []
    wanted = [plant.at or 0.0] if plant.index is None else plant.index
    return [_nearest(cube, at, source.tolerance) for at in wanted]


def files_of(cube: Cube, source: CubesSource) -> list[str]:
    """The path of its picture of the plant, where there is one."""
    if source.plant is None or source.plant.image is None:
        return []
    return find_files([beside(source.plant.image, cube)], (), "source.plant.image")[:1]


def shares_of(mask: np.ndarray, places: np.ndarray, crop: tuple[int, int]) -> np.ndarray:
    """[n] share of each crop that is plant.

    Args:
        mask: [R, W] bool.
        places: [n, 2] row and column of the crops.
        crop: (rows, columns).
    """
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    sums[1:, 1:] = mask.cumsum(0).cumsum(1)
    top, left = places.T
    bottom, right = top + crop[0], left + crop[1]
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return inside / (crop[0] * crop[1])


def _above(values: np.ndarray, plant: Plant) -> np.ndarray:
    if plant.index is None:
        return values[..., 0] > plant.above
    difference, total = values[..., 0] - values[..., 1], values[..., 0] + values[..., 1]
    above: np.ndarray = (total > 0) & (difference > (plant.above or 0) * total)
    return above


def _nearest(cube: Cube, at: float, tolerance: float) -> int:
    away = np.abs(np.array(cube.wavelengths) - at)
    if away.min() > tolerance:
        raise InputError(
            f"source.plant speaks of {at:g} nm, and no band of {cube.path} lies within {tolerance:g} nm of it; choose "
            "another wavelength, or set source.tolerance"
        )
    return int(np.argmin(away))


def _image(pattern: str, cube: Cube, source: CubesSource) -> np.ndarray:
    path = find_files([beside(pattern, cube)], (), "source.plant.image")[0]
    held = load_array(path) if path.endswith(".npy") else None
    if held is None:
        held = open_cube(path, cube.name, source).pixels()
    if held.ndim == 3 and held.shape[2] == 1:
        held = held[..., 0]
    if held.shape != cube.shape[:2]:
        raise InputError(
            f"the mask {path} has shape {held.shape}, and {cube.path} {cube.shape[0]} x {cube.shape[1]} pixels; give "
            "one of the same picture"
        )
    return held != 0
