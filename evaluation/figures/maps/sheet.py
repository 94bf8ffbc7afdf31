"""Maps of one size in rows and columns, with coastlines, titles and colour bars, laid out in inches."""

from __future__ import annotations

from dataclasses import dataclass

import cartopy.crs as ccrs
import numpy as np
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure

from weatherfm.evaluation.figures.maps.case import Case
from weatherfm.evaluation.figures.maps.coastlines import draw_coastlines
from weatherfm.evaluation.figures.maps.projection import aspect_of, closed_field, frame, projection_of
from weatherfm.evaluation.figures.pictures import GREY

_NOTHING = "#c9cfd6"
"""Where a channel never has a value: an error near zero is white."""


@dataclass(frozen=True, eq=False)
class Look:
    """How a field is filled."""

    levels: np.ndarray
    """In the units shown."""
    colours: str
    """Matplotlib's colour map."""
    contours: bool = False
    """Lines at the levels as well."""
    beyond: bool = True
    """Values beyond the levels have the outermost colours; else none."""


class Sheet:
    """A figure of maps of the same size, titles above them, colour bars below the last row.

    Args:
        case: whose grid and ground the maps have.
        columns: how many maps stand side by side.
        rows: how many stand below each other.
        map_width: inches at most; tall areas become narrow.
        above: inches left free at the top.
        below: inches left free at the bottom.
        labels: of latitudes and longitudes on a limited area.
    """

    def __init__(
        self,
        case: Case,
        columns: int,
        rows: int = 1,
        map_width: float = 4.5,
        above: float = 0.0,
        below: float = 0.0,
        labels: bool = True,
    ) -> None:
        labelled = labels and not case.grid.periodic
        self.case, self.columns, self._labels = case, columns, labels
        self.left = 0.5 if labelled else 0.1
        aspect = aspect_of(case.grid)
        self.map_width = min(map_width, min(5.2, 1.5 * map_width) * aspect)
        self.map_height = self.map_width / aspect
        self.bottom = below + (0.75 if labelled else 0.57)
        self.step = self.map_width + self.left + 0.1
        self._row_step = self.map_height + (0.34 if labels else 0.24)
        self.width = columns * self.step
        self.height = self.bottom + rows * self._row_step + above
        self._above = above
        self.figure = Figure(figsize=(self.width, self.height))
        self.bar_bottom = below + 0.41

    def draw(self, place: int, field: np.ndarray, look: Look, title: str, size: float | None = None) -> QuadContourSet:
        """Draw a field [lat, lon], in the units shown, into its place, row by row; `size` is of the title's letters."""
        row, column = divmod(place, self.columns)
        top = self.height - self._above - row * self._row_step
        corner = (column * self.step + self.left, top - self._row_step, self.map_width, self.map_height)
        axes = self.figure.add_axes(self._share(*corner), projection=projection_of(self.case.grid))
        drawn = _fill(axes, self.case, field, look, self._labels)
        axes.set_title(title, pad=4, fontsize=size)
        return drawn

    def outline(self, place: int, field: np.ndarray, level: float, colour: str) -> None:
        """Draw the line where a field crosses a level onto the map that was drawn into a place."""
        _contour(self.figure.axes[place], self.case, field, np.array([level]), colour, 1.6)

    def colour_bar(self, drawn: QuadContourSet, label: str, first: int, last: int, ticks: np.ndarray) -> None:
        """Draw a colour bar centred below the columns first .. last."""
        span = (last - first) * self.step + self.map_width
        length = min(0.94 * span, 5.2)
        start = first * self.step + self.left + (span - length) / 2
        axes = self.figure.add_axes(self._share(start, self.bar_bottom, length, 0.11))
        bar = self.figure.colorbar(drawn, cax=axes, orientation="horizontal", extendfrac=0.03)
        text = label[0].upper() + label[1:]
        bar.set_label(text, fontsize=min(9, 9 * 55 / len(text)), labelpad=1)
        bar.ax.tick_params(labelsize=8.5, length=2, pad=2)
        bar.outline.set(edgecolor=GREY, linewidth=0.6)
        bar.set_ticks(ticks.tolist())

    def _share(self, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        return x / self.width, y / self.height, width / self.width, height / self.height


def _fill(axes: GeoAxes, case: Case, field: np.ndarray, look: Look, labels: bool) -> QuadContourSet:
    frame(axes, case.grid, labels)
    longitude, latitude, closed = closed_field(case.grid, field)
    if np.isnan(closed).any():
        axes.set_facecolor(_NOTHING)
    drawn = axes.contourf(
        *np.meshgrid(longitude, latitude),
        np.ma.masked_invalid(closed),
        levels=look.levels,
        cmap=look.colours,
        extend="both" if look.beyond else "neither",
        transform=ccrs.PlateCarree(),
        transform_first=True,
    )
    if look.contours:
        _contour(axes, case, field, look.levels, "black", 0.45, 0.55)
    _surroundings(axes, case)
    return drawn


def _contour(
    axes: GeoAxes, case: Case, field: np.ndarray, levels: np.ndarray, colour: str, width: float, alpha: float = 1.0
) -> None:
    longitude, latitude, closed = closed_field(case.grid, field)
    axes.contour(
        *np.meshgrid(longitude, latitude),
        np.ma.masked_invalid(closed),
        levels=levels,
        colors=colour,
        linewidths=width,
        alpha=alpha,
        transform=ccrs.PlateCarree(),
        transform_first=True,
    )


def _surroundings(axes: GeoAxes, case: Case) -> None:
    """Coastlines on Earth; on a simulated planet its own land and mountains."""
    if not case.simulated:
        draw_coastlines(axes, borders=not case.grid.periodic)
    for field, levels, colour in ((case.land, [0.5], "0.1"), (case.orography, [5e3, 1.5e4, 3e4], "#6b4423")):
        if case.simulated and field is not None and np.ptp(field) > 0:
            _contour(axes, case, field, np.array(levels), colour, 0.8)
