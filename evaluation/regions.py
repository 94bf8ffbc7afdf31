"""Verification regions: the weight of every grid cell in each (numpy only).

A region is one of those below, `area` (the whole grid), or a box of the user's own in the order of the Copernicus Data
Store, north/west/south/east: `alps:48/5/44/16`. Any of them may be taken over land or sea alone: `global_land`,
`europe_sea`, `alps_land:48/5/44/16`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError

_TOLERANCE = 1e-3  # degrees; archives store coordinates in float32
_LAND = 0.5
_LEAST_POINTS = 4
"""Of a box that is scored by default."""

BANDS: dict[str, tuple[float, float]] = {
    "global": (-90.0, 90.0),
    "northern_extratropics": (20.0, 90.0),
    "southern_extratropics": (-90.0, -20.0),
    "tropics": (-20.0, 20.0),
    "area": (-90.0, 90.0),
}
"""Southern and northern limit in degrees. The bands are those of the WMO Manual on the Global Data-processing and
Forecasting System (WMO-No. 485), also ECMWF's and WeatherBench2's, points on a limit included."""

BOXES: dict[str, tuple[float, float, float, float]] = {
    "europe": (75, -12.5, 35, 42.5),
    "north_america": (60, -120, 25, -75),
    "north_atlantic": (65, -70, 25, -10),
    "north_pacific": (60, 145, 25, -130),
    "east_asia": (60, 102.5, 25, 150),
    "ausnz": (-12.5, 120, -45, 175),
    "arctic": (90, -180, 60, 180),
    "antarctic": (-60, -180, -90, 180),
}
"""North, west, south, east in degrees: the regions of ECMWF's score cards as WeatherBench2 has them
(`scripts/evaluate.py`; WeatherBench-X the same)."""


@dataclass(frozen=True)
class Region:
    """A box between two latitudes, from `west` eastward over `width` degrees; degrees north and east."""

    name: str
    """As asked for, with its part and limits."""
    south: float
    north: float
    west: float = 0.0
    width: float = 360.0
    part: str | None = None
    """`land` or `sea`; None for both."""

    def __str__(self) -> str:
        rows = f"{self.south:g} .. {self.north:g} N"
        return rows if self.width == 360 else f"{rows}, {self.west:g} .. {self.west + self.width:g} E"

    def rows(self, grid: Grid) -> np.ndarray:
        """[lat] bool: latitudes within the limits or on them."""
        return (grid.latitude >= self.south - _TOLERANCE) & (grid.latitude <= self.north + _TOLERANCE)

    def columns(self, grid: Grid) -> np.ndarray:
        """[lon] bool: meridians within the limits or on them, wherever the grid begins."""
        return (grid.longitude - self.west + _TOLERANCE) % 360 <= self.width + 2 * _TOLERANCE


def parse_region(text: str) -> Region:
    """The region that a name or `name:north/west/south/east` means, with `_land` or `_sea` after the name.

    Raises:
        InputError: an unknown name, limits that are no numbers, outside the Earth or in another order, a name that is
            taken.
    """
    name, colon, limits = text.strip().partition(":")
    base, part = _split(name)
    if colon:
        return _own_box(text, base, limits, part)
    if base in BANDS:
        south, north = BANDS[base]
        return Region(text, south, north, part=part)
    if base not in BOXES:
        close = get_close_matches(base, [*BANDS, *BOXES], n=1)
        known = f"known are {', '.join([*BANDS, *BOXES])}, these with _land or _sea, and boxes as alps:48/5/44/16"
        suffix = f"_{part}" if part else ""
        raise InputError(f"unknown region {text!r}; " + (f"did you mean {close[0] + suffix!r}?" if close else known))
    return _box(text, BOXES[base], part)


def default_regions(grid: Grid, land: np.ndarray | None = None) -> tuple[str, ...]:
    """What suits the grid.

    Args:
        grid: of the fields.
        land: [lat, lon] share of land, if known.

    Returns:
        On a global grid the four WMO regions, all land and all sea, and the boxes with four points or more; on a
        limited one `area`, its land and its sea. Those without a point are left out.
    """
    whole = "global" if grid.periodic else "area"
    parts = () if land is None else (f"{whole}_land", f"{whole}_sea")
    parts = parts if all(_points(grid, parse_region(name), land).any() for name in parts) else ()
    if not grid.periodic:
        return (whole, *parts)
    here = {name: parse_region(name) for name in [*BANDS, *BOXES] if name not in ("global", "area")}
    here = {name: region for name, region in here.items() if not _uncovered_sides(grid, region)}
    points = {name: np.count_nonzero(_points(grid, region, land)) for name, region in here.items()}
    bands = [name for name in BANDS if points.get(name)]
    return (whole, *bands, *parts, *(name for name in BOXES if points.get(name, 0) >= _LEAST_POINTS))


def region_weights(grid: Grid, regions: Sequence[str], land: np.ndarray | None = None) -> np.ndarray:
    """[region, lat, lon] float64: the grid's cell areas, zero outside the region.

    A point belongs to a region when it lies within the limits *or on them*, and then counts with its whole cell: a
    row at exactly 20 N belongs to the tropics and to the extratropics. No cell is split, so regions cover their area
    to within half a grid step. A point is land where more than half of its cell is (ECMWF's convention), else sea.

    Args:
        grid: of the fields.
        regions: as of `parse_region`.
        land: [lat, lon] share of land; needed for regions of land or sea alone.

    Raises:
        InputError: an unknown region, one named twice, one without a point on this grid, one that the grid covers in
            part only, or land or sea without a land-sea mask.
        ValueError: a mask of another shape.
    """
    if not regions or len(set(regions)) < len(regions):
        raise InputError(f"regions must name at least one, each once; got [{', '.join(regions)}]")
    if land is not None and land.shape != grid.shape:
        raise ValueError(f"a land-sea mask of shape {land.shape} does not belong to a grid of {grid.shape}")
    return np.stack([_weights(grid, parse_region(name), land) for name in regions])


def mean_weights(grid: Grid, regions: Sequence[str], land: np.ndarray | None = None) -> np.ndarray:
    """[region, point] float64: the weights of spatial means, each region's sum to 1; errors as of `region_weights`."""
    weights = region_weights(grid, regions, land).reshape(len(regions), -1)
    return weights / weights.sum(1, keepdims=True)


def mean_over(weights: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Weights [region, point] of means over some points alone, [point] bool; NaN for a region without any of them."""
    some = np.where(points, weights, 0.0)
    total = some.sum(1, keepdims=True)
    return np.where(total > 0, some / np.where(total > 0, total, 1.0), np.nan)


def _weights(grid: Grid, region: Region, land: np.ndarray | None) -> np.ndarray:
    if region.part and land is None:
        raise InputError(
            f"region {region.name!r} needs the land-sea mask, which the store does not have; prepare it with "
            f"static: [lsm], or leave _{region.part} out"
        )
    base = _split(region.name)[0]
    if base == "global" and not grid.periodic:
        raise InputError(f"region {region.name!r} was asked for, but the grid is {grid}; use 'area'")
    points = _points(grid, region, land)
    if not points.any():
        raise InputError(f"region {region.name!r} ({_in_words(region)}) has no point on the grid {grid}; leave it out")
    if base not in ("global", "area") and (sides := _uncovered_sides(grid, region)):
        raise InputError(
            f"region {region.name!r} ({region}) reaches beyond the grid {grid} in the {' and '.join(sides)}: scores "
            "would carry its name but cover a part; use 'area', or a box inside as alps:48/5/44/16"
        )
    return np.where(points, grid.area_weights, 0.0)


def _points(grid: Grid, region: Region, land: np.ndarray | None) -> np.ndarray:
    """[lat, lon] bool."""
    points = region.rows(grid)[:, None] & region.columns(grid)
    if region.part is None or land is None:
        return points
    return points & ((land > _LAND) == (region.part == "land"))


def _uncovered_sides(grid: Grid, region: Region) -> list[str]:
    """Sides where the region ends more than half a grid step, the cells' other half, beyond the outermost points."""
    edges = grid.latitude_bounds
    sides = [("north", region.north - edges[0]), ("south", edges[-1] - region.south)]
    if not grid.periodic:
        first = grid.longitude[0] - grid.longitude_step / 2
        span = len(grid.longitude) * grid.longitude_step
        start = (region.west - first + _TOLERANCE) % 360 - _TOLERANCE  # of the region, east of the grid's
        end = start + region.width
        outside = start >= span
        sides += [("west", 360 - start if outside else end - 360), ("east", end - span - 360 * outside)]
    return [side for side, beyond in sides if beyond > _TOLERANCE]


def _own_box(text: str, base: str, limits: str, part: str | None) -> Region:
    if not base.isidentifier():
        raise InputError(f"region {text!r} has no name of letters, digits and _; write e.g. alps:48/5/44/16")
    if base in BANDS or base in BOXES:
        raise InputError(f"region {text!r}: {base} is a region already; give the box another name, e.g. my_{base}")
    try:
        north, west, south, east = (float(limit) for limit in limits.split("/"))
    except ValueError:
        raise InputError(
            f"region {text!r} is not name:north/west/south/east in degrees; write e.g. alps:48/5/44/16"
        ) from None
    if not (-90 <= south <= 90 and -90 <= north <= 90 and -180 <= west <= 360 and -180 <= east <= 360):
        raise InputError(
            f"region {text!r}: latitudes must lie in [-90, 90], longitudes in [-180, 360]; the order is "
            "north/west/south/east"
        )
    if south >= north:
        raise InputError(
            f"region {text!r}: south ({south:g}) is not below north ({north:g}); the order is north/west/south/east"
        )
    return _box(text, (north, west, south, east), part)


def _box(text: str, limits: tuple[float, float, float, float], part: str | None) -> Region:
    """Eastward from west to east, over the date line if need be."""
    north, west, south, east = limits
    width = east - west if east > west else (east - west) % 360
    if not 0 < width <= 360 or (east < west and width > 180):
        raise InputError(
            f"region {text!r}: from west ({west:g}) eastward to east ({east:g}) are {width:g} degrees; the order is "
            "north/west/south/east"
        )
    return Region(text, south, north, west, width, part)


def _split(name: str) -> tuple[str, str | None]:
    """`europe_land` is (`europe`, `land`); limits after the name fall away."""
    base, _, part = name.partition(":")[0].rpartition("_")
    return (base, part) if base and part in ("land", "sea") else (name.partition(":")[0], None)


def _in_words(region: Region) -> str:
    return f"{region.part} of {region}" if region.part else str(region)
