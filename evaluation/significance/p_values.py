"""Paired test of the mean difference of two forecasts' scores, aware of autocorrelation (numpy and scipy).

Two forecasts are compared case by case: a difficult day is difficult for both, and their difference tells more than
either score. Successive cases are alike, so there is less to learn from them than from as many independent ones: a
plain t-test forgets this and calls far too many differences significant.

In simulations without a difference (Gaussian AR(1) series) the test at 5 % rejects, of 100 and of 400 cases,

    first autocorrelation    this test        plain t-test
    0                        4.0   4.5 %       5.0   5.0 %
    0.3                      6.0   5.0 %      15    15 %
    0.6                      6.5   5.0 %      33    33 %
    0.8                      7.0   5.5 %      51    51 %

With 30 cases it rejects 4, 7, 10 and 14 %: a month of days is little to go by. Every series is judged by itself: of
many, one in twenty differs by chance.

Source: Geer (2016), Tellus A 68, 30229, doi:10.3402/tellusa.v68.30229.

Legend: N case, S series (region, lead time and channel together).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

FEWEST = 10
"""Cases, or pairs of cases one and two steps apart, below which nothing is said."""
_COLUMNS = 2048
"""Series worked on together: bounds the memory."""


@dataclass(frozen=True, eq=False)
class PairedTest:
    """Result of `paired_test`, each of the shape of one case."""

    p_value: np.ndarray
    """Probability of a mean difference at least as large, either way, if the true one is zero."""
    standard_error: np.ndarray
    """Of the mean difference, inflated."""
    inflation: np.ndarray
    """k, by which autocorrelation widens the standard error: 1 or more."""
    degrees: np.ndarray
    """Degrees of freedom that are left."""


def paired_test(differences: np.ndarray, init_times: np.ndarray) -> PairedTest:
    """Two-sided test of a mean difference of zero (Geer 2016).

    The standard error of independent cases is inflated by k:

        k^2 = (1 - r1 phi1 - r2 phi2) / (1 - phi1 - phi2)^2,    at least 1
        phi1 = r1 (1 - r2) / (1 - r1^2),    phi2 = (r2 - r1^2) / (1 - r1^2)

    with autocorrelations r1, r2 one and two steps apart: that of an AR(2) process fitted by Yule-Walker. Two details
    go beyond Geer, both for short series. Taking away the sample mean, whose variance is V, lowers every autocovariance
    by V on average: V is estimated and given back, once. And Student's distribution has N / k^2 - 1 degrees of freedom,
    not N - 1. A fit that is not stationary, or k^2 > N / 2, counts as k^2 = N / 2: hardly anything is significant then.

    The step is the most common distance between successive initial times. Only pairs exactly one or two of these apart
    make r1 and r2, so gaps do no harm there; but k is that of a row without gaps, rather too large than too small where
    neighbouring differences are alike. With fewer than 10 such pairs, as of a dozen cases or of scattered ones, or with
    a value that is not finite, everything is NaN. Differences that are all zero have p = 1.

    Args:
        differences: [N, ...].
        init_times: [N] datetime64, ascending.

    Raises:
        ValueError: not as many times as cases, or times that do not ascend.
    """
    series = differences.reshape(len(differences), -1)
    pairs = _pairs(init_times, len(series))
    found = np.full((4, series.shape[1]), np.nan)
    if min(map(len, pairs)) >= FEWEST:
        for first in range(0, series.shape[1], _COLUMNS):
            columns = slice(first, first + _COLUMNS)
            found[:, columns] = _test(series[:, columns], pairs)
    return PairedTest(*(values.reshape(differences.shape[1:]) for values in found))


def _pairs(init_times: np.ndarray, cases: int) -> list[np.ndarray]:
    """[pair, 2] positions of cases one step, and two steps, apart."""
    if len(init_times) != cases:
        raise ValueError(f"{len(init_times)} initial times for {cases} cases")
    times = init_times.astype("datetime64[s]").astype(np.int64)
    distances = np.diff(times)
    if (distances <= 0).any():
        raise ValueError("initial times do not ascend; sort the cases, each once")
    if not len(distances):
        return [np.empty((0, 2), np.int64)] * 2
    values, counts = np.unique(distances, return_counts=True)
    step = values[counts.argmax()]
    found = []
    for apart in (step, 2 * step):
        later = np.minimum(np.searchsorted(times, times + apart), cases - 1)
        earlier = np.flatnonzero(times[later] == times + apart)
        found.append(np.stack([earlier, later[earlier]], axis=1))
    return found


def _test(series: np.ndarray, pairs: list[np.ndarray]) -> np.ndarray:
    """[4, S]: what `PairedTest` holds, of differences [N, S]."""
    cases = len(series)
    mean = series.mean(0)
    anomaly = series - mean
    covariances = [np.square(anomaly).mean(0)]
    for pair in pairs:
        covariances.append(np.einsum("ns,ns->s", anomaly[pair[:, 0]], anomaly[pair[:, 1]]) / len(pair))
    covariance = np.stack(covariances)
    covariance += _inflation(covariance, cases) * covariance[0] / cases
    squared = _inflation(covariance, cases)
    error = np.sqrt(squared * covariance[0] / cases)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.abs(mean) / error
    degrees = cases / squared - 1
    p_value = 2 * stdtr(degrees, -statistic)
    return np.stack([np.where((mean == 0) & (error == 0), 1.0, p_value), error, np.sqrt(squared), degrees])


def _inflation(covariance: np.ndarray, cases: int) -> np.ndarray:
    """k^2 [S] from autocovariances [lag 0 .. 2, S]."""
    variance = np.where(covariance[0] == 0, 1.0, covariance[0])
    r1, r2 = covariance[1:] / variance
    with np.errstate(divide="ignore", invalid="ignore"):
        phi1, phi2 = r1 * (1 - r2) / (1 - r1**2), (r2 - r1**2) / (1 - r1**2)
        squared = (1 - r1 * phi1 - r2 * phi2) / (1 - phi1 - phi2) ** 2
        stationary = (np.abs(phi2) < 1) & (phi1 + phi2 < 1) & (phi2 - phi1 < 1)
    return np.where(np.isnan(variance), np.nan, np.clip(np.where(stationary, squared, np.inf), 1, cases / 2))
