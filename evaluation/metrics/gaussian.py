"""Metrics of forecasts that are a normal distribution at every point: CRPS, spread and Brier score in closed form.

With z = (y - mean) / std, X and X' independent draws of the distribution and y the truth,

    E|X - y|      = std [z (2 Phi(z) - 1) + 2 phi(z)]
    E|X - X'|     = 2 std / sqrt(pi)
    CRPS          = E|X - y| - 1/2 E|X - X'|

(Gneiting and Raftery 2007, doi:10.1198/016214506000001437, eq. 21; Gneiting et al. 2005, Monthly Weather Review 133,
1098, eq. 5, have the sum of the two). They are the statistics of an ensemble without end, and metrics are made of them
as of an ensemble's: CRPS and fair CRPS are the same, and the spread-skill ratio needs no correction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from weatherfm.evaluation.metrics.events import Event, event_position
from weatherfm.evaluation.metrics.spatial_means import pointwise_means

_STATISTICS = ("crps_skill", "crps_spread", "ensemble_mean_squared_error", "ensemble_variance")


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A normal distribution at every point, independent of its neighbours as far as scores are concerned."""

    mean: np.ndarray
    """[B, C, H, W] in physical units."""
    std: np.ndarray
    """[C, H, W], 0 or more: the same for all cases."""

    def std_of_cases(self) -> np.ndarray:
        """[B, C, H, W]; not to be written to."""
        return np.broadcast_to(self.std, self.mean.shape)


def gaussian_means(forecast: Gaussian, truth: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Spatial means of every case, of the same names as those of an ensemble; there are no ranks.

    Args:
        forecast: of B cases.
        truth: [B, C, H, W] at the valid time.
        weights: [R, X], rows sum to 1.

    Returns:
        Statistic -> [B, R, C] float64.

    Raises:
        ValueError: shapes that do not belong together.
    """
    if truth.shape != forecast.mean.shape or truth.shape[1:] != forecast.std.shape:
        shapes = f"{forecast.mean.shape} [B, C, H, W], {forecast.std.shape} [C, H, W]"
        raise ValueError(f"mean and std {shapes} and truth {truth.shape} [B, C, H, W] do not match")
    return pointwise_means(_write, _STATISTICS, (forecast.mean, forecast.std_of_cases(), truth), weights)


def gaussian_event_means(
    forecast: Gaussian, truth: np.ndarray, events: Sequence[Event], channels: Sequence[str], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Brier score of events: the probability is that of the distribution beyond the threshold.

    Args:
        forecast: of B cases.
        truth: [B, C, H, W] at the valid time.
        events: at least one.
        channels: names, in the order of C.
        weights: [R, X], rows sum to 1.

    Returns:
        `brier` [B, R, E] float64.

    Raises:
        InputError: an event of a channel that is not there.
    """
    means = []
    for event in events:
        at = slice(place := event_position(event, channels), place + 1)
        probability = _probability(event, forecast.mean[:, at], forecast.std_of_cases()[:, at])
        error = np.square(probability - event.happens(truth[:, at]))
        error[~np.isfinite(truth[:, at])] = np.nan
        means.append(pointwise_means(_copy, ("brier",), (error,), weights)["brier"][:, :, 0])
    return {"brier": np.stack(means, axis=-1)}


def _write(fields: Sequence[np.ndarray], out: np.ndarray) -> None:
    mean, std, truth = (np.asarray(field, np.float64) for field in fields)
    error = truth - mean
    z = _standardised(error, std)
    out[0] = error * (2 * ndtr(z) - 1) + 2 * std * np.exp(-0.5 * np.square(z)) / np.sqrt(2 * np.pi)
    out[1] = 2 * std / np.sqrt(np.pi)
    out[2] = np.square(error)
    out[3] = np.square(std)


def _copy(fields: Sequence[np.ndarray], out: np.ndarray) -> None:
    out[0] = fields[0]


def _probability(event: Event, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Of the event, float64; where the distribution is one value, 0 or 1."""
    beyond = mean - event.threshold if event.operator == ">" else event.threshold - mean
    chance: np.ndarray = ndtr(_standardised(beyond.astype(np.float64), std))
    return np.where(np.asarray(std) > 0, chance, beyond > 0)


def _standardised(error: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Error over std; where there is no spread, 0 of no error and else infinite with its sign."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, 0.0, error / std)
