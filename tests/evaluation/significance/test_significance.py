"""Paired test and interval of skill: what is known without a computer, and how often they are right in simulations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from weatherfm.evaluation.significance import skill_intervals as significance
from weatherfm.evaluation.significance.p_values import paired_test
from weatherfm.evaluation.significance.skill_intervals import block_lengths, compare_cases, skill_interval

DAY = np.timedelta64(1, "D")


def days(cases: int) -> np.ndarray:
    return np.datetime64("2020-01-01T00", "s") + np.arange(cases) * DAY


def autoregressive(phi: tuple[float, ...], cases: int, series: int, seed: int = 0) -> np.ndarray:
    """[case, series] of an AR process with unit innovations and mean zero."""
    noise = np.random.default_rng(seed).standard_normal((cases + 300, series))
    return lfilter([1], [1, *(-value for value in phi)], noise, axis=0)[300:]


def squared_errors(phi: float, cases: int, series: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(model, reference) with a true RMSE ratio of 0.9; half of the variance of their logarithms is shared."""
    shared, *own = (autoregressive((phi,), cases, series, seed + i) * np.sqrt(1 - phi**2) for i in range(3))
    model, reference = (np.exp(0.4 * np.sqrt(0.5) * (shared + noise)) for noise in own)
    return 0.81 * model, reference


def rejected(p_value: np.ndarray) -> float:
    return float((p_value < 0.05).mean())


def three_sigma(share: float, trials: int) -> float:
    return 3 * np.sqrt(share * (1 - share) / trials)


def test_independent_cases_are_tested_as_by_student():
    """Where the fit finds no positive autocorrelation, k is 1; the given-back variance is 1 / n of it."""
    series = autoregressive((-0.4,), 200, 50, seed=1)
    found = paired_test(series, days(200))
    assert (found.inflation == 1).all()
    plain = stats.ttest_1samp(series, 0)
    np.testing.assert_allclose(found.standard_error, stats.sem(series), rtol=0.01)  # 1 / (2 n) of V, or less
    np.testing.assert_allclose(found.p_value, plain.pvalue, atol=0.01)


@pytest.mark.parametrize("phi", [(0.5,), (0.5, 0.2), (0.6, -0.3)])
def test_inflation_is_that_of_the_process(phi):
    """k^2 = long-run variance / variance, here from the sum of the autocorrelations of the impulse response."""
    impulse = lfilter([1], [1, *(-value for value in phi)], np.eye(1, 400)[0])
    autocovariance = np.correlate(impulse, impulse, "full")
    expected = autocovariance.sum() / autocovariance.max()
    series = autoregressive(phi, 20_000, 20, seed=2)
    found = paired_test(series, days(20_000))
    assert np.median(found.inflation**2) == pytest.approx(expected, rel=0.03)  # sampling: 0.05 a series
    variance = np.median(series.var(0)) * expected / 20_000
    assert np.median(found.standard_error) == pytest.approx(np.sqrt(variance), rel=0.02)


@pytest.mark.parametrize(
    ("phi", "cases", "excess"), [(0, 100, 0), (0.3, 100, 0.01), (0.6, 100, 0.02), (0.6, 400, 0.005)]
)
def test_rejection_rate_without_a_difference(phi, cases, excess):
    """Within three binomial deviations of 5 %, and the excess of a fit to few cases that the docstring admits."""
    trials = 4000
    series = autoregressive((phi,), cases, trials, seed=3)
    rate = rejected(paired_test(series, days(cases)).p_value)
    bound = three_sigma(0.05, trials)
    assert 0.05 - 0.01 - bound < rate < 0.05 + excess + bound  # k >= 1 makes it cautious where nothing is correlated
    if phi >= 0.3:
        assert rejected(stats.ttest_1samp(series, 0).pvalue) > 0.13  # 15 % and 33 %: what the inflation is for


@pytest.mark.parametrize(("phi", "cases"), [(0, 100), (0.3, 200), (0.6, 400)])
def test_interval_holds_the_true_skill(phi, cases):
    trials = 1000
    model, reference = squared_errors(phi, cases, trials, seed=4)
    low, high = skill_interval(model, reference, days(cases), root=True, resamples=500)
    held = ((low <= 0.1) & (high >= 0.1)).mean()
    # 2 %: of an interval that is a little narrow where cases are alike, as the module says
    assert 0.95 - 0.02 - three_sigma(0.05, trials) < held < 0.95 + 0.015 + three_sigma(0.05, trials)
    assert abs((low > 0.1).mean() - (high < 0.1).mean()) < 0.03  # errs to both sides alike


@pytest.mark.slow
@pytest.mark.parametrize(("phi", "worst"), [((0,), 0.94), ((0.3,), 0.925), ((0.6,), 0.91), ((0.5, 0.2), 0.9)])
@pytest.mark.parametrize("cases", [100, 200, 400])
def test_rates_over_many_simulations(phi, worst, cases):
    """Test: 4 .. 7.5 %. Interval: `worst` is what 100 cases reach, less sampling (0.5 % at 6,000 trials)."""
    trials = 6000
    series = autoregressive(phi, cases, trials, seed=5)
    assert 0.035 < rejected(paired_test(series, days(cases)).p_value) < 0.08
    unit = series / series.std()
    other = autoregressive(phi, cases, trials, seed=6) / series.std()
    low, high = skill_interval(0.81 * np.exp(0.4 * unit), np.exp(0.4 * other), days(cases), root=True)
    assert worst - 0.01 < ((low <= 0.1) & (high >= 0.1)).mean() < 0.97


def test_a_true_difference_is_found():
    model, reference = squared_errors(0.5, 365, 200, seed=7)
    found = compare_cases(model, reference, days(365), root=True, resamples=300)
    assert rejected(found.p_value) > 0.95
    assert (found.skill_low > 0).mean() > 0.95
    # the p-value is below 5 % where the interval excludes zero, but for borderline cases: two methods
    assert ((found.p_value < 0.05) == (found.skill_low > 0)).mean() > 0.97


@pytest.mark.parametrize("root", [True, False])
def test_swapping_model_and_reference(root):
    model, reference = squared_errors(0.3, 100, 40, seed=8)
    one = compare_cases(model, reference, days(100), root)
    other = compare_cases(reference, model, days(100), root)
    np.testing.assert_allclose(one.p_value, other.p_value, rtol=1e-9)
    np.testing.assert_allclose(1 - one.skill_low, 1 / (1 - other.skill_high), rtol=1e-9)  # the ratio's inverse
    np.testing.assert_allclose(1 - one.skill_high, 1 / (1 - other.skill_low), rtol=1e-9)


def test_units_do_not_matter():
    model, reference = squared_errors(0.3, 100, 40, seed=9)
    one = compare_cases(model, reference, days(100), root=True)
    other = compare_cases(1e6 * model, 1e6 * reference, days(100), root=True)
    np.testing.assert_allclose(one.p_value, other.p_value, rtol=1e-9)
    np.testing.assert_allclose(one.skill_low, other.skill_low, rtol=1e-9)


def test_root_halves_the_logarithm():
    model, reference = squared_errors(0.3, 100, 5, seed=10)
    rmse, mse = (skill_interval(model, reference, days(100), root) for root in (True, False))
    np.testing.assert_allclose((1 - rmse[0]) ** 2, 1 - mse[0], rtol=1e-12)


def test_identical_forecasts():
    model, _ = squared_errors(0.3, 50, 3)
    for scores in (model, np.zeros_like(model)):
        found = compare_cases(scores, scores.copy(), days(50), root=True)
        assert (found.p_value == 1).all()
        assert (found.skill_low == 0).all()
        assert (found.skill_high == 0).all()


def test_a_constant_factor_or_difference_is_certain():
    _, reference = squared_errors(0.3, 60, 3)
    found = compare_cases(0.25 * reference, reference, days(60), root=True)
    np.testing.assert_allclose([found.skill_low, found.skill_high], 0.5, rtol=1e-9)  # all resamples give a half
    assert (paired_test(np.full((60, 2), 0.5), days(60)).p_value == 0).all()


def test_a_perfect_model_and_a_perfect_reference():
    _, reference = squared_errors(0, 50, 2)
    perfect = np.zeros_like(reference)
    np.testing.assert_array_equal(skill_interval(perfect, reference, days(50), root=True), 1)
    np.testing.assert_array_equal(skill_interval(reference, perfect, days(50), root=True), -np.inf)


def test_too_few_cases_and_missing_values_are_nan():
    model, reference = squared_errors(0, 60, 2)
    few = compare_cases(model[:9], reference[:9], days(9), root=True)
    assert np.isnan([few.p_value, few.skill_low, few.skill_high]).all()
    assert np.isnan(paired_test(model[:11] - reference[:11], days(11)).p_value).all()
    assert np.isfinite(paired_test(model[:12] - reference[:12], days(12)).p_value).all()
    assert np.isnan(compare_cases(model[:1], reference[:1], days(1), root=True).p_value).all()
    model[3, 0] = np.nan
    gap = compare_cases(model, reference, days(60), root=True)
    for values in (gap.p_value, gap.skill_low, gap.skill_high):
        assert np.isnan(values[0])
        assert np.isfinite(values[1])


def test_shape_of_one_case_is_kept_and_company_changes_nothing(monkeypatch):
    model, reference = squared_errors(0.5, 80, 24, seed=11)
    shaped = compare_cases(model.reshape(80, 2, 3, 4), reference.reshape(80, 2, 3, 4), days(80), root=True)
    assert shaped.p_value.shape == shaped.skill_low.shape == shaped.skill_high.shape == (2, 3, 4)
    monkeypatch.setattr(significance, "_COLUMNS", 5)
    alone = compare_cases(model[:, 7:8], reference[:, 7:8], days(80), root=True)
    pieces = compare_cases(model, reference, days(80), root=True)
    for name in ("p_value", "skill_low", "skill_high"):  # 1e-9: BLAS sums in an order that depends on the shape
        whole = getattr(shaped, name).ravel()
        np.testing.assert_allclose(getattr(pieces, name), whole, rtol=1e-9)
        np.testing.assert_allclose(getattr(alone, name), whole[7:8], rtol=1e-9)


def test_seed_and_resamples():
    model, reference = squared_errors(0.3, 100, 5, seed=12)
    first, again, other = (
        skill_interval(model, reference, days(100), True, resamples=300, seed=seed)[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_block_lengths_are_those_of_the_formula():
    """AR(1): G / g(0) = 2 phi / (1 - phi^2), so b = (6 phi^2 / (1 - phi^2)^2 n)^(1/3)."""
    lengths = block_lengths(autoregressive((0.5,), 4000, 60, seed=13))
    expected = (6 * 0.25 / 0.75**2 * 4000) ** (1 / 3)  # 22.0
    assert np.median(lengths) == pytest.approx(expected, rel=0.4)  # rounded up to 24, or 32 where the sample says so
    assert set(lengths) <= set(significance._LENGTHS)
    assert np.median(block_lengths(autoregressive((0,), 400, 60, seed=14))) <= 3
    assert (block_lengths(np.ones((40, 2))) == 1).all()


def test_blocks_are_whole_circular_and_fill_the_row():
    drawn = significance._draws(10, 4, 200, seed=0)
    assert (drawn.sum(1) == 10).all()
    np.testing.assert_allclose(drawn.mean(0), 1, atol=0.25)  # every case alike, the ends too: 3 of 0.08
    whole = significance._draws(8, 8, 50, seed=0)
    assert (whole == 1).all()  # one block round the circle holds every case once


def test_a_gap_does_not_join_its_ends():
    """Two winters: pairs across the summer are left out, so each winter's correlation counts and nothing else."""
    series = autoregressive((0.7,), 2 * 90, 400, seed=15)
    series[90:] = -series[90:]  # what follows the gap knows nothing of what is before
    gap = np.where(np.arange(180) < 90, 0, 275)
    apart = paired_test(series, days(180) + gap * DAY)
    joined = paired_test(series, days(180))
    assert np.median(apart.inflation) > np.median(joined.inflation)
    expected = (1 + 0.7) / (1 - 0.7)
    assert np.median(apart.inflation**2) == pytest.approx(expected, rel=0.15)  # low with few cases


def test_scattered_cases_have_an_interval_but_no_test():
    model, reference = squared_errors(0, 30, 2)
    times = days(30) + np.arange(30) ** 2 * DAY  # no two distances alike
    found = compare_cases(model, reference, times, root=True)
    assert np.isnan(found.p_value).all()
    assert (found.skill_low < found.skill_high).all()


def test_what_does_not_belong_together_is_refused():
    model, reference = squared_errors(0, 20, 2)
    with pytest.raises(ValueError, match=r"shapes \(20, 2\) and \(20, 1\)"):
        skill_interval(model, reference[:, :1], days(20), root=True)
    with pytest.raises(ValueError, match="19 initial times for 20 cases"):
        paired_test(model, days(19))
    with pytest.raises(ValueError, match="do not ascend"):
        paired_test(model, days(20)[::-1])
