"""The maps of a page: of the ordinary case, the extremes, chosen cases, members, and of mean errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.evaluation.figures.maps.case import require_init_time
from weatherfm.evaluation.figures.maps.film import animation, load_cases
from weatherfm.evaluation.figures.maps.map_groups import map_group, shown_cases
from weatherfm.evaluation.figures.maps.mean_error import mean_error_maps
from weatherfm.evaluation.figures.maps.panels import levels_by_channel
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.report.case_studies import (
    case_study,
    cases_on_maps,
    members_case,
    members_of_one,
    scored_name,
)
from weatherfm.evaluation.results.by_case import case_rmse
from weatherfm.evaluation.results.key_figures import headline_lead, key_leads
from weatherfm.evaluation.results.lookup import lead_hours


def map_sections(
    file: ForecastFile, store: Store, scores: xr.Dataset, channels: Sequence[str], cases: Sequence[np.datetime64]
) -> dict[str, Any]:
    """What the page's template shows of maps; all maps of a channel's fields, and all of its errors, share one scale.

    Raises:
        InputError: a case that the forecast has not, or what forecast and store do not share.
    """
    chosen = [require_init_time(file, time) for time in dict.fromkeys(cases)]
    leads = (headline_lead(scores), key_leads(scores)[-1])
    init_times = scores["init_time"].values.astype("datetime64[s]")
    errors = case_rmse(scores, scored_name(file, scores), channels[0], leads[0])
    shown, median = shown_cases(file, store, channels, leads, init_times, errors)
    first = chosen[0] if chosen else median
    film = load_cases(file, store, channels[0], first, lead_hours(scores))
    studied = [case for time in chosen for case in cases_on_maps(file, store, scores, channels, time)]
    members = members_case(file, store, scores, channels[0], first)
    levels = levels_by_channel([*(one.case for one in shown), *film, *studied, *members])
    drawn = [(one.which, map_group(one.case, one.note, levels[one.case.channel])) for one in shown]
    return {
        "maps": [group for which, group in drawn if which == "median"],
        "extremes": [group for which, group in drawn if which != "median"],
        "mean_maps": mean_error_maps(file, store, channels, leads, init_times),
        "animation": None if chosen else animation(film, levels[channels[0]]),
        "cases": [case_study(file, store, scores, channels, time, time == first, levels) for time in chosen],
        "members": members_of_one(file, store, scores, channels[0], first, levels[channels[0]]),
    }
