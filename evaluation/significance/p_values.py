"""Paired test of the mean difference of two forecasts' scores, aware of autocorrelation (numpy and scipy).

Two forecasts are compared case by case: a difficult day is difficult for both, and their difference tells more than
either score. Successive cases are alike, so there is less to learn from them than from as many independent ones: a
plain t-test forgets this and calls far too many differences significant.

The variance of the mean is taken from the slowest waves of the series: with N cases and

    B = ceil(0.4 N^(2/3)),    a_j = sqrt(2 / N) sum over n of d_n cos(pi j (n - 1/2) / N),  j = 1 .. B

the mean of a_j^2 estimates N times it, and mean / standard error has Student's distribution with B degrees of freedom
(Lazarus, Lewis, Stock and Watson 2018, J. Business and Economic Statistics 36, 541, doi:10.1080/07350015.2018.1506926:
equally weighted cosines). Nothing is fitted, so nothing fails to be stationary. Cases with gaps between them count as
one row (Datta and Du 2012, Federal Reserve IFDP 1060: "equal spacing"): what follows a gap is less alike than the test
allows for, which makes it cautious.

How often it is right and what it finds, beside other methods: `tests/bench/bench_significance.py`, docs/evaluation.md.
Every series is judged by itself: of many, one in twenty differs by chance.

Legend: N case, S series (region, lead time and channel together).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from scipy.special import stdtr

FEWEST = 16
"""Cases below which nothing is said: two waves are no measure of how uncertain a mean is."""
_COLUMNS = 2048
"""Series worked on together: bounds the memory."""


@dataclass(frozen=True, eq=False)
class PairedTest:
    """Result of `paired_test`."""

    p_value: np.ndarray
    """Probability of a mean difference at least as large, either way, if the true one is zero; [...] of one case."""
    standard_error: np.ndarray
    """Of the mean difference, [...]."""
    degrees: int
    """Degrees of freedom: the waves that it was taken from."""


def paired_test(differences: np.ndarray, init_times: np.ndarray) -> PairedTest:
    """Two-sided test of a mean difference of zero.

    With fewer than `FEWEST` cases, or a value that is not finite, everything is NaN. Differences that are all zero have
    p = 1.

    Args:
        differences: [N, ...].
        init_times: [N] datetime64, ascending.

    Raises:
        ValueError: not as many times as cases, or times that do not ascend.
    """
    refuse_disorder(init_times, len(differences))
    error = standard_error(differences)
    degrees = waves_of(len(differences))
    mean = differences.mean(0) if len(differences) else np.full(differences.shape[1:], np.nan)
    return PairedTest(p_value_of(mean, error, degrees), error, degrees)


def refuse_disorder(init_times: np.ndarray, cases: int) -> None:
    """A ValueError where the times are not those of cases in order."""
    if len(init_times) != cases:
        raise ValueError(f"{len(init_times)} initial times for {cases} cases")
    if (np.diff(init_times.astype("datetime64[s]").astype(np.int64)) <= 0).any():
        raise ValueError("initial times do not ascend; sort the cases, each once")


def waves_of(cases: int) -> int:
    """B of the module's formula, 1 at least."""
    return max(1, ceil(0.4 * cases ** (2 / 3)))


def standard_error(series: np.ndarray) -> np.ndarray:
    """Of the mean of each series [N, ...], NaN of fewer than `FEWEST` cases: [...] float64."""
    cases, shape = len(series), series.shape[1:]
    if cases < FEWEST:
        return np.full(shape, np.nan)
    order = np.arange(1, waves_of(cases) + 1)[:, None]
    waves = np.sqrt(2 / cases) * np.cos(np.pi * order * (np.arange(cases) + 0.5) / cases)  # [B, N]
    flat = series.reshape(cases, -1)
    found = np.empty(flat.shape[1])
    for first in range(0, len(found), _COLUMNS):
        columns = slice(first, first + _COLUMNS)
        part = np.asarray(flat[:, columns], np.float64)
        found[columns] = np.sqrt(np.square(waves @ (part - part[:1])).mean(0) / cases)  # a constant leaves nothing
    return found.reshape(shape)


def p_value_of(estimate: np.ndarray, error: np.ndarray, degrees: int) -> np.ndarray:
    """Two-sided p of an estimate with this standard error, if the true value is zero; 1 where both are zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.abs(estimate) / error
    return np.where((estimate == 0) & (error == 0), 1.0, 2 * stdtr(float(degrees), -statistic))
