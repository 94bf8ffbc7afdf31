from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from weatherfm.errors import InputError
from weatherfm.evaluation.metrics.ensemble import DISTRIBUTION, ensemble_means, ensemble_metrics, pair_share
from weatherfm.evaluation.metrics.events import parse_event
from weatherfm.evaluation.metrics.gaussian import Gaussian, gaussian_event_means, gaussian_means

SHAPE = (2, 3, 2, 4)
"""[B, C, H, W]."""
CHANNELS = ("t2m", "z500", "msl")
WEIGHTS = np.array([np.full(8, 1 / 8), [0.5, 0.25, 0.25, 0, 0, 0, 0, 0]])


@pytest.fixture
def case():
    """(forecast, truth), of several sizes of spread."""
    rng = np.random.default_rng(0)
    forecast = Gaussian(rng.normal(280, 5, SHAPE).astype(np.float32), rng.uniform(0.5, 4, SHAPE[1:]))
    return forecast, forecast.mean + rng.normal(0, 3, SHAPE)


def test_crps_is_the_integral_over_the_distribution_function(case):
    """Its definition: the integral of (F(x) - [x >= y])^2."""
    forecast, truth = case
    expected = np.empty(SHAPE)
    for at in np.ndindex(SHAPE):
        mean, std, y = float(forecast.mean[at]), forecast.std[at[1:]], float(truth[at])
        below = quad(lambda x, m=mean, s=std: norm.cdf(x, m, s) ** 2, mean - 12 * std, y, epsabs=1e-11)[0]
        above = quad(lambda x, m=mean, s=std: norm.sf(x, m, s) ** 2, y, mean + 12 * std, epsabs=1e-11)[0]
        expected[at] = below + above
    metrics = ensemble_metrics(gaussian_means(forecast, truth, WEIGHTS), DISTRIBUTION)
    expected = np.einsum("bcx,rx->brc", expected.reshape(2, 3, 8), WEIGHTS)
    np.testing.assert_allclose(metrics["crps"], expected, rtol=1e-6)
    np.testing.assert_array_equal(metrics["crps"], metrics["crps_fair"])


def test_a_large_ensemble_drawn_from_it_has_nearly_the_same_statistics(case):
    forecast, truth = case
    rng = np.random.default_rng(1)
    draws = rng.standard_normal((2, 4000, *SHAPE[1:])) * forecast.std + forecast.mean[:, None]
    drawn, exact = ensemble_means(draws, truth, WEIGHTS), gaussian_means(forecast, truth, WEIGHTS)
    for name, values in exact.items():
        np.testing.assert_allclose(drawn[name], values, rtol=0.08, err_msg=name)
    found = [ensemble_metrics(means, size) for means, size in ((drawn, 4000), (exact, DISTRIBUTION))]
    for name, values in found[1].items():
        np.testing.assert_allclose(found[0][name], values, rtol=0.05, err_msg=name)


def test_spread_and_ratio_by_hand():
    truth = np.full((1, 1, 1, 2), 3.0)
    forecast = Gaussian(np.array([[[[0.0, 0.0]]]]), np.array([[[3.0, 3.0]]]))
    metrics = ensemble_metrics(gaussian_means(forecast, truth, np.full((1, 2), 0.5)), DISTRIBUTION)
    assert metrics["ensemble_spread"].item() == pytest.approx(3)
    assert metrics["spread_skill_ratio"].item() == pytest.approx(1)  # no (M + 1) / M
    z = 3 * (norm.cdf(1) * 2 - 1 + 2 * norm.pdf(1) - 1 / np.sqrt(np.pi))
    assert metrics["crps"].item() == pytest.approx(z)


def test_without_spread_it_is_the_absolute_error():
    truth = np.array([[[[1.0, 2.0, 5.0]]]])
    forecast = Gaussian(np.array([[[[1.0, 4.0, 2.0]]]]), np.zeros((1, 1, 3)))
    means = gaussian_means(forecast, truth, np.eye(3))
    np.testing.assert_array_equal(means["crps_skill"][0, :, 0], [0, 2, 3])
    np.testing.assert_array_equal(means["crps_spread"], 0)
    event = gaussian_event_means(forecast, truth, [parse_event("z500 > 2")], ["z500"], np.eye(3))["brier"]
    np.testing.assert_array_equal(event[0, :, 0], [0, 1, 1])  # forecast no, yes, no; truth no, no, yes


@pytest.mark.parametrize("text", ["t2m > 281", "t2m < 278"])
def test_probability_of_events(case, text):
    forecast, truth = case
    event = parse_event(text)
    happens = norm.sf if event.operator == ">" else norm.cdf
    chance = happens(event.threshold, forecast.mean[:, 0].astype(float), forecast.std[0])
    expected = np.square(chance - event.happens(truth[:, 0])).reshape(2, 8) @ WEIGHTS.T
    found = gaussian_event_means(forecast, truth, [parse_event("z500 > 100"), event], CHANNELS, WEIGHTS)["brier"]
    np.testing.assert_allclose(found[:, :, 1], expected, atol=1e-6)


def test_what_does_not_belong_together(case):
    forecast, truth = case
    with pytest.raises(ValueError, match="do not match"):
        gaussian_means(forecast, truth[:1], WEIGHTS)
    with pytest.raises(ValueError, match="do not match"):
        gaussian_means(Gaussian(forecast.mean, forecast.std[:1]), truth, WEIGHTS)
    with pytest.raises(InputError, match="there is no u10"):
        gaussian_event_means(forecast, truth, [parse_event("u10 > 3")], CHANNELS, WEIGHTS)
    spoilt = truth.copy()
    spoilt[1, 2, 0, 0] = np.nan
    means = gaussian_means(forecast, spoilt, WEIGHTS)["crps_skill"]
    assert np.isnan(means[1, :, 2]).all()
    assert np.isfinite(means[0]).all()
    with pytest.raises(InputError, match="needs two members"):
        pair_share(1)
