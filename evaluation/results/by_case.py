"""Scores of single cases, where the scores hold them."""

from __future__ import annotations

import numpy as np
import xarray as xr

from weatherfm.evaluation.results.lookup import lead_hours, main_region


def case_rmse(
    scores: xr.Dataset, forecast: str, channel: str, lead_time: int, region: str | None = None
) -> np.ndarray | None:
    """[init_time] float64 RMSE of each case over a region's area, in the channel's units.

    Args:
        scores: as `evaluate` gives them.
        forecast: its name in the scores.
        channel: short name.
        lead_time: hours.
        region: without it, the main one.

    Returns:
        None where the scores hold no cases (`evaluation.series=false`, or files of before), or not all of this
        forecast.
    """
    if "mse_by_case" not in scores:
        return None
    place = {"forecast": forecast, "channel": channel, "region": region or main_region(scores)}
    of_cases = scores["mse_by_case"].sel(place).isel(lead_time=lead_hours(scores).index(lead_time))
    squares = of_cases.transpose("init_time").values.astype(np.float64)
    return np.sqrt(squares) if np.isfinite(squares).all() else None
