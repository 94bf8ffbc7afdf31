"""Names in scores and reports of what is scored beside forecasts: baselines, and means of ensembles."""

from __future__ import annotations

BASELINES: tuple[str, ...] = ("persistence", "climatology")
"""Forecasts that every model is held against."""
DAMPED = "damped_persistence"
"""Persistence that fades to climatology (`weatherfm.evaluation.baselines.damped_persistence`)."""
RIDGE = "ridge_regression"
"""Regression on the state of the day, with Gaussian errors (`weatherfm.evaluation.baselines.ridge_regression`)."""
PROBABILISTIC = "probabilistic_climatology"
"""An ensemble of training days (`weatherfm.evaluation.baselines.probabilistic_climatology`)."""
ALL_BASELINES: tuple[str, ...] = (*BASELINES, DAMPED, RIDGE, PROBABILISTIC)
"""In the order of scores and reports."""


def name_of_mean(ensemble: str) -> str:
    """What the mean of an ensemble forecast is called where it is scored as a single forecast."""
    return f"{ensemble}_mean"
