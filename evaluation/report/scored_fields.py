"""That fields of a forecast are those that were scored: others' forecasts say nothing of themselves, but their errors
do."""

from __future__ import annotations

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.errors import InputError
from weatherfm.evaluation.figures.maps.case import load_case
from weatherfm.evaluation.figures.maps.panels import when
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.report.case_studies import scored_name
from weatherfm.evaluation.results.by_case import case_rmse
from weatherfm.evaluation.results.lookup import WHOLE, lead_hours, main_region, provenance_of
from weatherfm.evaluation.scoring.shared_points import POINTS

_CLOSE = 1e-3
"""Relative: scores of cases are in single precision."""


def require_scored_fields(file: ForecastFile, store: Store, scores: xr.Dataset, channel: str) -> None:
    """Compare the errors of the first, the middle and the last case with those in the scores, where they hold cases
    and say of which points.

    Args:
        file: a forecast that was scored.
        store: the truth, on the scores' rows and points.
        scores: of `evaluate`.
        channel: short name.

    Raises:
        InputError: another error than was scored.
    """
    lead, times = lead_hours(scores)[0], scores["init_time"].values.astype("datetime64[s]")
    series = case_rmse(scores, scored_name(file, scores), channel, lead)
    points_unknown = "points" in (provenance_of(scores).get("left_out") or {}) and POINTS not in scores.coords
    if series is None or points_unknown or main_region(scores) not in WHOLE:
        return
    for at in sorted({0, len(times) // 2, len(times) - 1}):
        found = load_case(file, store, channel, lead, times[at]).rmse
        if not np.isclose(found, series[at], rtol=_CLOSE, atol=0):
            raise InputError(
                f"{file.path} is not what was scored: from {when(times[at])} the RMSE of {channel} at {lead} h is "
                f"{found:.4g}, and {series[at]:.4g} in the scores; evaluate again"
            )
