"""How sure is it that one forecast is better than another: p-value and interval of skill by one method (numpy, scipy).

Skill is 1 - metric of the model / metric of the reference. What is tested is the logarithm of the ratio of both means
over cases. Each case moves it, to first order, by

    i_n = model_n / mean(model) - reference_n / mean(reference)

(the delta method), so its standard error is that of the mean of i (`standard_error`). The p-value and the interval,
ratio +- t * standard error, come from this one number: **the interval excludes a skill of 0 exactly where p < 0.05**.

Legend: N case, S series (region, lead time and channel together).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from weatherfm.evaluation.significance.p_values import p_value_of, refuse_disorder, standard_error, waves_of

_TAIL = 0.025


@dataclass(frozen=True, eq=False)
class Significance:
    """Result of `compare_cases`, each of the shape of one case."""

    p_value: np.ndarray
    """Of equal scores."""
    skill_low: np.ndarray
    """Lower end of the 95 % interval of skill, as a share."""
    skill_high: np.ndarray
    """Upper end."""


def compare_cases(model: np.ndarray, reference: np.ndarray, init_times: np.ndarray, root: bool) -> Significance:
    """Test and interval of two forecasts' scores of the same cases.

    Args:
        model: [N, ...] score of every case, a mean over space of which lower is better: squared error, CRPS.
        reference: [N, ...].
        init_times: [N] datetime64, ascending.
        root: the metric is the root of the mean over cases (RMSE, from squared errors), not the mean (CRPS). The test
            is of equal means either way, which are equal when their roots are.

    Returns:
        Arrays [...]. Identical forecasts: p = 1 and [0, 0]. Fewer than `FEWEST` cases, a value that is not finite or a
        mean below zero (a fair CRPS by chance): NaN.

    Raises:
        ValueError: shapes that differ, or times that do not ascend.
    """
    if model.shape != reference.shape:
        raise ValueError(f"cases of shapes {model.shape} and {reference.shape} are not of the same forecasts")
    refuse_disorder(init_times, len(model))
    if not len(model):
        nothing = np.full(model.shape[1:], np.nan)
        return Significance(nothing, nothing, nothing)
    means = [np.asarray(scores, np.float64).mean(0) for scores in (model, reference)]
    error, degrees = standard_error(_influence(model, means[0]) - _influence(reference, means[1])), waves_of(len(model))
    centre = _log_ratio(*means)
    centre = np.where(np.isnan(error), np.nan, centre)
    half_width = error * stdtrit(float(degrees), 1 - _TAIL)
    high, low = (1 - np.exp((centre + side * half_width) / (2 if root else 1)) for side in (-1, 1))
    return Significance(p_value_of(centre, error, degrees), low, high)


def _influence(scores: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """[N, ...]: how far each case moves the logarithm of the mean; nothing where no case has an error."""
    safe = np.where(mean == 0, 1.0, mean)
    return scores / safe


def _log_ratio(model: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Log of the ratio of means. Where neither has an error there is no difference."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(model == reference, 0.0, np.log(model) - np.log(reference))
