"""Maps of a forecast ready to stand in a page: of the ordinary case, and of the extremes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.evaluation.figures.maps.case import Case, by_error, load_case, pick_init_times
from weatherfm.evaluation.figures.maps.panels import PANELS, Levels, panel_figure, title_of
from weatherfm.evaluation.figures.pictures import Picture, png_picture
from weatherfm.evaluation.forecasts.reader import ForecastFile

MAP_CHANNELS = 4
"""Of a page, at most."""


@dataclass(frozen=True)
class MapGroup:
    """Forecast, truth and error of one case."""

    title: str
    note: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, eq=False)
class ShownCase:
    """A case of the page."""

    which: str
    """`median`, `best` or `worst`."""
    note: str
    """What stands before its title."""
    case: Case


def shown_cases(
    file: ForecastFile,
    store: Store,
    channels: Sequence[str],
    lead_times: Sequence[int],
    init_times: np.ndarray,
    errors: np.ndarray | None = None,
) -> tuple[list[ShownCase], np.datetime64]:
    """The case of median error, and the best and the worst.

    Args:
        file: the forecast.
        store: the truth.
        channels: short names; the first four are shown, the first decides which cases are ordinary and extreme.
        lead_times: hours; the first and the last are shown.
        init_times: datetime64 [n], those scored.
        errors: [n] of the first channel at the first lead time; without them, up to 120 cases are looked at.

    Returns:
        (cases, the median case's initial time); no extremes of fewer than three.
    """
    leads = list(dict.fromkeys((lead_times[0], lead_times[-1])))
    if errors is None:
        picked = pick_init_times(file, store, channels[0], leads[0], init_times)
    else:
        picked = by_error(errors, init_times)
    wanted = [(channel, lead, "median") for channel in channels[:MAP_CHANNELS] for lead in leads]
    if len(init_times) > 2:
        wanted += [(channels[0], leads[0], which) for which in ("best", "worst")]
    shown = []
    for channel, lead, which in tqdm(wanted, desc="cases of maps", unit="case", disable=None):
        note = "" if which == "median" else f"{which.capitalize()} case of {channel} at {lead} h"
        shown.append(ShownCase(which, note, load_case(file, store, channel, lead, picked[which])))
    return shown, picked["median"]


def map_group(case: Case, note: str = "", levels: Levels | None = None) -> MapGroup:
    """The three maps of a case; `note` stands before their title, `levels` are as of `panel_figure`."""
    return MapGroup(title_of(case), note, map_pictures(case, levels))


def map_pictures(case: Case, levels: Levels | None = None, dpi: int = 150) -> tuple[Picture, ...]:
    """Forecast, truth and error; `levels` as of `panel_figure`."""
    return tuple(
        png_picture(panel_figure(case, panel, levels), f"Map of {panel}, {title_of(case)}", dpi) for panel in PANELS
    )
