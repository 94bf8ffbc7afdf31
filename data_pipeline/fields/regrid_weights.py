"""Weights of one axis at a time: how much of each source row (or column) goes into each target row (or column).

On grids of latitudes and longitudes the weight of a cell or point is the product of a row's and a column's, so two
small sparse matrices do the work of one that couples every point with every other.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError

LEAST_SHARE = 0.5
"""A target value needs at least this share of its weight on values that are there."""

_SLIVER = 1e-9  # of a target cell: overlaps as thin are rounding of edges that coincide
_ON_POINT = 1e-6  # of a step: a target as near takes the value of the point, whatever its neighbour holds
_BEYOND = 2e-3  # degrees a target may lie outside: archives store coordinates in float32
_TURNS = range(-2, 3)  # longitudes lie in [-180, 360] and half a step around it: more turns apart they cannot meet


def conservative_weights(source: Grid, target: Grid) -> tuple[csr_array, csr_array]:
    """([target lat, source lat], [target lon, source lon]) shares of each target cell, rows summing to 1.

    First-order conservative remapping (Jones 1999, Mon. Wea. Rev. 127, 2204): the value of a target cell is the mean
    of the source cells, weighted by the area they share with it. On the sphere that area is the difference of
    sin(latitude) times that of longitude, so the shares are exact, and a product over the axes.

    Raises:
        InputError: a target cell of which the source covers less than half.
    """
    rows = _overlaps(-np.sin(np.deg2rad(source.latitude_bounds)), -np.sin(np.deg2rad(target.latitude_bounds)))
    edges, target_edges = longitude_bounds(source), longitude_bounds(target)
    turns = [_overlaps(edges + 360 * k, target_edges) for k in _TURNS]
    columns = sum(turns[1:], turns[0])
    return _normalised(rows, "latitude", target.latitude), _normalised(columns, "longitude", target.longitude)


def longitude_bounds(grid: Grid) -> np.ndarray:
    """[lon + 1] cell edges in degrees, half a step to each side; a global grid closes after exactly 360."""
    return grid.longitude[0] + (np.arange(grid.shape[1] + 1) - 0.5) * _longitude_step(grid)


def _longitude_step(grid: Grid) -> float:
    return 360 / grid.shape[1] if grid.periodic else grid.longitude_step


def _overlaps(source: np.ndarray, target: np.ndarray) -> csr_array:
    """[target, source] share of each target interval in each source interval, of ascending edges."""
    cuts = np.unique(np.concatenate([source, target]))
    middle = (cuts[:-1] + cuts[1:]) / 2
    row, column = np.searchsorted(target, middle) - 1, np.searchsorted(source, middle) - 1
    shape = len(target) - 1, len(source) - 1
    kept = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    row, column = row[kept], column[kept]
    share = np.diff(cuts)[kept] / np.diff(target)[row]
    thick = share > _SLIVER
    return csr_array((share[thick], (row[thick], column[thick])), shape=shape)


def _normalised(weights: csr_array, name: str, places: np.ndarray) -> csr_array:
    covered = weights.sum(axis=1)
    if (short := covered < LEAST_SHARE).any():
        raise InputError(
            f"the source covers {100 * covered[short][0]:.0f} % of the cells at {name} {places[short][0]:g}; "
            "choose a target within the source's area"
        )
    return csr_array(weights / covered[:, None])


def row_points(grid: Grid) -> tuple[np.ndarray, int, int]:
    """Latitudes between which points are interpolated, and how many were added at the (north, south) end: 0 or 1.

    A global grid whose outermost cells end at the poles has no point there; the poles are added to its latitudes.
    """
    north = int(reaches_pole(grid, 0) and grid.latitude[0] < 90 - _BEYOND)
    south = int(reaches_pole(grid, -1) and grid.latitude[-1] > _BEYOND - 90)
    return np.concatenate([[90.0] * north, grid.latitude, [-90.0] * south]), north, south


def reaches_pole(grid: Grid, end: int) -> bool:
    """True when the cells of the first (`end` 0) or last (-1) row go round a pole."""
    return bool(grid.periodic and abs(grid.latitude_bounds[end]) == 90)


def linear_rows(source: Grid, target: Grid) -> csr_array:
    """[target lat, latitudes of `row_points`] weights of linear interpolation in latitude.

    Raises:
        InputError: a target latitude beyond the source's.
    """
    return _linear(_row_places(source, target), len(row_points(source)[0]))


def linear_columns(source: Grid, target: Grid) -> csr_array:
    """[target lon, source lon] weights of linear interpolation in longitude, round the Earth if the source does.

    Raises:
        InputError: a target longitude beyond a limited area.
    """
    return _linear(_column_places(source, target), source.shape[1])


def nearest_rows(source: Grid, target: Grid) -> np.ndarray:
    """[target lat] index of the source row nearest in latitude; of two equally near, the northern.

    Raises:
        InputError: as `linear_rows`.
    """
    _, north, _ = row_points(source)
    return (_nearest(_row_places(source, target)) - north).clip(0, source.shape[0] - 1)


def nearest_columns(source: Grid, target: Grid) -> np.ndarray:
    """[target lon] index of the source column nearest in longitude; of two equally near, the western.

    Raises:
        InputError: as `linear_columns`.
    """
    return _nearest(_column_places(source, target)) % source.shape[1]


def _row_places(source: Grid, target: Grid) -> np.ndarray:
    """[target lat] position among `row_points`, counted from the north: 2.5 lies between the third and the fourth."""
    points, _, _ = row_points(source)
    beyond = (target.latitude > points[0] + _BEYOND) | (target.latitude < points[-1] - _BEYOND)
    _refuse(beyond, "latitude", target.latitude)
    return np.interp(-target.latitude, -points, np.arange(len(points), dtype=float))


def _column_places(source: Grid, target: Grid) -> np.ndarray:
    """[target lon] position among the source's columns, counted from the west."""
    step = _longitude_step(source)
    east = np.mod(target.longitude - source.longitude[0], 360)
    if source.periodic:
        return east / step
    east[east > 360 - step / 2] -= 360  # just west of the area, not a turn east of it
    width = source.longitude[-1] - source.longitude[0]
    _refuse((east < -_BEYOND) | (east > width + _BEYOND), "longitude", target.longitude)
    return (east / step).clip(0, source.shape[1] - 1)


def _refuse(beyond: np.ndarray, name: str, places: np.ndarray) -> None:
    if beyond.any():
        raise InputError(
            f"{name} {places[beyond][0]:g} lies beyond the source's outermost points; "
            "choose a target within the source's area"
        )


def _linear(places: np.ndarray, n: int) -> csr_array:
    """[target, n] weights of the points on both sides; on a point, of this one alone. Places are counted modulo n."""
    near = np.round(places)
    places = np.where(np.abs(places - near) < _ON_POINT, near, places)
    lower = np.floor(places)
    weight = places - lower  # of the upper point
    row, between = np.arange(len(places)), weight > 0
    rows = np.concatenate([row, row[between]])
    columns = np.concatenate([lower, lower[between] + 1]).astype(int) % n
    return csr_array((np.concatenate([1 - weight, weight[between]]), (rows, columns)), shape=(len(places), n))


def _nearest(places: np.ndarray) -> np.ndarray:
    """Nearest whole position; from the middle between two, the lower."""
    return np.ceil(places - 0.5 - _ON_POINT).astype(int)
