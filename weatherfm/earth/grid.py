"""Grid: the latitudes and longitudes of a field, or the pixels of a picture, validated once, and exact cell areas.

(numpy only)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from weatherfm.errors import InputError

_PLANE = "plane"
_TOLERANCE = 1e-3  # degrees; archives store coordinates in float32


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular or Gaussian latitude-longitude grid, global or a limited area.

    Latitude [lat] descends within [-90, 90]; longitude [lon] ascends in equal steps. A global grid starts in
    [0, 360). A limited area that crosses the prime meridian starts below zero (-20 .. 14.5) so that
    neighbours on Earth stay neighbours in the array.

    Raises:
        InputError: coordinates that break these rules, with the first offending value.
    """

    latitude: np.ndarray
    longitude: np.ndarray
    plane: ClassVar[bool] = False
    """True of pixels of a picture, which lie nowhere on Earth."""

    def __post_init__(self) -> None:
        latitude = np.asarray(self.latitude, np.float64)
        longitude = np.asarray(self.longitude, np.float64)
        object.__setattr__(self, "latitude", latitude)
        object.__setattr__(self, "longitude", longitude)
        for name, values, low, high in (("latitude", latitude, -90, 90), ("longitude", longitude, -180, 360)):
            if values.ndim != 1 or len(values) < 2:
                raise InputError(f"{name} must be one-dimensional with at least 2 points, got shape {values.shape}")
            outside = ~((values >= low - _TOLERANCE) & (values <= high + _TOLERANCE))
            if outside.any():
                raise InputError(
                    f"{name} must lie in [{low}, {high}] degrees, got {values[outside][0]:g}; "
                    "the file's coordinates are damaged or not geographical"
                )
        if not (np.diff(latitude) < 0).all():
            raise InputError(f"latitude must descend strictly, got {latitude[:3]} .. {latitude[-1]:g}; flip the field")
        steps = np.diff(longitude)
        if not (steps > 0).all():
            raise InputError(
                f"longitude must ascend strictly, got {longitude[:3]} .. {longitude[-1]:g}; sort the field"
            )
        if np.ptp(steps) > 2 * _TOLERANCE:
            raise InputError(
                f"longitude must have equal steps, got steps from {steps.min():g} to {steps.max():g} degrees"
            )
        self._check_circle(longitude, float(steps.mean()))
        if self.periodic and longitude[0] < -_TOLERANCE:
            raise InputError(f"a global grid must start in [0, 360), got {longitude[0]:g}; roll the field")

    def _check_circle(self, longitude: np.ndarray, step: float) -> None:
        """Refuse columns that go round the Earth more than once, or once with an odd gap at the end."""
        gap = 360 - (longitude[-1] - longitude[0])
        around = f"{len(longitude)} columns {longitude[0]:g} .. {longitude[-1]:g}"
        if gap <= 2 * _TOLERANCE:
            raise InputError(f"longitude covers the circle more than once: {around}; drop the repeat")
        if abs(gap - step) > 4 * _TOLERANCE and (gap < step or self.periodic):
            raise InputError(
                f"longitude goes round the Earth in unequal steps: {around} are {step:g} degrees apart, but from the "
                f"last to the first it is {gap:g}; cut the field to fewer columns, or regrid it to a step that "
                "360 is a multiple of"
            )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Grid)
            and self.plane == other.plane
            and self.shape == other.shape
            and np.allclose(self.latitude, other.latitude, rtol=0, atol=_TOLERANCE)
            and np.allclose(self.longitude, other.longitude, rtol=0, atol=_TOLERANCE)
        )

    __hash__ = None  # type: ignore[assignment]  # equality is within a tolerance

    def __str__(self) -> str:
        kind = "global" if self.periodic else "limited area"
        return (
            f"{self.shape[0]} x {self.shape[1]} {kind} "
            f"({self.latitude[0]:g} .. {self.latitude[-1]:g} N, {self.longitude[0]:g} .. {self.longitude[-1]:g} E)"
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(lat, lon) sizes."""
        return len(self.latitude), len(self.longitude)

    @cached_property
    def longitude_step(self) -> float:
        """Degrees between neighbouring columns."""
        return float((self.longitude[-1] - self.longitude[0]) / (len(self.longitude) - 1))

    @cached_property
    def periodic(self) -> bool:
        """True when the last column neighbours the first, i.e. the grid goes round the Earth."""
        return abs(len(self.longitude) * self.longitude_step - 360) < 0.5 * self.longitude_step

    @cached_property
    def latitude_bounds(self) -> np.ndarray:
        """[lat + 1] cell edges, descending: midpoints; the outer edges half a step out, at most the pole.

        A global grid reaches the poles: its outermost cells are extended to +-90 degrees.
        """
        inner = (self.latitude[:-1] + self.latitude[1:]) / 2
        first = self.latitude[0] + (self.latitude[0] - inner[0])
        last = self.latitude[-1] - (inner[-1] - self.latitude[-1])
        near_pole = 0.6 * (self.latitude[0] - self.latitude[1])  # Gaussian grids stop a little short of the pole
        if self.periodic and 90 - first < near_pole:
            first = 90.0
        if self.periodic and 90 + last < near_pole:
            last = -90.0
        return np.concatenate([[min(first, 90.0)], inner, [max(last, -90.0)]])

    @cached_property
    def area_weights(self) -> np.ndarray:
        """[lat, lon] float64 cell areas, mean 1: sin(upper edge) - sin(lower edge), exact also at a pole."""
        edges = np.sin(np.deg2rad(self.latitude_bounds))
        rows = edges[:-1] - edges[1:]
        return np.repeat((rows / rows.mean())[:, None], self.shape[1], axis=1)  # [lat, lon]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for JSON."""
        return {"latitude": self.latitude.tolist(), "longitude": self.longitude.tolist()}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Grid:
        """Inverse of `to_dict`, of a plane too."""
        return grid_of(np.asarray(data["latitude"]), np.asarray(data["longitude"]), data.get("kind") == _PLANE)


@dataclass(frozen=True, eq=False)
class Plane(Grid):
    """The pixels of a picture: rows counted downwards and columns to the right, from 0. All count alike.

    They are called latitude and longitude, as the axes of every field are, and are no places: nothing that follows from
    places on Earth (sunlight, regions, maps, neighbours across a pole) is made of a plane.

    Raises:
        InputError: rows or columns that are not 0, 1, 2, ...
    """

    plane: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, axis in (("rows", "latitude"), ("columns", "longitude")):
            values = np.asarray(getattr(self, axis), np.float64)
            object.__setattr__(self, axis, values)
            if values.ndim != 1 or len(values) < 2 or not np.array_equal(values, np.arange(len(values))):
                raise InputError(f"{name} of a plane of pixels are 0, 1, 2, ... and at least two, got {values[:4]}")

    def __str__(self) -> str:
        return f"{self.shape[0]} x {self.shape[1]} pixels"

    @cached_property
    def periodic(self) -> bool:
        """Never: a picture has edges."""
        return False

    @cached_property
    def latitude_bounds(self) -> np.ndarray:
        """[row + 1] edges of the pixels, ascending."""
        return np.arange(self.shape[0] + 1) - 0.5

    @cached_property
    def area_weights(self) -> np.ndarray:
        """[row, column] float64: 1 everywhere."""
        return np.ones(self.shape)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for JSON, and what they are."""
        return {"kind": _PLANE, **super().to_dict()}


def plane_of(shape: Sequence[int]) -> Plane:
    """The plane of [rows, columns] pixels."""
    rows, columns = shape
    return Plane(np.arange(rows), np.arange(columns))


def grid_of(latitude: np.ndarray, longitude: np.ndarray, plane: bool) -> Grid:
    """A plane of pixels, or a grid on Earth."""
    return Plane(latitude, longitude) if plane else Grid(latitude, longitude)


def regular_grid(shape: Sequence[int]) -> Grid:
    """The global grid of [lat, lon] equal cells with no point on a pole, as WeatherBench2's 32 x 64."""
    n_lat, n_lon = shape
    latitude = 90 - (np.arange(n_lat) + 0.5) * 180 / n_lat
    return Grid(latitude, np.arange(n_lon) * 360 / n_lon)
