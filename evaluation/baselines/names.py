"""Names of the baselines in scores and reports."""

from __future__ import annotations

BASELINES: tuple[str, ...] = ("persistence", "climatology")
"""Forecasts that every model is held against."""
DAMPED = "damped_persistence"
"""Persistence that fades to climatology (`weatherfm.evaluation.baselines.damped_persistence`)."""
PROBABILISTIC = "probabilistic_climatology"
"""An ensemble of training days (`weatherfm.evaluation.baselines.probabilistic_climatology`)."""
ALL_BASELINES: tuple[str, ...] = (*BASELINES, DAMPED, PROBABILISTIC)
"""In the order of scores and reports."""
