"""Tests of differences between forecasts of different score files, from the scores of every case that both hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from weatherfm.evaluation.significance.skill_intervals import compare_cases

_DIMS = ("region", "lead_time", "channel")
_TESTED = ("p_value", "skill_low", "skill_high")


def add_tests(merged: xr.Dataset, files: Sequence[Sequence[str]]) -> xr.Dataset:
    """With p-values and intervals of pairs that no file holds side by side, as of a single evaluation.

    Scores of cases are in single precision: p-values differ by that. Pairs one of which has no such scores (files of
    before, or `evaluation.series=false`) stay NaN.

    Args:
        merged: scores of several files, of the same cases.
        files: the forecasts of each file, by their names in `merged`.
    """
    kinds = dict(zip(merged["forecast"].values.tolist(), merged["kind"].values.tolist(), strict=True))
    pairs = [
        (model, other)
        for own in files
        for model in own
        for other in kinds
        if kinds[model] == "model" and other not in own
    ]
    for metric, series in (("rmse", "mse_by_case"), ("crps_fair", "crps_fair_by_case")):
        if series in merged and all(f"{metric}_{what}" in merged for what in _TESTED):
            merged = merged.assign(_with_pairs(merged, metric, series, pairs))
    return merged


def _with_pairs(
    merged: xr.Dataset, metric: str, series: str, pairs: Sequence[tuple[str, str]]
) -> dict[str, xr.DataArray]:
    cases = merged[series].transpose("forecast", "init_time", *_DIMS)
    found = {what: merged[f"{metric}_{what}"].transpose("forecast", "reference", *_DIMS).copy() for what in _TESTED}
    times = merged["init_time"].values
    for model, other in pairs:
        one, two = (cases.sel(forecast=name).values.astype(np.float64) for name in (model, other))
        told = compare_cases(one, two, times, metric == "rmse")
        for what, values in found.items():
            values.loc[{"forecast": model, "reference": other}] = getattr(told, what)
    return {f"{metric}_{what}": values for what, values in found.items()}
