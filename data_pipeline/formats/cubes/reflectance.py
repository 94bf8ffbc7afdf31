"""From what a sensor counted to reflectance, by a white and a dark reference.

Legend: R rows, W columns, B bands.
"""

from __future__ import annotations

import os
from functools import lru_cache

import numpy as np

from weatherfm.data_pipeline.formats.cubes.cube import Cube
from weatherfm.data_pipeline.formats.cubes.opening import beside, load_array, open_cube
from weatherfm.data_pipeline.formats.cubes.wavelengths import same_bands
from weatherfm.data_pipeline.formats.files.paths import find_files
from weatherfm.data_pipeline.picture_config import CubesSource
from weatherfm.errors import InputError


@lru_cache(maxsize=16)
def references_of(cube: Cube, settings: str) -> tuple[np.ndarray, np.ndarray]:
    """(what is subtracted, what it is then divided by): [W or 1, B or 1] float64.

    Args:
        cube: of which.
        settings: of its source, as JSON.

    Raises:
        InputError: a reference of another shape, or a white one that is nowhere above the dark.
    """
    source = CubesSource.model_validate_json(settings)
    if source.white is None:
        return np.zeros((1, 1)), np.full((1, 1), cube.scale or 1.0)
    dark = _reference(source.dark or 0.0, "dark", cube, source)
    span = _reference(source.white, "white", cube, source) - dark
    if not (span > 0).all():
        bands = np.flatnonzero(~(span > 0).all(0))
        raise InputError(
            f"the white reference of {cube.path} is not above the dark in {len(bands)} of {span.shape[1]} bands, from "
            f"band {bands[0]} on: nothing can be told there; give other references"
        )
    return dark, span


def files_of(cube: Cube, source: CubesSource) -> list[str]:
    """Paths of a cube's references that are files."""
    given = {"white": source.white, "dark": source.dark}
    return [_path(one, what, cube) for what, one in given.items() if isinstance(one, str)]


def _path(pattern: str, what: str, cube: Cube) -> str:
    found = find_files([beside(pattern, cube)], (), f"source.{what}")
    if len(found) > 1:
        raise InputError(f"{cube.path} has several references, {' and '.join(found[:2])}; name one")
    return found[0]


def _reference(given: float | str, what: str, cube: Cube, source: CubesSource) -> np.ndarray:
    """[W or 1, B or 1] float64, the mean over its lines."""
    if not isinstance(given, str):
        return np.full((1, 1), float(given))
    path = _path(given, what, cube)
    held = _means(path, source)
    _refuse_other_wavelengths(path, what, cube, source)
    columns, bands = held.shape
    if bands != cube.shape[2] or columns not in (1, cube.shape[1]):
        raise InputError(
            f"the {what} reference {path} has {columns} columns x {bands} bands, and {cube.path} has {cube.shape[1]} x "
            f"{cube.shape[2]}; give one of the same sensor, or a number"
        )
    return held


def _refuse_other_wavelengths(path: str, what: str, cube: Cube, source: CubesSource) -> None:
    if path.endswith(".npy") or source.wavelengths is not None:
        return  # the file says none, or the settings say those of all
    reference = open_cube(path, os.path.basename(path), source)
    if len(reference.wavelengths) and not same_bands(reference.wavelengths, cube.wavelengths):
        raise InputError(
            f"the {what} reference {path} is of other wavelengths than {cube.path} (from {reference.wavelengths[0]:g} "
            f"and {cube.wavelengths[0]:g} nm on); give one of the same sensor"
        )


def _means(path: str, source: CubesSource) -> np.ndarray:
    """[W, B], or [1, B] of a spectrum."""
    if path.endswith(".npy") and (array := load_array(path)).ndim < 3:
        return np.atleast_2d(array).astype(np.float64)
    reference = open_cube(path, os.path.basename(path), source)
    means: np.ndarray = reference.pixels().mean(0, dtype=np.float64)  # [W, B]
    return means


def to_reflectance(
    raw: np.ndarray, dark: np.ndarray, span: np.ndarray, columns: slice, bands: np.ndarray
) -> np.ndarray:
    """[R, W, b] float64 of `raw` [R, W, b] at some columns and bands.

    Args:
        raw: as stored.
        dark: [W or 1, B or 1], subtracted.
        span: [W or 1, B or 1], white less dark.
        columns: of the cube.
        bands: [b] of the cube.
    """
    return (raw.astype(np.float64) - _part(dark, columns, bands)) / _part(span, columns, bands)


def _part(reference: np.ndarray, columns: slice, bands: np.ndarray) -> np.ndarray:
    rows = reference if reference.shape[0] == 1 else reference[columns]
    return rows if rows.shape[1] == 1 else rows[:, bands]
