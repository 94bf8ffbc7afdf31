"""Scores of every case as variables of a scores dataset, in single precision."""

from __future__ import annotations

import numpy as np

from weatherfm.evaluation.scoring.metrics_from_sums import Variables
from weatherfm.evaluation.scoring.sums_and_series import ScoredCases

_DIMS = ("init_time", "lead_time", "region", "channel")


def case_scores(cases: ScoredCases, metric: str) -> np.ndarray | None:
    """[case, lead, region, channel] float64 scores of single cases; None where there are none.

    Args:
        cases: of one forecast.
        metric: `rmse` or `mse`, whose cases have a squared error, or `crps_fair`.
    """
    if metric in ("rmse", "mse"):
        return cases.series["squared_error"]
    if "crps_skill" not in cases.series:
        return None
    return cases.series["crps_skill"] - 0.5 * cases.series["crps_spread"]


def series_variables(cases: ScoredCases) -> Variables:
    """`mse_by_case` and, of an ensemble or a distribution, `crps_fair_by_case`: their means over `init_time` are the
    scores of all cases."""
    series = {metric: case_scores(cases, metric) for metric in ("mse", "crps_fair")}
    return {
        f"{metric}_by_case": (_DIMS, values.astype(np.float32))
        for metric, values in series.items()
        if values is not None
    }
