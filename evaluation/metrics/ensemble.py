"""Metrics of ensembles: continuous ranked probability score, spread, spread-skill ratio, rank histogram.

With members X and X' of one ensemble of M, and the truth y,

    skill         = E|X - y|
    spread        = E|X - X'| over pairs of *different* members: M (M - 1) of them
    CRPS          = skill - (M - 1) / (2 M) spread
    fair CRPS     = skill - 1/2 spread
    ratio         = sqrt((M + 1) / M) sqrt(mean ensemble variance) / RMSE of the ensemble mean

The CRPS is that of the members' empirical distribution (Hersbach 2000, Weather and Forecasting 15, 559; Gneiting and
Raftery 2007, doi:10.1198/016214506000001437, eq. 21): a small ensemble is worse for being small. The fair score is what
an endless ensemble of the same kind would get, in expectation (Ferro 2014, doi:10.1002/qj.2270; Zamo and Naveau 2018,
doi:10.1007/s11004-017-9709-7): use it to compare ensembles of different sizes. It can be negative. The ratio is that of
Fortin et al. (2014, doi:10.1175/JHM-D-14-0008.1), 1 for an ensemble from which the truth cannot be told, whatever its
size; below 1, too confident.

The rank of the truth is the number of members below it (Hamill 2001, Monthly Weather Review 129, 550). Members equal to
the truth leave several ranks possible: each gets the same share of the case, the mean of the usual random choice. So a
dry day forecast dry by all members counts for all ranks alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from weatherfm.errors import InputError
from weatherfm.evaluation.metrics.spatial_means import spatial_means

_STATISTICS = ("crps_skill", "crps_spread", "ensemble_mean_squared_error", "ensemble_variance")
DISTRIBUTION = 0
"""In place of a number of members: what is a distribution itself, an ensemble without end."""
_VALUES = 2**17
"""Values, of all members, worked on together: a few MB with copies, still in cache, and few calls (2^15 is slower)."""


def ensemble_means(members: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Spatial means of every case.

    A value that is not finite makes the means of its case and channel not finite, rank counts NaN: check before. Spread
    and variance know nothing of the truth and stay finite without it.

    Args:
        members: [B, M, C, H, W] in physical units.
        truth: [B, C, H, W] at the valid time.
        weights: [R, X], rows sum to 1.

    Returns:
        Statistic -> [B, R, C] float64; `rank_counts` [B, R, C, M + 1], shares of the region's area that sum to 1.

    Raises:
        InputError: fewer than two members.
        ValueError: shapes that do not belong together.
    """
    cases, size, channels = members.shape[:3]
    _refuse_single(size)
    if truth.shape != (cases, channels, *members.shape[3:]):
        raise ValueError(f"members {members.shape} [B, M, C, H, W] and truth {truth.shape} [B, C, H, W] do not match")
    forecast, observed = members.reshape(cases, size, channels, -1), truth.reshape(cases, channels, -1)
    means = np.zeros((len(_STATISTICS), cases, channels, len(weights)))
    ranks = np.zeros((cases, channels, len(weights), size + 1))
    for columns, part in pieces(size, channels, forecast.shape[-1]):
        some = weights[:, columns]
        histogram = _RankHistogram(some, size)
        for case in range(cases):
            x, y = forecast[case, :, part, columns], observed[case, part, columns]
            values = _statistics(x, y)
            means[:, case, part] += spatial_means(values.reshape(-1, y.shape[-1]), some).reshape(*values.shape[:2], -1)
            ranks[case, part] += histogram.counts(x, y)
    ranks[~np.isfinite(means[0])] = np.nan  # comparisons with NaN are false and would count
    found = dict(zip(_STATISTICS, means.swapaxes(2, 3), strict=True))
    return found | {"rank_counts": ranks.swapaxes(1, 2)}


def ensemble_metrics(mean: Mapping[str, np.ndarray], members: int) -> dict[str, np.ndarray]:
    """Metrics of means over cases (any dims), in units of the channel (`spread_skill_ratio`: 1).

    The ratio is infinite where the ensemble mean has no error, NaN where there is no spread either.

    Args:
        mean: statistic -> mean.
        members: size of the ensemble, 2 or more, or `DISTRIBUTION`.

    Raises:
        InputError: fewer than two members.
    """
    share, own = pair_share(members), 0.0 if members == DISTRIBUTION else 1 / members
    spread = np.sqrt(mean["ensemble_variance"])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.sqrt(1 + own) * spread / np.sqrt(mean["ensemble_mean_squared_error"])
    return {
        "crps": mean["crps_skill"] - share * mean["crps_spread"],
        "crps_fair": mean["crps_skill"] - 0.5 * mean["crps_spread"],
        "ensemble_spread": spread,
        "spread_skill_ratio": ratio,
    }


def member_metrics(mean: Mapping[str, np.ndarray], members: int) -> dict[str, np.ndarray]:
    """What single members score, from what their mean scores: averaging takes their variance out of both.

        mean of (member - y)^2 = (ensemble mean - y)^2 + (M - 1) / M variance

    and the same with the climatology in place of the truth y.

    Args:
        mean: statistic -> mean over cases (any dims), of the ensemble mean's errors and anomalies, and of the variance.
        members: size of the ensemble, 2 or more, or `DISTRIBUTION`, whose members are independent draws.
    """
    own = 2 * pair_share(members) * mean["ensemble_variance"]
    metrics = {"member_rmse": np.sqrt(mean["squared_error"] + own)}
    if "forecast_anomaly_squared" in mean:
        truth = mean["truth_anomaly_squared"]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.sqrt((mean["forecast_anomaly_squared"] + own) / truth)
        metrics["member_activity_ratio"] = np.where(truth > 0, ratio, np.nan)
    return metrics


def pair_share(members: int) -> float:
    """What the CRPS has of the mean difference of two members: (M - 1) / (2 M), of a `DISTRIBUTION` 1/2.

    Raises:
        InputError: a single member.
    """
    if members == DISTRIBUTION:
        return 0.5
    _refuse_single(members)
    return (members - 1) / (2 * members)


def _refuse_single(members: int) -> None:
    if members < 2:
        advice = "score it as a single forecast, whose CRPS is its mean absolute error"
        raise InputError(f"an ensemble needs two members to have a spread, but this one has {members}; {advice}")


def count_members(true: np.ndarray) -> np.ndarray:
    """How many of [M, ...] bool are true, in as few bytes as hold M: several times the speed of 64-bit integers."""
    return true.view(np.uint8).sum(0, dtype=np.min_scalar_type(len(true)))


def pieces(members: int, channels: int, points: int) -> Iterator[tuple[slice, slice]]:
    """(points, channels) worked on together: all channels of one run of points before the next run.

    A piece never spans cases, so a case has the same numbers in whatever company it is scored.
    """
    most = max(1, _VALUES // members)
    height = max(1, most // points)
    for column in range(0, points, most):
        for row in range(0, channels, height):
            yield slice(column, min(column + most, points)), slice(row, min(row + height, channels))


def _statistics(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[4, C, X] float64 at every point, of members x [M, C, X] and truth y [C, X].

    Members are taken relative to the first: differences of near values are exact in single precision.
    """
    size = len(x)
    precision = np.result_type(x, y, np.float32)
    values = np.empty((len(_STATISTICS), *y.shape))
    work = np.subtract(x, y, dtype=precision)
    first_error = work[0].astype(np.float64)
    values[0] = np.abs(work, out=work).sum(0)
    np.subtract(x, x[0], out=work)
    values[1] = _mean_difference(work)
    mean = work.mean(0)
    values[2] = np.square(first_error + mean)
    work -= mean
    values[3] = np.square(work, out=work).sum(0)
    values[0] /= size
    values[3] /= size - 1
    return values


def _mean_difference(x: np.ndarray) -> np.ndarray:
    """[C, X]: mean absolute difference of different members x [M, C, X], in O(M log M) by sorting.

    The k-th smallest (k from 0) is the larger of k pairs and the smaller of M - 1 - k.
    """
    size = len(x)
    ascending = np.ascontiguousarray(x.reshape(size, -1).T)  # [C * X, M]
    ascending.sort(-1)
    share = 2.0 * (2 * np.arange(size) - (size - 1)) / (size * (size - 1))
    return (ascending.astype(np.float64, copy=False) @ share).reshape(x.shape[1:])


class _RankHistogram:
    """Counts ranks in all regions at once.

    Args:
        weights: [R, X] of some points.
        members: M.
    """

    def __init__(self, weights: np.ndarray, members: int) -> None:
        self._members, self._regions = members, len(weights)
        inside = weights > 0
        region = np.repeat(np.arange(len(weights)), np.count_nonzero(inside, axis=1))
        self._points = np.flatnonzero(inside) - region * weights.shape[1]
        self._weights = weights[inside]
        self._slots = region * (members + 2)  # one more than there are ranks: where the last one ends

    def counts(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """[C, R, M + 1]: the weights of the points where truth y [C, X] has each rank among members x [M, C, X]."""
        below, equal = (count_members(compare(x, y)) for compare in (np.less, np.equal))
        return np.stack([self._of_channel(*ranks) for ranks in zip(below, equal, strict=True)])

    def _of_channel(self, below: np.ndarray, equal: np.ndarray) -> np.ndarray:
        first = self._slots + below[self._points]
        if not equal.any():
            return self._sums(first, self._weights)[:, :-1]
        ties = equal[self._points].astype(np.intp)
        share = self._weights / (ties + 1)
        starts_minus_ends = self._sums(first, share) - self._sums(first + ties + 1, share)
        return np.maximum(starts_minus_ends.cumsum(1)[:, :-1], 0)  # rounding

    def _sums(self, slots: np.ndarray, weights: np.ndarray) -> np.ndarray:
        size = self._regions * (self._members + 2)
        return np.bincount(slots, weights, size).reshape(self._regions, -1)
