"""Maps of a forecast, the truth and the error, with coastlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from tqdm import tqdm

from weatherfm.atomic import write_atomically
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.errors import InputError
from weatherfm.evaluation.figures.maps.case import Case, load_case, pick_init_times
from weatherfm.evaluation.figures.maps.sheet import Look, Sheet
from weatherfm.evaluation.figures.maps.units_and_colours import (
    ERROR_COLOURS,
    display_of,
    error_levels,
    field_levels,
    quantity_in_words,
)
from weatherfm.evaluation.figures.pictures import png_bytes, style
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


def levels_by_channel(cases: Sequence[Case]) -> dict[str, Levels]:
    """Channel -> levels that suit all its cases: so that a map shown twice has the same colours."""
    names = dict.fromkeys(case.channel for case in cases)
    return {name: levels_of([case for case in cases if case.channel == name]) for name in names}


def map_figure(case: Case, levels: Levels | None = None) -> Figure:
    """Forecast, truth and error side by side; forecast and truth share colours and one colour bar.

    `levels` are those of `levels_of`; without them they suit this case.
    """
    levels = levels or levels_of([case])
    with style():
        sheet = Sheet(case, columns=3, above=0.42, below=0.28 if case.simulated else 0.0)
        drawn = [_draw(sheet, column, panel, levels) for column, panel in enumerate(PANELS)]
        _colour_bar(sheet, drawn[0], "forecast", 0, 1)
        _colour_bar(sheet, drawn[2], "error", 2, 2)
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
        sheet = Sheet(case, columns=1, map_width=3.7)
        _colour_bar(sheet, _draw(sheet, 0, panel, levels or levels_of([case])), panel, 0, 0)
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


def _draw(sheet: Sheet, column: int, panel: Panel, chosen: Levels) -> QuadContourSet:
    """Draw one map into its column."""
    case = sheet.case
    display = display_of(case.channel)
    title = _panel_title(case, panel)
    if panel == "error":
        look = Look(chosen.error, ERROR_COLOURS)
        return sheet.draw(column, display.error(case.forecast - case.truth), look, title)
    look = Look(chosen.field, display.colours, display.contours)
    return sheet.draw(column, display.field(getattr(case, panel)), look, title)


def _panel_title(case: Case, panel: Panel) -> str:
    if panel == "forecast":
        return f"Forecast ({case.forecast_name})" if case.members is None else f"Mean of {case.members} members"
    if panel == "truth":
        return "Truth" + (" (simulated)" if case.simulated else "")
    display = display_of(case.channel)
    return f"Forecast − truth (RMSE {abs(display.scale) * case.rmse:.3g} {display.error_units})"


def _colour_bar(sheet: Sheet, drawn: QuadContourSet, panel: Panel, first: int, last: int) -> None:
    """Draw a colour bar centred below the columns first .. last."""
    display, words = display_of(sheet.case.channel), quantity_in_words(sheet.case.channel)
    levels = np.asarray(drawn.levels)
    if panel == "error":
        sheet.colour_bar(drawn, f"error of {words} [{display.error_units}]", first, last, _error_ticks(levels))
    else:
        sheet.colour_bar(drawn, f"{words} [{display.units}]", first, last, levels[:: 1 if len(levels) <= 9 else 2])


def _error_ticks(levels: np.ndarray) -> np.ndarray:
    """Every level, or every other one outwards from the middle, both signs alike."""
    positive = levels[levels > 0]
    kept = positive if len(positive) <= 4 else positive[1::2]
    return np.concatenate([-kept[::-1], kept])
