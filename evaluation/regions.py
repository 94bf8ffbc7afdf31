"""Verification regions: the weight of every grid cell in each (numpy only)."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np

from weatherfm.errors import InputError
from weatherfm.grid import Grid

_TOLERANCE = 1e-3  # degrees; archives store coordinates in float32

BANDS: dict[str, tuple[float, float]] = {
    "global": (-90.0, 90.0),
    "northern_extratropics": (20.0, 90.0),
    "southern_extratropics": (-90.0, -20.0),
    "tropics": (-20.0, 20.0),
    "area": (-90.0, 90.0),
}
"""Southern and northern limit in degrees. The bands are those of the WMO Manual on the Global Data-processing and
Forecasting System (WMO-No. 485), also ECMWF's and WeatherBench2's, points on a limit included."""


def default_regions(grid: Grid) -> tuple[str, ...]:
    """The four WMO regions of a global grid, so far as it has points there; `area`, all of it, on a limited one."""
    if not grid.periodic:
        return ("area",)
    return tuple(name for name in BANDS if name != "area" and _rows(grid, name).any())


def region_weights(grid: Grid, regions: Sequence[str]) -> np.ndarray:
    """[region, lat, lon] float64: the grid's cell areas, zero outside the region.

    A row of points belongs to a region when its latitude lies within the limits *or on them*, and then counts with
    its whole cell: a row at exactly 20 N belongs to the tropics and to the extratropics. No cell is split, so the
    bands cover their area to within half a grid step.

    Raises:
        InputError: an unknown region, one without a point on this grid, one named twice, or `global` on a limited
            area.
    """
    if not regions or len(set(regions)) < len(regions):
        raise InputError(f"regions must name at least one, each once; got [{', '.join(regions)}]")
    return np.stack([_weights(grid, name) for name in regions])


def _weights(grid: Grid, name: str) -> np.ndarray:
    if name not in BANDS:
        close = get_close_matches(name, BANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(BANDS)}"
        raise InputError(f"unknown region {name!r}; {hint}")
    if name == "global" and not grid.periodic:
        raise InputError(f"region 'global' was asked for, but the grid is {grid}; use 'area'")
    rows = _rows(grid, name)
    if not rows.any():
        south, north = BANDS[name]
        raise InputError(f"region {name!r} ({south:g} .. {north:g} N) has no point on the grid {grid}; leave it out")
    return np.where(rows[:, None], grid.area_weights, 0.0)


def _rows(grid: Grid, name: str) -> np.ndarray:
    """[lat] bool: the rows within the region's limits or on them."""
    south, north = BANDS[name]
    return (grid.latitude >= south - _TOLERANCE) & (grid.latitude <= north + _TOLERANCE)
