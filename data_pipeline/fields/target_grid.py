"""The grid that fields are brought to: a global one, or the part of it that the source covers and a box asks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import roots_legendre

from weatherfm.data_pipeline.fields.regrid_weights import longitude_bounds, reaches_pole
from weatherfm.data_pipeline.store_config import Area, RegridConfig
from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.errors import InputError

_TOLERANCE = 1e-3  # degrees; archives store coordinates in float32


@dataclass(frozen=True, eq=False)
class Part:
    """Neighbouring rows and columns of a field, which form `grid`."""

    grid: Grid
    rows: slice
    columns: np.ndarray
    """[lon] index of each column; they go over the end of a global field to its start."""

    def __call__(self, fields: np.ndarray) -> np.ndarray:
        """[..., lat, lon] of the whole -> [..., lat, lon] of the part."""
        return np.take(fields[..., self.rows, :], self.columns, axis=-1)


def cut(grid: Grid, area: Area) -> Part:
    """The points of `grid` whose centres lie in the box.

    Raises:
        InputError: fewer than two rows or columns lie in it, or those that do are not neighbours.
    """
    return _part(grid, _rows_inside(grid, area), _columns_inside(grid, area), f"the {_text(area)}", "widen the box")


def target_grid(source: Grid, regrid: RegridConfig, area: Area | None) -> Grid:
    """The grid asked for where the source covers it, and where the box allows.

    Kept are cells wholly within the source's cells (conservative), or points between the source's outermost points
    (bilinear, nearest; up to a pole where the source's cells reach it); of these, the ones with centres in the box.

    Raises:
        InputError: fewer than two rows or columns are left, or those that are left are not neighbours.
    """
    whole = global_grid(regrid)
    rows, columns = (_cells_covered if regrid.method == "conservative" else _points_covered)(source, whole)
    where = f"the source, {source}"
    if area is not None:
        rows, columns = rows & _rows_inside(whole, area), columns & _columns_inside(whole, area)
        where += f", and the {_text(area)}"
    return _part(whole, rows, columns, where, "choose a finer resolution or a wider area").grid


def global_grid(regrid: RegridConfig) -> Grid:
    """The whole grid that the settings name, its first longitude 0.

    Gaussian latitudes are arcsin of the zeros of the Legendre polynomial of their number.
    """
    if regrid.gaussian is not None:
        zeros = roots_legendre(2 * regrid.gaussian)[0]
        n_lon = 4 * regrid.gaussian
        return Grid(np.rad2deg(np.arcsin(zeros[::-1])), np.arange(n_lon) * 360 / n_lon)
    assert regrid.resolution is not None  # RegridConfig has one of the two
    n_lat = round(180 / regrid.resolution)
    cells = regular_grid((n_lat, 2 * n_lat))
    return Grid(np.linspace(90, -90, n_lat + 1), cells.longitude) if regrid.poles else cells


def _cells_covered(source: Grid, target: Grid) -> tuple[np.ndarray, np.ndarray]:
    """([lat], [lon]) bool: target rows and columns whose cells lie within the source's."""
    bounds, limits = target.latitude_bounds, source.latitude_bounds
    rows = (bounds[:-1] <= limits[0] + _TOLERANCE) & (bounds[1:] >= limits[-1] - _TOLERANCE)
    if source.periodic:
        return rows, np.ones(target.shape[1], bool)
    edges, ends = longitude_bounds(target), longitude_bounds(source)[[0, -1]]
    return rows, _within(edges[:-1], ends[0], ends[1] - target.longitude_step)


def _points_covered(source: Grid, target: Grid) -> tuple[np.ndarray, np.ndarray]:
    """([lat], [lon]) bool: target rows and columns whose points need no extrapolation."""
    north = 90 if reaches_pole(source, 0) else source.latitude[0] + _TOLERANCE
    south = -90 if reaches_pole(source, -1) else source.latitude[-1] - _TOLERANCE
    rows = (target.latitude <= north) & (target.latitude >= south)
    if source.periodic:
        return rows, np.ones(target.shape[1], bool)
    return rows, _within(target.longitude, source.longitude[0], source.longitude[-1])


def _rows_inside(grid: Grid, area: Area) -> np.ndarray:
    return (grid.latitude <= area.north + _TOLERANCE) & (grid.latitude >= area.south - _TOLERANCE)


def _columns_inside(grid: Grid, area: Area) -> np.ndarray:
    return _within(grid.longitude, area.west, area.east)


def _within(longitude: np.ndarray, west: float, east: float) -> np.ndarray:
    """Bool: meridians on the way from `west` eastward to `east`, whatever turn they are counted in."""
    return np.mod(longitude - west + _TOLERANCE, 360) <= east - west + 2 * _TOLERANCE


def _part(grid: Grid, rows: np.ndarray, columns: np.ndarray, where: str, remedy: str) -> Part:
    if rows.sum() < 2 or columns.sum() < 2:
        raise InputError(
            f"only {rows.sum()} rows and {columns.sum()} columns of the {grid} grid lie within {where}; "
            f"a grid needs two of each: {remedy}"
        )
    first_row = int(rows.argmax())
    kept = slice(first_row, first_row + int(rows.sum()))
    if columns.all():
        return Part(Grid(grid.latitude[kept], grid.longitude), kept, np.arange(grid.shape[1]))
    index, longitude = _arc(grid, columns, where)
    return Part(Grid(grid.latitude[kept], longitude), kept, index)


def _arc(grid: Grid, columns: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """(index, ascending longitudes) of the columns kept, from the westernmost on."""
    before = np.roll(columns, 1)
    before[0] &= grid.periodic
    starts = np.flatnonzero(columns & ~before)
    if len(starts) > 1:
        raise InputError(
            f"the columns of the {grid} grid within {where} are not neighbours: there are {len(starts)} stretches; "
            "take a box that meets the source's area once"
        )
    index = starts[0] + np.arange(columns.sum())
    longitude = grid.longitude[index % len(columns)] + 360 * (index // len(columns))
    return index % len(columns), _normal(longitude)


def _normal(longitude: np.ndarray) -> np.ndarray:
    """The same meridians counted in [0, 360), or from below zero on where they cross the prime meridian."""
    if longitude[-1] < -_TOLERANCE:
        return longitude + 360
    crosses = longitude[-1] > 360 - _TOLERANCE
    return longitude - 360 if crosses and longitude[0] >= 180 - _TOLERANCE else longitude


def _text(area: Area) -> str:
    return f"box {area.south:g} .. {area.north:g} N, {area.west:g} .. {area.east:g} E"
