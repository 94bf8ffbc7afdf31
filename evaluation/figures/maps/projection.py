"""The projection that suits a grid, its outline and graticule, and fields laid out for contouring on it."""

from __future__ import annotations

import cartopy.crs as ccrs
import matplotlib.path as mpath
import numpy as np
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.ticker import MaxNLocator

from weatherfm.earth.grid import Grid
from weatherfm.evaluation.figures.pictures import GREY

_DATE_LINE = 180 - 1e-6
"""Just inside: a projection may put 180 degrees on either side of the map."""
_PLATE = ccrs.PlateCarree()


def projection_of(grid: Grid) -> ccrs.Projection:
    """Robinson for the globe, Lambert conformal for an area within one hemisphere, else equidistant cylindrical."""
    if grid.periodic:
        return ccrs.Robinson()
    west, east, south, north = _bounds(grid)
    middle = (west + east) / 2
    if south * north < 0 or east - west > 180 or max(abs(south), abs(north)) < 25:
        return ccrs.PlateCarree(central_longitude=middle)
    height = north - south
    parallels = (south + height / 6, north - height / 6)
    cutoff = -30 if south >= 0 else 30
    return ccrs.LambertConformal(middle, (south + north) / 2, standard_parallels=parallels, cutoff=cutoff)


def aspect_of(grid: Grid) -> float:
    """Width over height of the map."""
    projection = projection_of(grid)
    if grid.periodic:
        return float(np.ptp(projection.x_limits) / np.ptp(projection.y_limits))
    width, height = np.ptp(_outline(grid, projection), axis=0)
    return float(width / height)


def frame(axes: GeoAxes, grid: Grid, labels: bool = True) -> None:
    """Show the whole globe, or just the area inside an outline that follows its meridians and parallels.

    Meridians and parallels are drawn, and labelled on a limited area unless `labels` says no.
    """
    axes.spines["geo"].set(edgecolor=GREY, linewidth=0.8)
    if grid.periodic:
        axes.set_global()
        _graticule_of_the_globe(axes)
        return
    points = _outline(grid, axes.projection)
    low, high = points.min(0), points.max(0)
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    axes.set_boundary(mpath.Path(points), transform=axes.transData)
    _graticule(axes, grid, labels)


def closed_field(grid: Grid, field: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Longitude [x], latitude [y] and field [y, x] ready for contouring.

    A global field is turned to -180 .. 180, closed at the date line by interpolation between its neighbours (no
    seam) and continued to the poles with its outermost rows, or with NaN where rows are left out there. A limited area
    is returned as it is.
    """
    if not grid.periodic:
        return grid.longitude, grid.latitude, field
    longitude = (grid.longitude + 180) % 360 - 180  # -180 .. 180
    order = np.argsort(longitude, kind="stable")
    longitude, field = longitude[order], field[:, order]
    share = (180 - longitude[-1]) / (longitude[0] + 360 - longitude[-1])
    edge = (1 - share) * field[:, -1:] + share * field[:, :1]
    inner = np.abs(longitude) < _DATE_LINE
    longitude = np.concatenate([[-_DATE_LINE], longitude[inner], [_DATE_LINE]])
    field = np.concatenate([edge, field[:, inner], edge], axis=1)
    latitude = grid.latitude
    if latitude[0] < 90:
        cap = field[:1] if _reaches(latitude[0], latitude[1]) else np.full_like(field[:1], np.nan)
        latitude, field = np.concatenate([[90.0], latitude]), np.concatenate([cap, field])
    if latitude[-1] > -90:
        cap = field[-1:] if _reaches(latitude[-1], latitude[-2]) else np.full_like(field[-1:], np.nan)
        latitude, field = np.concatenate([latitude, [-90.0]]), np.concatenate([field, cap])
    return longitude, latitude, field


def _reaches(last: float, next_to_it: float) -> bool:
    """True where the outermost row is that of the pole's cells: half a step away, 0.77 of one on Gaussian grids."""
    return 90 - abs(last) < 0.9 * abs(last - next_to_it)


def _bounds(grid: Grid) -> tuple[float, float, float, float]:
    """West, east, south and north of the outermost points in degrees."""
    return grid.longitude[0], grid.longitude[-1], grid.latitude[-1], grid.latitude[0]


def _outline(grid: Grid, projection: ccrs.Projection) -> np.ndarray:
    """[point, 2] closed outline of a limited area in map coordinates."""
    west, east, south, north = _bounds(grid)
    east = min(east, west + 360 - 1e-6)
    there, back = np.linspace(0, 1, 60), np.linspace(1, 0, 60)
    up, across = north - south, east - west
    longitude = np.concatenate([west + there * across, np.full(60, east), west + back * across, np.full(60, west)])
    latitude = np.concatenate([np.full(60, south), south + there * up, np.full(60, north), south + back * up])
    return projection.transform_points(_PLATE, longitude, latitude)[:, :2]


def _graticule_of_the_globe(axes: GeoAxes) -> None:
    """Every 60 degrees of longitude and 30 of latitude; cartopy's `gridlines` takes longer than all else of a map."""
    along = np.linspace(-1, 1, 120)
    for longitude in range(-120, 180, 60):
        _line(axes, np.full(120, float(longitude)), 90 * along)
    for latitude in range(-60, 90, 30):
        _line(axes, _DATE_LINE * along, np.full(120, float(latitude)))


def _line(axes: GeoAxes, longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Draw a line of the graticule; its points [point, 2] in map coordinates."""
    points = axes.projection.transform_points(_PLATE, longitude, latitude)[:, :2]
    axes.plot(points[:, 0], points[:, 1], color="0.25", linewidth=0.5, alpha=0.3)
    return points


def _graticule(axes: GeoAxes, grid: Grid, labels: bool) -> None:
    """Meridians labelled where they leave the map at the bottom, parallels at the left."""
    west, east, south, north = _bounds(grid)
    for longitude in _round_values(west, east):
        line = _line(axes, np.full(60, longitude), np.linspace(south, north, 60))
        if labels:
            _label(axes, line[0], _degrees(longitude, "E", "W"), (0, -3), "center", "top")
    for latitude in _round_values(south, north):
        line = _line(axes, np.linspace(west, east, 60), np.full(60, latitude))
        if labels:
            _label(axes, line[0], _degrees(latitude, "N", "S"), (-3, 0), "right", "center")


def _round_values(low: float, high: float) -> np.ndarray:
    values = np.asarray(MaxNLocator(nbins=5, steps=[1, 2, 3, 5, 6, 10]).tick_values(low, high))
    return values[(values > low) & (values < high)]


def _label(
    axes: GeoAxes, point: np.ndarray, text: str, offset: tuple[float, float], horizontal: str, vertical: str
) -> None:
    axes.annotate(
        text,
        point[:2],
        xytext=offset,
        textcoords="offset points",
        ha=horizontal,
        va=vertical,
        fontsize=7.5,
        color=GREY,
        annotation_clip=False,
    )


def _degrees(value: float, positive: str, negative: str) -> str:
    value = (value + 180) % 360 - 180
    side = positive if value > 0 else negative
    return f"{abs(value):g}°{side if value else ''}"
