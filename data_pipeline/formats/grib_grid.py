"""Coordinates of a GRIB message."""

from __future__ import annotations

import numpy as np

from weatherfm.data_pipeline.formats.codes import eccodes
from weatherfm.data_pipeline.formats.orientation import Orientation, orientation_of
from weatherfm.errors import InputError

_KINDS = ("regular_ll", "regular_gg")


def orientation_of_message(message: int) -> tuple[Orientation, str]:
    """(orientation, fingerprint of the grid) of a message on a regular or Gaussian latitude-longitude grid.

    Raises:
        InputError: another kind of grid (without the file's name).
    """
    kind = eccodes.codes_get_string(message, "gridType")
    if kind not in _KINDS:
        name = eccodes.codes_get_string(message, "shortName")
        raise InputError(
            f"its field {name} is on a grid of type {kind}; only {' and '.join(_KINDS)} are read: "
            "interpolate it first, e.g. with `cdo setgridtype,regular` or the `grid` key of a MARS request"
        )
    if eccodes.codes_get_long(message, "alternativeRowScanning"):
        raise InputError("its rows run in alternating directions; rewrite it with `grib_set -r -w` or `cdo copy`")
    latitude = _latitude(message, kind)
    longitude = _longitude(message)
    return orientation_of(latitude, longitude), eccodes.codes_get_string(message, "md5GridSection")


def _latitude(message: int, kind: str) -> np.ndarray:
    """[row] degrees in the order of the values."""
    rows = eccodes.codes_get_long(message, "Nj")
    if kind == "regular_ll":
        ends = [eccodes.codes_get_double(message, f"latitudeOf{end}GridPointInDegrees") for end in ("First", "Last")]
        return np.linspace(ends[0], ends[1], rows)
    ascending = np.sort(eccodes.codes_get_array(message, "distinctLatitudes"))
    if len(ascending) != rows:
        raise InputError(f"its Gaussian grid has {rows} rows but {len(ascending)} latitudes; it is damaged")
    return ascending if eccodes.codes_get_long(message, "jScansPositively") else ascending[::-1]


def _longitude(message: int) -> np.ndarray:
    """[column] degrees in the order of the values."""
    first, last = (
        eccodes.codes_get_double(message, f"longitudeOf{end}GridPointInDegrees") for end in ("First", "Last")
    )
    if eccodes.codes_get_long(message, "iScansNegatively"):
        first += 360 if first <= last else 0
    else:
        last += 360 if last <= first else 0
    return np.linspace(first, last, eccodes.codes_get_long(message, "Ni"))
