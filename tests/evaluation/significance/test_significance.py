"""Paired test and interval of skill: what is known without a computer, and how often they are right in simulations."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from weatherfm.evaluation.forecast_config import EvaluationConfig
from weatherfm.evaluation.significance import p_values
from weatherfm.evaluation.significance.p_values import FEWEST, paired_test
from weatherfm.evaluation.significance.skill_intervals import compare_cases

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


@pytest.mark.parametrize("cases", [30, 37, 400])
def test_standard_error_is_that_of_the_formula(cases):
    """Each cosine written out, by hand."""
    series = autoregressive((0.5,), cases, 3, seed=1)
    waves = ceil(0.4 * cases ** (2 / 3))
    expected = np.zeros(3)
    for j in range(1, waves + 1):
        amplitude = sum(series[n - 1] * np.cos(np.pi * j * (n - 0.5) / cases) for n in range(1, cases + 1))
        expected += 2 / cases * amplitude**2 / waves
    found = paired_test(series, days(cases))
    assert found.degrees == waves
    np.testing.assert_allclose(found.standard_error, np.sqrt(expected / cases), rtol=1e-9)
    t = series.mean(0) / found.standard_error
    np.testing.assert_allclose(found.p_value, 2 * stats.t.sf(np.abs(t), waves), rtol=1e-9)


@pytest.mark.parametrize("phi", [(0.5,), (0.5, 0.2), (0.6, -0.3)])
def test_standard_error_is_that_of_the_process(phi):
    """Long-run variance from the response to one impulse."""
    response = lfilter([1], [1, *(-value for value in phi)], np.eye(1, 400)[0])
    series = autoregressive(phi, 20_000, 20, seed=2)
    found = paired_test(series, days(20_000))
    assert np.mean(found.standard_error**2) == pytest.approx(response.sum() ** 2 / 20_000, rel=0.08)  # 3 sigma: 0.05


@pytest.mark.parametrize(
    ("phi", "cases", "most"),
    [((0,), 30, 0.05), ((0.4,), 30, 0.06), ((0.6,), 60, 0.07), ((0.6,), 100, 0.07), ((0.8,), 400, 0.08),
     ((1.0, -0.4), 60, 0.05)],
)  # fmt: skip
def test_rejection_rate_without_a_difference(phi, cases, most):
    """Within three binomial deviations of 5 %, and of what docs/evaluation.md admits where few cases are alike."""
    trials = 3000
    series = autoregressive(phi, cases, trials, seed=3)
    rate = rejected(paired_test(series, days(cases)).p_value)
    assert 0.04 - three_sigma(0.05, trials) < rate < most + three_sigma(0.05, trials)


def test_power_with_thirty_independent_cases():
    """A difference of three standard errors is found in some 60 %, of 400 in 80 %."""
    for cases, least in ((30, 0.55), (400, 0.78)):
        series = autoregressive((0,), cases, 2000, seed=4) + 3 / np.sqrt(cases)
        assert rejected(paired_test(series, days(cases)).p_value) > least


@pytest.mark.parametrize(("phi", "cases"), [(0, 100), (0.3, 200), (0.6, 400)])
def test_interval_holds_the_true_skill(phi, cases):
    trials = 1000
    model, reference = squared_errors(phi, cases, trials, seed=4)
    found = compare_cases(model, reference, days(cases), root=True)
    held = ((found.skill_low <= 0.1) & (found.skill_high >= 0.1)).mean()
    assert 0.95 - 0.02 - three_sigma(0.05, trials) < held < 0.95 + 0.015 + three_sigma(0.05, trials)
    assert abs((found.skill_low > 0.1).mean() - (found.skill_high < 0.1).mean()) < 0.03  # errs to both sides alike


@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize("cases", [16, 37, 100])
def test_p_value_and_interval_never_contradict(root, cases):
    """Of thousands of borderline series too: excluded is 0 exactly where p < 0.05."""
    model, reference = squared_errors(0.6, cases, 4000, seed=5)
    model = model * np.linspace(0.8, 1.6, 4000)
    found = compare_cases(model, reference, days(cases), root)
    excluded = (found.skill_low > 0) | (found.skill_high < 0)
    assert 0.1 < excluded.mean() < 0.9
    np.testing.assert_array_equal(excluded, found.p_value < 0.05)


def test_better_on_all_of_37_days_is_significant():
    """Better by much or little, from day to day or in one slow swing that nearly comes to nothing."""
    day = (np.arange(37) + 0.5) / 37
    factors = {
        "alike": 0.8 - 0.05 * np.cos(np.pi * np.arange(37)),
        "slowly better": 1 - 0.4 * day,
        "half a wave": 0.8 + 0.19 * np.cos(np.pi * day),
        "a wave": 0.8 + 0.19 * np.cos(2 * np.pi * day),
        "by chance": 1 - 0.4 * np.random.default_rng(0).random(37),
        "long spells": 0.8 + 0.19 * np.tanh(autoregressive((0.95,), 37, 1, seed=1)[:, 0]),
    }
    for name, factor in factors.items():
        reference = np.ones((37, 1))
        found = compare_cases(factor[:, None] * reference, reference, days(37), root=True)
        assert (factor < 1).all()
        assert found.p_value < 0.05, name
        assert found.skill_low > 0, name


def test_a_true_difference_is_found():
    model, reference = squared_errors(0.5, 365, 200, seed=7)
    assert rejected(compare_cases(model, reference, days(365), root=True).p_value) > 0.95


def test_two_winters_count_as_one_row():
    """What follows a gap knows nothing of what is before: the test stays as cautious as it says."""
    series = autoregressive((0.6,), 90, 6000, seed=15)
    winters = np.concatenate([series[:, :3000], series[:, 3000:]])
    times = days(180) + np.where(np.arange(180) < 90, 0, 275) * DAY
    assert 0.03 < rejected(paired_test(winters, times).p_value) < 0.08


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
    rmse, mse = (compare_cases(model, reference, days(100), root).skill_low for root in (True, False))
    np.testing.assert_allclose((1 - rmse) ** 2, 1 - mse, rtol=1e-12)


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
    np.testing.assert_allclose([found.skill_low, found.skill_high], 0.5, rtol=1e-9)  # every case gives a half
    assert (paired_test(np.full((60, 2), 0.5), days(60)).p_value == 0).all()


def test_a_perfect_model_and_a_perfect_reference():
    _, reference = squared_errors(0, 50, 2)
    perfect = np.zeros_like(reference)
    better, worse = (compare_cases(*pair, days(50), root=True) for pair in ((perfect, reference), (reference, perfect)))
    np.testing.assert_array_equal([better.skill_low, better.skill_high], 1)
    np.testing.assert_array_equal([worse.skill_low, worse.skill_high], -np.inf)
    np.testing.assert_array_equal([better.p_value, worse.p_value], 0)


def test_too_few_cases_and_missing_values_are_nan():
    model, reference = squared_errors(0, 60, 2)
    for cases in (0, 1, FEWEST - 1):
        few = compare_cases(model[:cases], reference[:cases], days(cases), root=True)
        assert np.isnan([few.p_value, few.skill_low, few.skill_high]).all()
        assert np.isnan(paired_test((model - reference)[:cases], days(cases)).p_value).all()
    assert np.isfinite(compare_cases(model[:FEWEST], reference[:FEWEST], days(FEWEST), root=True).p_value).all()
    model[3, 0] = np.nan
    gap = compare_cases(model, reference, days(60), root=True)
    for values in (gap.p_value, gap.skill_low, gap.skill_high):
        assert np.isnan(values[0])
        assert np.isfinite(values[1])


def test_a_fair_score_below_zero_has_no_ratio():
    found = compare_cases(np.full((20, 1), -0.1), np.ones((20, 1)), days(20), root=False)
    assert np.isnan([found.p_value, found.skill_low, found.skill_high]).all()


def test_shape_of_one_case_is_kept_and_company_changes_nothing(monkeypatch):
    model, reference = squared_errors(0.5, 80, 24, seed=11)
    shaped = compare_cases(model.reshape(80, 2, 3, 4), reference.reshape(80, 2, 3, 4), days(80), root=True)
    assert shaped.p_value.shape == shaped.skill_low.shape == shaped.skill_high.shape == (2, 3, 4)
    monkeypatch.setattr(p_values, "_COLUMNS", 5)
    alone = compare_cases(model[:, 7:8], reference[:, 7:8], days(80), root=True)
    pieces = compare_cases(model, reference, days(80), root=True)
    for name in ("p_value", "skill_low", "skill_high"):  # 1e-9: BLAS sums in an order that depends on the shape
        whole = getattr(shaped, name).ravel()
        np.testing.assert_allclose(getattr(pieces, name), whole, rtol=1e-9)
        np.testing.assert_allclose(getattr(alone, name), whole[7:8], rtol=1e-9)


def test_what_does_not_belong_together_is_refused():
    model, reference = squared_errors(0, 20, 2)
    with pytest.raises(ValueError, match=r"shapes \(20, 2\) and \(20, 1\)"):
        compare_cases(model, reference[:, :1], days(20), root=True)
    with pytest.raises(ValueError, match="19 initial times for 20 cases"):
        paired_test(model, days(19))
    with pytest.raises(ValueError, match="do not ascend"):
        paired_test(model, days(20)[::-1])


def test_settings_of_before_name_the_bootstrap(caplog):
    assert EvaluationConfig.model_validate({"resamples": 100}) == EvaluationConfig()
    assert "evaluation.resamples is no longer used" in caplog.text
