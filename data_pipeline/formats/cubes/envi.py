"""ENVI: a header of text and a file of numbers beside it. The text is taken apart by the package spectral."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from weatherfm.data_pipeline.formats.cubes.cube import Cube, refuse_other_size
from weatherfm.data_pipeline.formats.cubes.wavelengths import in_nm
from weatherfm.data_pipeline.formats.files.identity import stamp_of
from weatherfm.data_pipeline.picture_config import CubesSource
from weatherfm.errors import InputError

INTERLEAVES = {"bsq": ("band", "row", "column"), "bil": ("row", "band", "column"), "bip": ("row", "column", "band")}
_ENDINGS = ("", ".raw", ".dat", ".img", ".bil", ".bip", ".bsq", ".RAW", ".DAT", ".IMG")
_ORDERS = {"0": "<", "1": ">", "little": "<", "big": ">"}


def open_envi(path: str, name: str, source: CubesSource) -> Cube:
    """The cube of a header (.hdr).

    Args:
        path: of the header.
        name: short, of the cube.
        source: what the header may leave out.

    Raises:
        InputError: spectral is not installed; no header, no data beside it or of another size; an interleave, a type of
            numbers, an order of bytes or units of wavelengths that are not known.
    """
    header = _read(path)
    data = _data_of(path)
    interleave = _given(header, "interleave", path).lower()
    if interleave not in INTERLEAVES:
        raise InputError(
            f"{path}: interleave is {interleave!r}; known are {', '.join(INTERLEAVES)}: correct the header"
        )
    cube = Cube(
        path=path,
        data=data,
        name=name,
        shape=(_count(header, "lines", path), _count(header, "samples", path), _count(header, "bands", path)),
        dtype=_dtype(header, path, source),
        axes=INTERLEAVES[interleave],
        offset=_count(header, "header offset", path) if "header offset" in header else 0,
        stamp=stamp_of(data),
        wavelengths=_wavelengths(header, path, source),
        bad=frozenset(i for i, flag in enumerate(header.get("bbl", [])) if _number(flag, "bbl", path) == 0),
        scale=_scale(header, path),
        ignored=_optional(header, "data ignore value", path),
    )
    refuse_other_size(cube)
    if (flags := len(header.get("bbl", []))) not in (0, cube.shape[2]):
        raise InputError(f"{path} has {cube.shape[2]} bands and {flags} flags of bad ones (bbl); correct the header")
    if cube.wavelengths and len(cube.wavelengths) != cube.shape[2]:
        raise InputError(
            f"{path} has {cube.shape[2]} bands and {len(cube.wavelengths)} wavelengths; correct the header"
        )
    return cube


def _read(path: str) -> Mapping[str, Any]:
    try:
        from spectral.io.envi import EnviException, read_envi_header
    except ImportError as error:
        raise InputError(
            "ENVI files need the package spectral, which is not installed; pip install 'weatherfm[cubes]'"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # keys that are not in lower case
            header: Mapping[str, Any] = read_envi_header(path)
    except (EnviException, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no header of ENVI ({str(error) or type(error).__name__}); name the .hdr") from None
    return header


def _data_of(path: str) -> str:
    stem = path[: -len(".hdr")]
    found = [stem + ending for ending in _ENDINGS if os.path.isfile(stem + ending)]
    if not found:
        tried = ", ".join(ending or "no ending" for ending in _ENDINGS[:7])
        raise InputError(
            f"{path} has no data beside it (looked for {os.path.basename(stem)} with {tried}); put it there"
        )
    if len(found) > 1:
        raise InputError(f"{path} has several files beside it, {' and '.join(found)}; leave one of them there")
    return found[0]


def _given(header: Mapping[str, Any], key: str, path: str) -> str:
    if key not in header:
        raise InputError(f"{path} does not say {key!r}, which every header of ENVI must; correct it")
    return str(header[key]).strip()


def _number(text: Any, key: str, path: str) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        raise InputError(f"{path}: {key} holds {text!r}, which is no number; correct the header") from None


def _optional(header: Mapping[str, Any], key: str, path: str) -> float | None:
    return _number(header[key], key, path) if key in header else None


def _scale(header: Mapping[str, Any], path: str) -> float | None:
    factor = _optional(header, "reflectance scale factor", path)
    if factor is not None and not 0 < factor < float("inf"):
        raise InputError(
            f"{path}: reflectance scale factor is {factor:g}, by which nothing can be divided; correct the header"
        )
    return factor


def _count(header: Mapping[str, Any], key: str, path: str) -> int:
    value = _number(_given(header, key, path), key, path)
    if not value.is_integer() or value < (0 if key == "header offset" else 1):
        raise InputError(f"{path}: {key} is {value:g}, which is no count; correct the header")
    return int(value)


def _dtype(header: Mapping[str, Any], path: str, source: CubesSource) -> str:
    from spectral.io.envi import envi_to_dtype

    said = _given(header, "data type", path)
    kind = np.dtype(envi_to_dtype.get(said, "V"))
    if kind.kind not in "iuf":
        raise InputError(f"{path}: data type {said} is none of real numbers; known are 1 to 5 and 12 to 15")
    order = str(header["byte order"]).strip() if "byte order" in header else source.byte_order
    if order is None and kind.itemsize > 1:
        raise InputError(f"{path} does not say its byte order; say it with source.byte_order: little (or big)")
    if order is not None and order not in _ORDERS:
        raise InputError(f"{path}: byte order is {order!r}; 0 (little) and 1 (big) are known: correct the header")
    return kind.newbyteorder(_ORDERS[order or "little"]).str


def _wavelengths(header: Mapping[str, Any], path: str, source: CubesSource) -> tuple[float, ...]:
    """[band] nm; empty where the header has none."""
    if "wavelength" not in header:
        return ()
    held = header["wavelength"]
    values = [_number(one, "wavelength", path) for one in (held if isinstance(held, list) else [held]) if one != ""]
    return in_nm(values, header.get("wavelength units"), source.wavelength_units, path)
