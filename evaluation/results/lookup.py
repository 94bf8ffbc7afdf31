"""What a dataset of scores is of: its record, lead times, forecasts and main region."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr

from weatherfm.evaluation.baselines.names import name_of_mean


def provenance_of(scores: xr.Dataset) -> dict[str, Any]:
    """The record that goes with scores."""
    return json.loads(scores.attrs["provenance"])


def lead_hours(scores: xr.Dataset) -> list[int]:
    """Lead times in hours."""
    return [int(hours) for hours in scores["lead_time"].values / np.timedelta64(1, "h")]


def overall(scores: xr.Dataset) -> xr.Dataset:
    """Scores of all cases, whatever the time of the year: without the dim `period`."""
    return scores.sel(period="all", drop=True) if "period" in scores.dims else scores


def models_of(scores: xr.Dataset) -> list[str]:
    """Forecasts that are no baseline; the first is the one the page is about."""
    return _of_kind(scores, "model")


def means_of(scores: xr.Dataset) -> dict[str, str]:
    """Means of ensembles that are scored as forecasts of their own -> the ensemble."""
    found = {}
    for name in _of_kind(scores, "mean"):
        own, _, file = name.partition(" (")  # in merged scores `model_mean (run)` is of `model (run)`
        alike = [model for model in ensembles_of(scores) if name_of_mean(model.partition(" (")[0]) == own]
        found[name] = min(alike, key=lambda model: model.partition(" (")[2] != file)
    return found


def baselines_of(scores: xr.Dataset) -> list[str]:
    """Baselines that have a forecast of their own; not those that are ensembles, whose mean is nearly climatology."""
    return [name for name in _of_kind(scores, "baseline") if _members(scores)[name] < 2]


def probabilistic_baselines_of(scores: xr.Dataset) -> list[str]:
    """Baselines that are ensembles or distributions: what a CRPS may be held against."""
    return [name for name in _of_kind(scores, "baseline") if _members(scores)[name] != 1]


def ensembles_of(scores: xr.Dataset) -> dict[str, int]:
    """Models that are ensembles, with their number of members."""
    members = _members(scores)
    return {name: members[name] for name in models_of(scores) if members[name] > 1}


def activity_ratios(scores: xr.Dataset) -> xr.DataArray:
    """How lively forecasts are over the truth: of an ensemble its members, whose mean is smooth for being one."""
    if "member_activity_ratio" not in scores:
        return scores["activity_ratio"]
    own = scores["member_activity_ratio"]
    return own.where(own.notnull(), scores["activity_ratio"])


def _members(scores: xr.Dataset) -> dict[str, int]:
    """1 of a single forecast, 0 of a distribution."""
    return dict(zip(map(str, scores["forecast"].values), map(int, scores["members"].values), strict=True))


def _of_kind(scores: xr.Dataset, kind: str) -> list[str]:
    pairs = zip(scores["forecast"].values, scores["kind"].values, strict=True)
    return [str(name) for name, own in pairs if own == kind]


WHOLE = ("global", "area")
"""Regions that are all of a grid."""


def main_region(scores: xr.Dataset) -> str:
    """The whole globe or area where scored, else the first region."""
    regions = [str(name) for name in scores["region"].values]
    return next((name for name in WHOLE if name in regions), regions[0])
