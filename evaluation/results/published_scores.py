"""Scores that others published at 5.625 degrees, as points to set beside our own: never mixed with computed ones.

Sources: Rasp et al. (2020), WeatherBench, JAMES 12, e2020MS002203, doi:10.1029/2020MS002203; Rasp and Thuerey (2021),
JAMES 13, e2020MS002405, doi:10.1029/2020MS002405. The numbers are those of WeatherBench's list of results, which names
for Rasp and Thuerey the better of two networks at each lead time: they are kept apart here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.evaluation.results.lookup import lead_hours

CONDITIONS = (
    "RMSE over the globe, weighted by cos(latitude), against ERA5 interpolated bilinearly to 32 x 64 points; forecasts "
    "for 2017 and 2018"
)
"""Of all published scores here."""
_YEARS = {2017, 2018}
_WEATHERBENCH = "Rasp et al. (2020), doi:10.1029/2020MS002203"
_RESNET = "Rasp and Thuerey (2021), doi:10.1029/2020MS002405"
_TABLE: tuple[tuple[str, str, int, float, float], ...] = (
    # name, source, lead time in hours, RMSE of z500 in m2 s-2, of t850 in K
    ("operational IFS", _WEATHERBENCH, 72, 154, 1.36),
    ("operational IFS", _WEATHERBENCH, 120, 334, 2.03),
    ("IFS T63", _WEATHERBENCH, 72, 268, 1.85),
    ("IFS T63", _WEATHERBENCH, 120, 463, 2.52),
    ("IFS T42", _WEATHERBENCH, 72, 489, 3.09),
    ("IFS T42", _WEATHERBENCH, 120, 743, 3.83),
    ("ResNet, direct", _RESNET, 72, 268, 1.65),
    ("ResNet, continuous", _RESNET, 120, 499, 2.41),
    ("CNN, direct", _WEATHERBENCH, 72, 626, 2.87),
    ("CNN, direct", _WEATHERBENCH, 120, 757, 3.37),
    ("linear regression, direct", _WEATHERBENCH, 72, 693, 3.19),
    ("linear regression, direct", _WEATHERBENCH, 120, 783, 3.44),
    ("weekly climatology", _WEATHERBENCH, 72, 816, 3.50),  # one number for all lead times
    ("weekly climatology", _WEATHERBENCH, 120, 816, 3.50),
    ("persistence", _WEATHERBENCH, 72, 936, 4.23),
    ("persistence", _WEATHERBENCH, 120, 1033, 4.56),
)


@dataclass(frozen=True)
class PublishedScore:
    """One published number."""

    name: str
    """Of the forecast."""
    channel: str
    """Short name."""
    lead_hours: int
    rmse: float
    """In units of the channel."""
    source: str
    """Where it was published."""
    note: str
    """What to know before it is held against computed scores; tells where the test years differ."""


def published_for(scores: xr.Dataset) -> list[PublishedScore]:
    """Published scores that may stand beside these, as points apart; the scores are not changed.

    None unless the scores are of the real atmosphere and of the whole globe on the 32 x 64 points of 5.625 degrees.
    Only channels that were scored, and lead times up to the longest.

    Args:
        scores: as `read_scores` gives them, of any format of ours.
    """
    grid = Grid(scores["latitude"].values, scores["longitude"].values)
    if scores.attrs.get("simulated") != "false" or grid != regular_grid((32, 64)) or "global" not in scores["region"]:
        return []
    channels, longest, note = set(map(str, scores["channel"].values)), max(lead_hours(scores)), _note(scores)
    return [
        PublishedScore(name, channel, hours, float(rmse), source, note)
        for name, source, hours, *both in _TABLE
        for channel, rmse in zip(("z500", "t850"), both, strict=True)
        if channel in channels and hours <= longest
    ]


def _note(scores: xr.Dataset) -> str:
    years = sorted(set(scores["init_time"].values.astype("datetime64[Y]").astype(np.int64) + 1970))
    if set(years) == _YEARS:
        return f"{CONDITIONS}."
    own = str(years[0]) if len(years) == 1 else f"{years[0]} to {years[-1]}"
    return f"{CONDITIONS}. The scores beside them are of other test years: {own}."
