"""Names of the baselines in scores and reports."""

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
