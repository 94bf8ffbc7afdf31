"""The pictures of a report, ready to stand in a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from tqdm import tqdm

from weatherfm.data_pipeline.store import Store
from weatherfm.evaluation.cases import Case, load_case, pick_init_times
from weatherfm.evaluation.curves import acc_figure, rmse_figure
from weatherfm.evaluation.display import name_in_words
from weatherfm.evaluation.forecast_file import ForecastFile
from weatherfm.evaluation.maps import PANELS, panel_figure, title_of
from weatherfm.evaluation.pictures import data_uri, png_bytes, svg_bytes
from weatherfm.evaluation.training_curve import learning_rate_figure, loss_figure, read_training_curve

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
class MapGroup:
    """Forecast, truth and error of one case."""

    title: str
    note: str
    pictures: tuple[Picture, ...]


def curve_pictures(scores: xr.Dataset, channels: Sequence[str]) -> dict[str, list[Picture]]:
    """Heading -> one curve a channel; channels without an anomaly correlation have no curve of it."""
    rmse, acc = [], []
    for channel in tqdm(channels, desc="curves", unit="channel", disable=None):
        rmse.append(svg_picture(rmse_figure(scores, channel), f"RMSE of {name_in_words(channel)} against lead time"))
        if np.isfinite(scores["acc"].sel(channel=channel)).any():
            text = f"Anomaly correlation of {name_in_words(channel)} against lead time"
            acc.append(svg_picture(acc_figure(scores, channel), text))
    return {"RMSE (lower is better)": rmse, "Anomaly correlation (higher is better)": acc}


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
    file: ForecastFile,
    store: Store,
    channels: Sequence[str],
    lead_times: Sequence[int],
    init_time: np.datetime64 | None = None,
) -> tuple[list[MapGroup], list[MapGroup]]:
    """Maps of the chosen case, and of the best and the worst.

    Args:
        file: the forecast.
        store: the truth.
        channels: short names; the first four are shown, the first decides which cases are ordinary and extreme.
        lead_times: hours; the first and the last are shown.
        init_time: of the chosen case; without it, that of median error.

    Returns:
        (chosen, extremes); no extremes where the initial time is given or there are fewer than three.
    """
    leads = list(dict.fromkeys((lead_times[0], lead_times[-1])))
    picked = pick_init_times(file, store, channels[0], leads[0]) if init_time is None else {"median": init_time}
    wanted = [(channel, lead, "median") for channel in channels[:_MAP_CHANNELS] for lead in leads]
    if init_time is None and len(file.init_times) > 2:
        wanted += [(channels[0], leads[0], which) for which in ("best", "worst")]
    groups = []
    for channel, lead, which in tqdm(wanted, desc="maps", unit="case", disable=None):
        case = load_case(file, store, channel, lead, picked[which])
        note = "" if which == "median" else f"{which.capitalize()} case of {channel} at {lead} h"
        groups.append((which, _map_group(case, note)))
    chosen = [group for which, group in groups if which == "median"]
    return chosen, [group for which, group in groups if which != "median"]


def _map_group(case: Case, note: str) -> MapGroup:
    pictures = tuple(_png(panel_figure(case, panel), f"Map of {panel}, {title_of(case)}") for panel in PANELS)
    return MapGroup(title_of(case), note, pictures)


def _png(figure: Figure, text: str) -> Picture:
    return Picture(data_uri(png_bytes(figure, dpi=180), "png"), text, *_size(figure))


def svg_picture(figure: Figure, text: str) -> Picture:
    """A curve or strip for the page; `text` says what it shows."""
    return Picture(data_uri(svg_bytes(figure), "svg+xml"), text, *_size(figure))


def _size(figure: Figure) -> tuple[int, int]:
    width, height = figure.get_size_inches() * 96
    return round(width), round(height)
