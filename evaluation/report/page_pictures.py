"""The pictures of a report, ready to stand in a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.evaluation.figures.cases import Case, load_case, pick_init_times
from weatherfm.evaluation.figures.maps import PANELS, Levels, panel_figure, title_of
from weatherfm.evaluation.figures.pictures import data_uri, png_bytes, svg_bytes
from weatherfm.evaluation.figures.training_curve import learning_rate_figure, loss_figure, read_training_curve
from weatherfm.evaluation.forecasts.file import ForecastFile

_MAP_CHANNELS = 4


@dataclass(frozen=True)
class Picture:
    """An image inside the page."""

    address: str
    """Data URI."""
    text: str
    """What it shows, for those who do not see it."""
    width: int
    height: int
    """Pixels on the page."""


@dataclass(frozen=True)
class Plot:
    """A figure yet to be drawn."""

    figure: Callable[[], Figure]
    text: str
    """What it shows."""


@dataclass(frozen=True)
class PlotGroup:
    """Curves that belong together."""

    title: str
    note: str
    plots: tuple[Plot, ...]
    folded: bool = False
    """Shown on request only."""


@dataclass(frozen=True)
class PictureGroup:
    """A group that is drawn."""

    title: str
    note: str
    pictures: tuple[Picture, ...]
    folded: bool


@dataclass(frozen=True)
class MapGroup:
    """Forecast, truth and error of one case."""

    title: str
    note: str
    pictures: tuple[Picture, ...]


def draw(groups: Sequence[PlotGroup], what: str) -> list[PictureGroup]:
    """Draw all figures of all groups that have any; `what` names the progress bar."""
    with tqdm(total=sum(len(group.plots) for group in groups), desc=what, unit="figure", disable=None) as bar:
        drawn = []
        for group in groups:
            pictures = []
            for plot in group.plots:
                pictures.append(svg_picture(plot.figure(), plot.text))
                bar.update()
            if pictures:
                drawn.append(PictureGroup(group.title, group.note, tuple(pictures), group.folded))
    return drawn


def training_pictures(metrics_jsonl: str | Path) -> list[Picture]:
    """Loss and learning rate; none for a log without a line."""
    curve = read_training_curve(metrics_jsonl)
    if not curve:
        return []
    pictures = [svg_picture(loss_figure(curve), "Training and validation loss by step")]
    if np.isfinite(curve.learning_rate).any():
        pictures.append(svg_picture(learning_rate_figure(curve), "Learning rate by step"))
    return pictures


def map_groups(
    file: ForecastFile, store: Store, channels: Sequence[str], lead_times: Sequence[int], init_times: np.ndarray
) -> tuple[list[MapGroup], list[MapGroup], np.datetime64]:
    """Maps of the case of median error, and of the best and the worst.

    Args:
        file: the forecast.
        store: the truth.
        channels: short names; the first four are shown, the first decides which cases are ordinary and extreme.
        lead_times: hours; the first and the last are shown.
        init_times: datetime64 [n], those scored.

    Returns:
        (maps of the median case, of the extremes, the median case's initial time); no extremes of fewer than three.
    """
    leads = list(dict.fromkeys((lead_times[0], lead_times[-1])))
    picked = pick_init_times(file, store, channels[0], leads[0], init_times)
    wanted = [(channel, lead, "median") for channel in channels[:_MAP_CHANNELS] for lead in leads]
    if len(init_times) > 2:
        wanted += [(channels[0], leads[0], which) for which in ("best", "worst")]
    groups = []
    for channel, lead, which in tqdm(wanted, desc="maps", unit="case", disable=None):
        case = load_case(file, store, channel, lead, picked[which])
        note = "" if which == "median" else f"{which.capitalize()} case of {channel} at {lead} h"
        groups.append((which, map_group(case, note)))
    chosen = [group for which, group in groups if which == "median"]
    return chosen, [group for which, group in groups if which != "median"], picked["median"]


def map_group(case: Case, note: str = "") -> MapGroup:
    """The three maps of a case; `note` stands before their title."""
    return MapGroup(title_of(case), note, map_pictures(case))


def map_pictures(case: Case, levels: Levels | None = None, dpi: int = 150) -> tuple[Picture, ...]:
    """Forecast, truth and error; `levels` as of `panel_figure`."""
    return tuple(_png(panel_figure(case, panel, levels), f"Map of {panel}, {title_of(case)}", dpi) for panel in PANELS)


def _png(figure: Figure, text: str, dpi: int) -> Picture:
    return Picture(data_uri(png_bytes(figure, dpi=dpi), "png"), text, *_size(figure))


def svg_picture(figure: Figure, text: str) -> Picture:
    """A curve or strip for the page; `text` says what it shows."""
    return Picture(data_uri(svg_bytes(figure), "svg+xml"), text, *_size(figure))


def _size(figure: Figure) -> tuple[int, int]:
    width, height = figure.get_size_inches() * 96
    return round(width), round(height)
