"""Size and power of tests of a mean difference of correlated cases: which one `evaluation.significance` should use.

    python tests/bench/bench_significance.py            # the tables of docs/evaluation.md, some minutes
    python tests/bench/bench_significance.py --series 500

Series are Gaussian, of an AR(1) process with autocorrelation 0 .. 0.8 or of an AR(2) that swings (1, -0.4) and one that
lasts (0.5, 0.3). `size` is the share of series without a difference that a method calls significant at 5 %: 5 is right.
`power` is that of series whose true mean is three of its true standard errors: with a known variance 85 could be found.
A method with too large a size has its power for nothing.

- `plain`: Student's t-test, as if cases were independent;
- `Geer`: inflated by that of an AR(2) fitted by Yule-Walker (Geer 2016), N - 1 degrees of freedom;
- `N/k2`: the same with the lost variance given back and N / k^2 - 1 degrees of freedom, what weatherfm did before;
- `block`: circular block bootstrap of the mean, percentiles, block length 1.5 N^(1/3) / (1 - r1) up to N / 3;
- `EWC`: equally weighted cosines, `paired_test`.

The last column holds the share of skill intervals (`compare_cases`, squared errors whose logarithms are such series,
half of their variance shared by both forecasts, true skill 10 %) that hold the true skill.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy import stats
from scipy.signal import lfilter
from scipy.special import stdtr

from weatherfm.evaluation.significance.p_values import paired_test
from weatherfm.evaluation.significance.skill_intervals import compare_cases

CASES = (30, 60, 100, 400)
PROCESSES = ((0.0,), (0.2,), (0.4,), (0.6,), (0.8,), (1.0, -0.4), (0.5, 0.3))
EFFECT = 3.0
"""True standard errors."""
RESAMPLES = 300


def series_of(process: tuple[float, ...], cases: int, series: int, random: np.random.Generator) -> np.ndarray:
    """[case, series] with variance 1 and mean zero."""
    noise = random.standard_normal((cases + 300, series))
    found = lfilter([1], [1, *(-phi for phi in process)], noise, axis=0)[300:]
    return found / np.sqrt(np.square(impulse(process)).sum())


def impulse(process: tuple[float, ...]) -> np.ndarray:
    """Response to one unit of noise."""
    return lfilter([1], [1, *(-phi for phi in process)], np.eye(1, 2000)[0])


def true_error(process: tuple[float, ...], cases: int) -> float:
    """Standard error of the mean of a long series."""
    response = impulse(process)
    return float(np.sqrt(response.sum() ** 2 / np.square(response).sum() / cases))


def days(cases: int) -> np.ndarray:
    """Daily initial times."""
    return np.datetime64("2020-01-01T00", "s") + np.arange(cases) * np.timedelta64(1, "D")


def covariances(series: np.ndarray) -> np.ndarray:
    """[lag 0 .. 2, series]."""
    anomaly = series - series.mean(0)
    return np.stack([(anomaly[: len(anomaly) - lag] * anomaly[lag:]).mean(0) for lag in range(3)])


def inflation(covariance: np.ndarray, cases: int) -> np.ndarray:
    """k^2 of an AR(2), between 1 and N / 2."""
    r1, r2 = covariance[1:] / covariance[0]
    phi1, phi2 = r1 * (1 - r2) / (1 - r1**2), (r2 - r1**2) / (1 - r1**2)
    squared = (1 - r1 * phi1 - r2 * phi2) / (1 - phi1 - phi2) ** 2
    stationary = (np.abs(phi2) < 1) & (phi1 + phi2 < 1) & (phi2 - phi1 < 1)
    return np.clip(np.where(stationary, squared, np.inf), 1, cases / 2)


def plain(series: np.ndarray) -> np.ndarray:
    """p of Student's test."""
    return np.asarray(stats.ttest_1samp(series, 0).pvalue)


def geer(series: np.ndarray) -> np.ndarray:
    """p of Geer's."""
    cases, covariance = len(series), covariances(series)
    error = np.sqrt(inflation(covariance, cases) * covariance[0] / (cases - 1))
    return 2 * stdtr(cases - 1.0, -np.abs(series.mean(0)) / error)


def of_before(series: np.ndarray) -> np.ndarray:
    """p of Geer's with fewer degrees of freedom."""
    cases, covariance = len(series), covariances(series)
    covariance = covariance + inflation(covariance, cases) * covariance[0] / cases
    squared = inflation(covariance, cases)
    error = np.sqrt(squared * covariance[0] / cases)
    return 2 * stdtr(cases / squared - 1, -np.abs(series.mean(0)) / error)


def block(series: np.ndarray) -> np.ndarray:
    """p of the bootstrap: twice the share of resampled means on the other side of zero."""
    random, cases = np.random.default_rng(0), len(series)
    r1 = np.clip(covariances(series)[1] / series.var(0), 0, 0.95)
    lengths = np.clip(np.round(1.5 * cases ** (1 / 3) / (1 - r1)), 1, cases // 3).astype(int)
    lengths[r1 < 2 / np.sqrt(cases)] = 1
    found = np.empty(series.shape[1])
    for length in np.unique(lengths):
        starts = random.integers(cases, size=(RESAMPLES, -(-cases // length)))
        picked = (starts[..., None] + np.arange(length)).reshape(RESAMPLES, -1)[:, :cases] % cases
        drawn = np.stack([np.bincount(row, minlength=cases) for row in picked])
        below = ((drawn @ series[:, lengths == length]) <= 0).mean(0)
        found[lengths == length] = 2 * np.minimum(below, 1 - below)
    return found


def cosines(series: np.ndarray) -> np.ndarray:
    """p of weatherfm's test."""
    return paired_test(series, days(len(series))).p_value


METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": plain, "Geer": geer, "N/k2": of_before, "block": block, "EWC": cosines,
}  # fmt: skip


def covered(process: tuple[float, ...], cases: int, series: int, random: np.random.Generator) -> float:
    """Share of intervals that hold the true skill, in per cent."""
    shared, *own = (series_of(process, cases, series, random) for _ in range(3))
    model, reference = (np.exp(0.4 * np.sqrt(0.5) * (shared + noise)) for noise in own)
    found = compare_cases(0.81 * model, reference, days(cases), root=True)
    return 100 * float(((found.skill_low <= 0.1) & (found.skill_high >= 0.1)).mean())


def main() -> None:
    """Print both tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--series", type=int, default=4000, help="simulated series a row")
    series, random = parser.parse_args().series, np.random.default_rng(0)
    columns = [f"{what} {method}" for what in ("size", "power") for method in METHODS]
    print(f"| cases | process | {' | '.join(columns)} | covered |")
    print("|---" * (3 + 2 * len(METHODS)) + "|")
    for cases in CASES:
        for process in PROCESSES:
            noise = series_of(process, cases, series, random)
            shifted = noise + EFFECT * true_error(process, cases)
            shares = [f"{100 * (m(x) < 0.05).mean():.0f}" for x in (noise, shifted) for m in METHODS.values()]
            held = covered(process, cases, series, random)
            print(f"| {cases} | {', '.join(map(str, process))} | {' | '.join(shares)} | {held:.0f} |", flush=True)


if __name__ == "__main__":
    main()
