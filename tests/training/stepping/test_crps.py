"""The CRPS as a loss: against formulas computed otherwise, its units, its gradient, and what it wants of members."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_model import make_domain

from weatherfm.config import parse_settings
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError
from weatherfm.evaluation.metrics.ensemble import ensemble_means, ensemble_metrics
from weatherfm.model.architecture import ModelConfig
from weatherfm.training.run_config import RunConfig, TrainingConfig
from weatherfm.training.stepping.crps import almost_fair_crps
from weatherfm.training.stepping.loss import forecast_loss

DOMAIN = make_domain(regular_grid((8, 16)))
LEADS = torch.tensor([24, 96])


def fields(seed, samples):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(samples, 3, 8, 16)))


@pytest.mark.parametrize("members", [2, 3, 5])
def test_equals_the_scores_of_evaluation(members):
    """Fair at alpha 1, of the members' own distribution at 0, and between them in between."""
    prediction, target = fields(0, 2 * members), fields(1, 2)
    weights = DOMAIN.grid.area_weights.ravel()[None] / DOMAIN.grid.area_weights.sum()
    means = ensemble_means(prediction.numpy().reshape(2, members, 3, 8, 16), target.numpy(), weights)
    told = ensemble_metrics(means, members)

    def loss(alpha):
        return forecast_loss(ModelConfig(predict="state"), DOMAIN, {}, crps_alpha=alpha)(prediction, target, LEADS)

    for alpha, name in ((1.0, "crps_fair"), (0.0, "crps")):
        np.testing.assert_allclose(loss(alpha), told[name][:, 0], rtol=1e-6)
    torch.testing.assert_close(loss(0.95), 0.95 * loss(1.0) + 0.05 * loss(0.0), rtol=1e-6, atol=0)


def test_is_in_units_of_the_error_by_lead_time_and_channel():
    """Twice the error is twice the loss, and an increment's error counts by the spread of increments, once."""
    prediction, target, leads = fields(0, 4), fields(1, 2), torch.tensor([24, 24])
    of_states = forecast_loss(ModelConfig(predict="state"), DOMAIN, {}, crps_alpha=0.95)
    first = of_states(prediction, target, leads)
    torch.testing.assert_close(of_states(3 * prediction, 3 * target, leads), 3 * first)
    of_increments = forecast_loss(ModelConfig(), DOMAIN, {}, crps_alpha=0.95)
    spread = torch.as_tensor(DOMAIN.tendency_std / DOMAIN.std)
    torch.testing.assert_close(of_increments(prediction, target, leads), first / spread, rtol=1e-6, atol=0)
    inverse = forecast_loss(ModelConfig(predict="state"), DOMAIN, {}, 24, crps_alpha=0.95)(prediction, target, LEADS)
    torch.testing.assert_close(inverse[0], first[0])
    torch.testing.assert_close(inverse[1], first[1] / 2)  # 96 h is four times as long


def test_channels_that_a_sample_does_not_show_count_by_their_own_spread():
    prediction, target, leads = fields(0, 4), fields(1, 2), torch.tensor([24, 24])
    shown = torch.tensor([[True, False, True], [False, True, True]])
    given = forecast_loss(ModelConfig(), DOMAIN, {}, crps_alpha=0.95)(prediction, target, leads, shown)
    increments = forecast_loss(ModelConfig(), DOMAIN, {}, crps_alpha=0.95)(prediction, target, leads)
    states = forecast_loss(ModelConfig(predict="state"), DOMAIN, {}, crps_alpha=0.95)(prediction, target, leads)
    torch.testing.assert_close(given, torch.where(shown, increments, states))


def test_the_best_of_two_members_are_draws_from_the_truths_distribution():
    """Of members m +- s a truth of N(0, 1) wants m 0 and, fairly, E|X - X'| of its own, 2 / sqrt(pi)."""
    truth = torch.from_numpy(np.random.default_rng(0).normal(size=(20_000, 1)))
    spread = torch.linspace(0.2, 2.0, 181, dtype=torch.float64)
    draws = torch.from_numpy(np.random.default_rng(1).normal(size=(20_000, 2, 1)))
    score = almost_fair_crps(draws * spread - truth[:, None], 1.0).mean(0)
    assert spread[score.argmin()] == pytest.approx(1.0, abs=0.05)
    own = almost_fair_crps(draws * spread - truth[:, None], 0.0).mean(0)
    assert spread[own.argmin()] < 0.8


def test_gradients_are_those_of_the_formula():
    errors = torch.from_numpy(np.random.default_rng(2).normal(size=(2, 3, 4))).requires_grad_()
    torch.autograd.gradcheck(lambda x: almost_fair_crps(x, 0.95), errors, eps=1e-7)
    alike = torch.ones(1, 2, 4, dtype=torch.float64, requires_grad=True)
    almost_fair_crps(alike, 0.95).sum().backward()
    torch.testing.assert_close(alike.grad, torch.full_like(alike, 0.5))  # of the distance from the truth alone


RUN = {"run": "r", "data": {"store": "s", "source": {"kind": "planet"}, "channels": ["z500"]}}


@pytest.mark.parametrize(
    ("model", "training", "message"),
    [
        ({}, {"loss": "crps"}, "set both"),
        ({"noise": 4}, {}, "set both"),
    ],
)
def test_noise_and_its_loss_belong_together(model, training, message):
    with pytest.raises(InputError, match=message):
        parse_settings(RunConfig, RUN | {"model": model, "training": training}, "run")


@pytest.mark.parametrize("settings", [{"members": 3}, {"crps_alpha": 0.9}])
def test_settings_of_the_crps_alone_are_refused_elsewhere(settings):
    with pytest.raises(InputError, match="belong to loss: crps"):
        parse_settings(TrainingConfig, settings, "training")


@pytest.mark.parametrize("settings", [{"members": 1}, {"crps_alpha": 1.5}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InputError):
        parse_settings(TrainingConfig, {"loss": "crps"} | settings, "training")
