"""Maps of a forecast, the truth and the error, with coastlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cartopy.crs as ccrs
import numpy as np
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from tqdm import tqdm

from weatherfm.atomic import write_atomically
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.errors import InputError
from weatherfm.evaluation.figures.maps.case import Case, load_case, pick_init_times
from weatherfm.evaluation.figures.maps.coastlines import draw_coastlines
from weatherfm.evaluation.figures.maps.projection import aspect_of, closed_field, frame, projection_of
from weatherfm.evaluation.figures.maps.units_and_colours import (
    ERROR_COLOURS,
    display_of,
    error_levels,
    field_levels,
    quantity_in_words,
)
from weatherfm.evaluation.figures.pictures import GREY, png_bytes, style
from weatherfm.evaluation.forecasts.reader import ForecastFile

Panel = Literal["forecast", "truth", "error"]
PANELS: tuple[Panel, ...] = ("forecast", "truth", "error")
SIMULATED = "SIMULATED planet: not weather on Earth, no coastlines"


@dataclass(frozen=True, eq=False)
class Levels:
    """Contour levels in the units shown."""

    field: np.ndarray
    error: np.ndarray


def levels_of(cases: Sequence[Case]) -> Levels:
    """Levels that suit several cases of one channel: pictures that share them can be compared."""
    display = display_of(cases[0].channel)
    fields = [display.field(field) for case in cases for field in (case.forecast, case.truth)]
    errors = [display.error(case.forecast - case.truth) for case in cases]
    return Levels(field_levels(np.stack(fields), display.signed), error_levels(np.stack(errors)))


def map_figure(case: Case, levels: Levels | None = None) -> Figure:
    """Forecast, truth and error side by side; forecast and truth share colours and one colour bar.

    `levels` are those of `levels_of`; without them they suit this case.
    """
    levels = levels or levels_of([case])
    with style():
        sheet = _Sheet(case, columns=3, above=0.42, below=0.28 if case.simulated else 0.0)
        drawn = [sheet.draw(column, panel, levels) for column, panel in enumerate(PANELS)]
        sheet.colour_bar(drawn[0], "forecast", 0, 1)
        sheet.colour_bar(drawn[2], "error", 2, 2)
        figure = sheet.figure
        figure.text(
            0.1 / sheet.width, 1 - 0.12 / sheet.height, title_of(case), va="top", fontsize=12, fontweight="bold"
        )
        if case.simulated:
            figure.text(0.1 / sheet.width, 0.08 / sheet.height, SIMULATED, fontsize=9, color="#b3261e")
    return figure


def panel_figure(case: Case, panel: Panel, levels: Levels | None = None) -> Figure:
    """One of the three maps alone, for pages where they stand side by side or below each other."""
    with style():
        sheet = _Sheet(case, columns=1, map_width=3.7)
        sheet.colour_bar(sheet.draw(0, panel, levels or levels_of([case])), panel, 0, 0)
    return sheet.figure


def title_of(case: Case) -> str:
    """Channel, initial and valid time and lead time in words."""
    return f"{case.channel}: {case.lead_time} h forecast from {when(case.init_time)}, valid {when(case.valid_time)}"


def when(time: np.datetime64) -> str:
    """`2009-03-12 12 UTC`; with minutes where there are any."""
    text = str(time.astype("datetime64[m]")).replace("T", " ")
    return f"{text.removesuffix(':00')} UTC"


def write_maps(
    folder: str | Path,
    forecast: str | Path | ForecastFile,
    store: Store,
    channels: Sequence[str],
    lead_times: Sequence[int] | None = None,
    init_time: np.datetime64 | None = None,
) -> list[Path]:
    """Write one PNG a channel and lead time, named `z500_024h_2009-03-12T12.png`.

    Args:
        folder: made when it is not there.
        forecast: path of the forecast, or the open file.
        store: the truth.
        channels: short names.
        lead_times: hours; without it, all of the forecast.
        init_time: which forecast; without it, that of median error in the first channel at the first lead time.

    Returns:
        The files, in order.

    Raises:
        InputError: a channel, lead time or initial time that forecast and store do not share, or no channel.
    """
    file = forecast if isinstance(forecast, ForecastFile) else ForecastFile(forecast)
    lead_times = list(file.lead_times if lead_times is None else lead_times)
    if not channels or not lead_times:
        raise InputError(f"maps need a channel and a lead time; the forecast has {', '.join(file.channels)}")
    file.require(channels, lead_times, store.grid)
    init_time = init_time or pick_init_times(file, store, channels[0], lead_times[0])["median"]
    written = []
    wanted = [(channel, lead_time) for channel in channels for lead_time in lead_times]
    for channel, lead_time in tqdm(wanted, desc="maps", unit="map", disable=None):
        case = load_case(file, store, channel, lead_time, init_time)
        path = Path(folder) / f"{channel}_{lead_time:03d}h_{str(case.init_time)[:13]}.png"
        write_atomically(path, png_bytes(map_figure(case)))
        written.append(path)
    return written


class _Sheet:
    """A figure laid out in inches: a row of maps of the same size, titles above, colour bars below."""

    def __init__(
        self, case: Case, columns: int, map_width: float = 4.5, above: float = 0.0, below: float = 0.0
    ) -> None:
        self.case = case
        self.left = 0.1 if case.grid.periodic else 0.5  # room for labels of latitude
        aspect = aspect_of(case.grid)
        self.map_width = min(map_width, 5.2 * aspect)  # tall areas become narrow
        self.map_height = self.map_width / aspect
        self.bottom = below + (0.57 if case.grid.periodic else 0.75)
        self.step = self.map_width + self.left + 0.1
        self.width = columns * self.step
        self.height = self.bottom + self.map_height + 0.34 + above
        self.figure = Figure(figsize=(self.width, self.height))
        self.bar_bottom = below + 0.41

    def draw(self, column: int, panel: Panel, levels: Levels) -> QuadContourSet:
        """Draw one map into its column."""
        box = (column * self.step + self.left, self.bottom, self.map_width, self.map_height)
        axes = self.figure.add_axes(self._share(*box), projection=projection_of(self.case.grid))
        return _draw(axes, self.case, panel, levels)

    def colour_bar(self, drawn: QuadContourSet, panel: Panel, first: int, last: int) -> None:
        """Draw a colour bar centred below the columns first .. last."""
        span = (last - first) * self.step + self.map_width
        length = min(0.94 * span, 5.2)
        start = first * self.step + self.left + (span - length) / 2
        axes = self.figure.add_axes(self._share(start, self.bar_bottom, length, 0.11))
        _colour_bar(self.figure, drawn, axes, self.case.channel, panel)

    def _share(self, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        return x / self.width, y / self.height, width / self.width, height / self.height


_NOTHING = "#c9cfd6"
"""Where a channel never has a value: an error near zero is white."""


def _draw(axes: GeoAxes, case: Case, panel: Panel, chosen: Levels) -> QuadContourSet:
    display = display_of(case.channel)
    if panel == "error":
        field, colours, levels = display.error(case.forecast - case.truth), ERROR_COLOURS, chosen.error
    else:
        field, colours, levels = display.field(getattr(case, panel)), display.colours, chosen.field
    frame(axes, case.grid)
    longitude, latitude, closed = closed_field(case.grid, field)
    if np.isnan(closed).any():
        axes.set_facecolor(_NOTHING)
    drawn = axes.contourf(
        *np.meshgrid(longitude, latitude),
        np.ma.masked_invalid(closed),
        levels=levels,
        cmap=colours,
        extend="both",
        transform=ccrs.PlateCarree(),
        transform_first=True,
    )
    if display.contours and panel != "error":
        axes.contour(
            *np.meshgrid(longitude, latitude),
            np.ma.masked_invalid(closed),
            levels=levels,
            colors="black",
            linewidths=0.45,
            alpha=0.55,
            transform=ccrs.PlateCarree(),
            transform_first=True,
        )
    _surroundings(axes, case)
    axes.set_title(_panel_title(case, panel), pad=4)
    return drawn


def _surroundings(axes: GeoAxes, case: Case) -> None:
    """Coastlines on Earth; on a simulated planet its own land and mountains."""
    if not case.simulated:
        draw_coastlines(axes, borders=not case.grid.periodic)
    for field, levels, colour in (
        (case.land, [0.5], "0.1"),
        (case.orography, [5e3, 1.5e4, 3e4], "#6b4423"),
    ):
        if case.simulated and field is not None and np.ptp(field) > 0:
            longitude, latitude, closed = closed_field(case.grid, field)
            axes.contour(
                *np.meshgrid(longitude, latitude),
                closed,
                levels=levels,
                colors=colour,
                linewidths=0.8,
                transform=ccrs.PlateCarree(),
                transform_first=True,
            )


def _panel_title(case: Case, panel: Panel) -> str:
    if panel == "forecast":
        return f"Forecast ({case.forecast_name})" if case.members is None else f"Mean of {case.members} members"
    if panel == "truth":
        return "Truth" + (" (simulated)" if case.simulated else "")
    display = display_of(case.channel)
    return f"Forecast − truth (RMSE {abs(display.scale) * case.rmse:.3g} {display.error_units})"


def _colour_bar(figure: Figure, drawn: QuadContourSet, axes: Axes, channel: str, panel: Panel) -> None:
    bar = figure.colorbar(drawn, cax=axes, orientation="horizontal", extendfrac=0.03)
    display = display_of(channel)
    units = display.error_units if panel == "error" else display.units
    what = "error of " if panel == "error" else ""
    label = f"{what}{quantity_in_words(channel)} [{units}]"
    bar.set_label(label[0].upper() + label[1:], fontsize=min(9, 9 * 55 / len(label)), labelpad=1)
    bar.ax.tick_params(labelsize=8.5, length=2, pad=2)
    bar.outline.set(edgecolor=GREY, linewidth=0.6)
    levels = np.asarray(drawn.levels)
    ticks = _error_ticks(levels) if panel == "error" else levels[:: 1 if len(levels) <= 9 else 2]
    bar.set_ticks(ticks.tolist())


def _error_ticks(levels: np.ndarray) -> np.ndarray:
    """Every level, or every other one outwards from the middle, both signs alike."""
    positive = levels[levels > 0]
    kept = positive if len(positive) <= 4 else positive[1::2]
    return np.concatenate([-kept[::-1], kept])
