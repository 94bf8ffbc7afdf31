"""Which cubes a source means, and whether they go together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from weatherfm.data_pipeline.formats.cubes.cube import Cube, refuse_other_size
from weatherfm.data_pipeline.formats.cubes.envi import open_envi
from weatherfm.data_pipeline.formats.cubes.geotiff import ENDINGS as GEOTIFF
from weatherfm.data_pipeline.formats.cubes.geotiff import open_geotiff
from weatherfm.data_pipeline.formats.cubes.wavelengths import same_bands, stated_wavelengths
from weatherfm.data_pipeline.formats.files.identity import short_names, stamp_of
from weatherfm.data_pipeline.formats.files.paths import find_files
from weatherfm.data_pipeline.picture_config import CUBE, FOLDER, CubesSource
from weatherfm.errors import InputError

ENDINGS = (".hdr", ".npy", ".npz", *GEOTIFF)


def open_cubes(source: CubesSource) -> list[Cube]:
    """All cubes of a source, in the order of their paths; headers are read, no pixels.

    Raises:
        InputError: as of `open_cube`; a cube that does not tell its wavelengths, or has other bands than the first.
    """
    paths = _without_references(find_files(source.paths, ()), source)
    stated = stated_wavelengths(source)
    names = short_names(paths)
    cubes = [
        _with_wavelengths(open_cube(path, os.path.splitext(name)[0], source), stated)
        for path, name in zip(paths, names, strict=True)
    ]
    for cube in cubes:
        _refuse_other_bands(cubes[0], cube)
    return cubes


def _without_references(paths: Sequence[str], source: CubesSource) -> list[str]:
    """Cubes alone, where a pattern finds the references of others (`WHITEREF_plot1.hdr` beside `plot1.hdr`), too."""
    patterns = [given for given in (source.white, source.dark) if isinstance(given, str)]
    names = [{os.path.splitext(name)[0], os.path.splitext(os.path.basename(name))[0]} for name in short_names(paths)]
    called = [(path, name) for path, own in zip(paths, names, strict=True) for name in own]
    references = {_filled(pattern, path, name) for pattern in patterns for path, name in called}
    return [path for path in paths if os.path.normpath(path) not in references]


def open_cube(path: str, name: str, source: CubesSource) -> Cube:
    """One file, by its ending; its wavelengths may be missing.

    Raises:
        InputError: another ending, or what a file says does not fit it.
    """
    ending = os.path.splitext(path)[1].lower()
    if ending == ".hdr":
        return open_envi(path, name, source)
    if ending in GEOTIFF:
        return open_geotiff(path, name, source)
    if ending in ENDINGS:
        return _open_array(path, name, source)
    raise InputError(
        f"{path} is none of the cubes that are read; name headers of ENVI (.hdr), .npy, .npz or GeoTIFF (.tif) files"
    )


def beside(pattern: str, cube: Cube) -> str:
    """The path of a reference or mask of a cube."""
    return _filled(pattern, cube.path, cube.name)


def _filled(pattern: str, path: str, name: str) -> str:
    return os.path.normpath(pattern.replace(FOLDER, os.path.dirname(path)).replace(CUBE, name))


def load_array(path: str) -> np.ndarray:
    """A reference or mask in a .npy file.

    Raises:
        InputError: no array of real numbers.
    """
    try:
        held: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no array of NumPy, or is cut ({error}); write it with numpy.save") from None
    if held.dtype.kind not in "biuf":
        raise InputError(f"{path} holds {held.dtype}; references and masks are arrays of real numbers")
    return held


def _open_array(path: str, name: str, source: CubesSource) -> Cube:
    packed = path.lower().endswith(".npz")
    try:
        given, fortran, dtype, offset = _header_in_archive(path) if packed else _header_of_array(path)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} is no array of NumPy, or is cut ({error}); write it with numpy.save") from None
    if len(given) != 3 or dtype.kind not in "iuf":
        raise InputError(
            f"{path} holds {dtype} of shape {given}; a cube is an array of real numbers with three axes, "
            f"{', '.join(source.axes)} (source.axes)"
        )
    sizes = dict(zip(source.axes, given, strict=True))
    shape = (sizes["row"], sizes["column"], sizes["band"])
    axes = source.axes[::-1] if fortran and not packed else source.axes
    cube = Cube(path, path, name, shape, dtype.str, axes, offset, stamp_of(path))
    if not packed:
        refuse_other_size(cube)
    return cube


def _header_of_array(path: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """(shape, in Fortran's order, type, bytes before the numbers) of a .npy file."""
    with open(path, "rb") as file:
        return (*_header(file), file.tell())


def _header_in_archive(path: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """The same of the only array in a .npz file, without unpacking it."""
    with ZipFile(path) as archive:
        names = archive.namelist()
        if len(names) != 1:
            raise InputError(f"{path} holds {len(names)} arrays ({', '.join(names)}); keep one")
        with archive.open(names[0]) as file:
            return (*_header(file), 0)


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def _with_wavelengths(cube: Cube, stated: Sequence[float]) -> Cube:
    if cube.wavelengths:
        return cube
    if not stated:
        raise InputError(
            f"{cube.path} does not say at which wavelengths its {cube.shape[2]} bands are; say them with "
            "source.wavelengths: [400.0, ...], or a text file of numbers, and source.wavelength_units"
        )
    if len(stated) != cube.shape[2]:
        raise InputError(
            f"source.wavelengths names {len(stated)}, and {cube.path} has {cube.shape[2]} bands; give one a band"
        )
    return replace(cube, wavelengths=tuple(stated))


def _refuse_other_bands(first: Cube, cube: Cube) -> None:
    if same_bands(first.wavelengths, cube.wavelengths):
        return
    one, two = (
        f"{len(own.wavelengths)} bands from {min(own.wavelengths):g} to {max(own.wavelengths):g} nm"
        for own in (first, cube)
    )
    raise InputError(
        f"{cube.path} has {two}, and {first.path} {one}: a store is of cubes with the same bands; prepare one of each"
    )
