"""Coordinates of a GRIB message."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weatherfm.data_pipeline.formats.grib.codes import eccodes
from weatherfm.data_pipeline.formats.orientation import Orientation, orientation_of
from weatherfm.errors import InputError

_KINDS = ("regular_ll", "regular_gg")
_SLACK = 0.02
"""Of an increment: headers round it to 0.001 degrees (edition 1) and some centres cut it off."""


@dataclass(frozen=True)
class Axes:
    """Where the points of a field are, or why they cannot be told."""

    latitude: bytes
    """[row] float64 degrees, in the order of the values."""
    longitude: bytes
    """[column] float64 degrees, in the order of the values."""
    refusal: str
    """Empty where the grid is one that is read."""

    def orientation(self, name: str) -> Orientation:
        """Of the field that the file calls `name`.

        Raises:
            InputError: another kind of grid, or one that contradicts itself (without the file's name).
        """
        if self.refusal:
            raise InputError(f"its field {name} {self.refusal}")
        try:
            return orientation_of(np.frombuffer(self.latitude), np.frombuffer(self.longitude))  # one object a grid
        except InputError as error:
            raise InputError(f"its field {name}: {error}") from None


def axes_of_message(message: int) -> Axes:
    """Axes of a message on a regular or Gaussian latitude-longitude grid; what is wrong with others is told later."""
    try:
        latitude, longitude = _axes(message)
    except InputError as error:
        return Axes(b"", b"", str(error))
    except eccodes.CodesInternalError as error:
        return Axes(b"", b"", f"has a grid that contradicts itself ({error}); fetch or convert the file again")
    return Axes(latitude.tobytes(), longitude.tobytes(), "")


def _axes(message: int) -> tuple[np.ndarray, np.ndarray]:
    kind = eccodes.codes_get_string(message, "gridType")
    if kind not in _KINDS:
        raise InputError(
            f"is on a grid of type {kind}; only {' and '.join(_KINDS)} are read: "
            "interpolate it first, e.g. with `cdo setgridtype,regular` or the `grid` key of a MARS request"
        )
    if eccodes.codes_get_long(message, "alternativeRowScanning"):
        raise InputError("has rows that run in alternating directions; rewrite it with `grib_set -r -w` or `cdo copy`")
    rows, columns = (eccodes.codes_get_long(message, key) for key in ("Nj", "Ni"))
    points = eccodes.codes_get_long(message, "numberOfDataPoints")
    if rows * columns != points or rows < 1 or columns < 1:
        raise _contradiction(f"{rows} rows of {columns} columns, but {points} points")
    latitude, longitude = _latitude(message, kind, rows), _longitude(message, columns)
    if kind == "regular_ll":
        _check_increment(message, "j", "rows", latitude)
    _check_increment(message, "i", "columns", longitude)
    return latitude, longitude


def _contradiction(what: str) -> InputError:
    return InputError(f"has a grid that contradicts itself ({what}); fetch or convert the file again")


def _check_increment(message: int, axis: str, called: str, degrees: np.ndarray) -> None:
    """The stated distance of points must be the one that their first, last and number make."""
    if len(degrees) < 2 or not _is_given(message, f"{axis}DirectionIncrementGiven"):
        return
    key = f"{axis}DirectionIncrementInDegrees"
    if eccodes.codes_is_missing(message, key.removesuffix("InDegrees")):
        return
    stated, made = eccodes.codes_get_double(message, key), abs(float(degrees[1] - degrees[0]))
    if stated and abs(stated - made) > _SLACK * made + 1e-3:
        raise _contradiction(
            f"{len(degrees)} {called} from {degrees[0]:g} to {degrees[-1]:g} are {made:g} degrees apart, "
            f"but it says {stated:g}"
        )


def _is_given(message: int, key: str) -> bool:
    return bool(eccodes.codes_is_defined(message, key) and eccodes.codes_get_long(message, key))


def _latitude(message: int, kind: str, rows: int) -> np.ndarray:
    """[row] degrees in the order of the values."""
    if kind == "regular_ll":
        ends = [eccodes.codes_get_double(message, f"latitudeOf{end}GridPointInDegrees") for end in ("First", "Last")]
        return np.linspace(ends[0], ends[1], rows)
    ascending = np.sort(eccodes.codes_get_array(message, "distinctLatitudes"))
    if len(ascending) != rows:
        raise _contradiction(f"{rows} rows, but {len(ascending)} Gaussian latitudes")
    up = eccodes.codes_get_long(message, "jScansPositively")
    return np.ascontiguousarray(ascending if up else ascending[::-1])


def _longitude(message: int, columns: int) -> np.ndarray:
    """[column] degrees in the order of the values."""
    first, last = (
        eccodes.codes_get_double(message, f"longitudeOf{end}GridPointInDegrees") for end in ("First", "Last")
    )
    if eccodes.codes_get_long(message, "iScansNegatively"):
        first += 360 if first <= last else 0
    else:
        last += 360 if last <= first else 0
    return np.linspace(first, last, columns)
