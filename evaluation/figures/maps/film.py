"""Maps of one forecast by lead time, as frames that share their colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.evaluation.figures.maps.case import Case, load_case, spread_evenly
from weatherfm.evaluation.figures.maps.map_groups import map_pictures
from weatherfm.evaluation.figures.maps.panels import Levels, levels_of, when
from weatherfm.evaluation.figures.maps.units_and_colours import quantity_in_words
from weatherfm.evaluation.figures.pictures import Picture
from weatherfm.evaluation.forecasts.reader import ForecastFile

_MOST_FRAMES = 12
_DPI = 110
"""Coarser than single maps: a page holds many frames."""


@dataclass(frozen=True)
class Frame:
    """One lead time."""

    label: str
    """`24 h, valid 2009-03-13 12 UTC`."""
    pictures: tuple[Picture, ...]
    """Forecast, truth and error."""


@dataclass(frozen=True)
class Animation:
    """Frames in the order of their lead times."""

    title: str
    frames: tuple[Frame, ...]


def load_cases(
    file: ForecastFile, store: Store, channel: str, init_time: np.datetime64, lead_times: Sequence[int]
) -> list[Case]:
    """The fields of one forecast at several lead times (hours), at most twelve of them, spread evenly.

    Raises:
        InputError: an initial or lead time, a channel or a grid that forecast and store do not share.
    """
    shown = frame_leads(lead_times)
    return [load_case(file, store, channel, lead, init_time) for lead in shown]


def frame_leads(lead_times: Sequence[int]) -> list[int]:
    """At most twelve of the lead times, spread evenly, the first and the last among them."""
    chosen: list[int] = spread_evenly(np.asarray(lead_times), _MOST_FRAMES).tolist()
    return chosen


def animation(cases: Sequence[Case], levels: Levels | None = None) -> Animation | None:
    """The frames for the page; None of fewer than two cases. Without `levels`, those that suit all frames."""
    if len(cases) < 2:
        return None
    levels = levels or levels_of(cases)
    frames = []
    for case in tqdm(cases, desc="frames", unit="frame", disable=None):
        label = f"{case.lead_time} h, valid {when(case.valid_time)}"
        frames.append(Frame(label, map_pictures(case, levels, _DPI)))
    words = quantity_in_words(cases[0].channel)
    title = f"{cases[0].channel}: {words}, forecast from {when(cases[0].init_time)} by lead time"
    return Animation(title, tuple(frames))
