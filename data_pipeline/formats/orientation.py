"""From the coordinates a file happens to have to a valid Grid, and the order in which to take its rows and columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError

_SAME = 1e-3  # degrees: closer columns are one meridian (360 and 0)
_FILL = 9e36  # the NetCDF fill value of floats is 9.97e36


@dataclass(frozen=True, eq=False)
class Orientation:
    """How a field of a file is laid out on its grid: `field[rows][:, columns]` belongs to `grid`."""

    grid: Grid
    rows: np.ndarray
    """Index of the file's row for each latitude of the grid."""
    columns: np.ndarray
    """Index of the file's column for each longitude of the grid."""

    @cached_property
    def in_order(self) -> bool:
        """True when a file's rows and columns come in the grid's order; there may be more of them than in the grid."""
        return all(np.array_equal(index, np.arange(len(index))) for index in (self.rows, self.columns))

    @cached_property
    def _follow(self) -> tuple[bool, bool]:
        """Whether rows and columns are neighbours in the file in the grid's order: looked at once, not by field."""
        return bool((np.diff(self.rows) == 1).all()), bool((np.diff(self.columns) == 1).all())

    def arrange(self, values: np.ndarray) -> np.ndarray:
        """[..., file lat, file lon] -> [..., lat, lon]: north first, west first, no column twice."""
        for axis, index, follow in zip((-2, -1), (self.rows, self.columns), self._follow, strict=True):
            if not follow or len(index) != values.shape[axis]:
                values = np.take(values, index, axis=axis)
        return values


def orientation_of(latitude: np.ndarray, longitude: np.ndarray) -> Orientation:
    """Orientation of a field with these coordinates [degrees], in any order and either longitude convention.

    A limited area across the prime meridian starts below zero, so that neighbours stay neighbours.

    Raises:
        InputError: fill values, repeated or irregular coordinates (without the file's name).
    """
    for name, values in (("latitude", latitude), ("longitude", longitude)):
        _check_values(name, np.asarray(values))
    return _cached_orientation(_bytes(latitude), _bytes(longitude))


def _bytes(values: np.ndarray) -> bytes:
    return np.ascontiguousarray(values, np.float64).tobytes()


@lru_cache(maxsize=256)
def _cached_orientation(latitude_bytes: bytes, longitude_bytes: bytes) -> Orientation:
    """Thousands of files share one grid: one object, compared by identity first."""
    latitude, longitude = np.frombuffer(latitude_bytes), np.frombuffer(longitude_bytes)
    rows = np.argsort(-latitude, kind="stable")
    if (twice := np.flatnonzero(np.diff(latitude[rows]) == 0)).size:
        raise InputError(
            f"its latitude repeats {latitude[rows][twice[0]]:g} ({len(latitude)} rows, {len(twice)} of them again); "
            "which row is meant is not known: drop one, e.g. where tiles were joined"
        )
    columns, normal = _order_longitude(longitude)
    return Orientation(Grid(latitude[rows], normal), rows, columns)


def _check_values(name: str, values: np.ndarray) -> None:
    if values.ndim != 1:
        raise InputError(
            f"its {name} is not one-dimensional (shape {values.shape}): a curvilinear grid; regrid it first"
        )
    bad = ~(np.abs(values) < _FILL)
    if bad.any():
        raise InputError(
            f"its {name} holds fill values instead of degrees ({bad.sum()} of {len(values)}, first "
            f"{values[bad][0]:g}); the file was damaged when it was written: fetch or convert it again"
        )


def _order_longitude(longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(index of columns in ascending order, their longitudes) with a repeated meridian dropped."""
    inside = np.mod(longitude, 360.0)
    inside[inside > 360 - _SAME] -= 360  # rounding: -1e-6 is meridian 0, not 359.999999
    order = np.argsort(inside, kind="stable")
    inside = inside[order]
    first = np.concatenate([[True], np.diff(inside) > _SAME])
    order, inside = order[first], inside[first]
    if len(inside) < 2:
        return order, inside
    gaps = np.diff(np.append(inside, inside[0] + 360))
    widest = int(gaps.argmax())
    if gaps[widest] > 1.5 * np.median(gaps) and widest != len(gaps) - 1:  # a limited area across the meridian
        order, inside = np.roll(order, -(widest + 1)), np.roll(inside, -(widest + 1))
        inside = np.where(inside >= inside[0], inside - 360, inside)
    return order, inside
