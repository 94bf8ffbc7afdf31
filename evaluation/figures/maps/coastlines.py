"""Coastlines on maps, from files shipped with the package: nothing is ever downloaded."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cartopy
import cartopy.crs as ccrs
from cartopy.feature import ShapelyFeature
from cartopy.io.shapereader import Reader
from cartopy.mpl.geoaxes import GeoAxes

_SHIPPED = Path(__file__).parent / "natural_earth"


def natural_earth_file(category: str, name: str) -> Path:
    """Shapefile of Natural Earth 1:110m, e.g. `natural_earth_file("physical", "coastline")`.

    The user's own, where cartopy's `pre_existing_data_dir` (CARTOPY_DATA_DIR) has it, else the shipped one. cartopy's
    own `coastlines()` would download what it does not find.
    """
    inside = Path("shapefiles", "natural_earth", category, f"ne_110m_{name}.shp")
    own = Path(cartopy.config["pre_existing_data_dir"]) / inside
    return own if own.is_file() else _SHIPPED / inside


@lru_cache(maxsize=8)
def _feature(path: Path) -> ShapelyFeature:
    """One object a file: cartopy keeps projected geometries by object."""
    return ShapelyFeature(list(Reader(path).geometries()), ccrs.PlateCarree(), facecolor="none")


def draw_coastlines(axes: GeoAxes, borders: bool = False) -> int:
    """Draw coastlines, and boundary lines of countries where asked for; returns the number of lines at hand.

    A light line lies below the dark one, so that they show on dark and light colours.
    """
    coast = _feature(natural_earth_file("physical", "coastline"))
    axes.add_feature(coast, edgecolor="white", linewidth=1.6, alpha=0.55, zorder=3)
    axes.add_feature(coast, edgecolor="0.1", linewidth=0.7, zorder=3.1)
    count = len(list(coast.geometries()))
    if borders:
        lines = _feature(natural_earth_file("cultural", "admin_0_boundary_lines_land"))
        axes.add_feature(lines, edgecolor="0.1", linewidth=0.35, alpha=0.6, zorder=3)
        count += len(list(lines.geometries()))
    return count
