from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_model import make_domain

from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig
from weatherfm.training.stepping.loss import forecast_loss

DOMAIN = make_domain()
STATE, INCREMENT = ModelConfig(predict="state"), ModelConfig(predict="increment")

LEADS = torch.tensor([24, 72])


def fields(seed):
    return torch.randn(2, 3, *DOMAIN.grid.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("config", [STATE, INCREMENT])
def test_equals_its_formula_in_physical_units(config):
    weights = {"z500": 3.0, "msl": 0.5}
    losses = forecast_loss(config, DOMAIN, weights)(fields(0), fields(1), LEADS)
    unit = DOMAIN.std if config.predict == "state" else DOMAIN.tendency_std
    error = (fields(0) - fields(1)).double().numpy() * DOMAIN.std[:, None, None] / unit[:, None, None]
    mean = np.average(np.average(error**2, axis=-1), axis=-1, weights=DOMAIN.grid.area_weights[:, 0])
    expected = mean * np.array([3.0, 1.0, 0.5]) / 1.5
    np.testing.assert_allclose(losses.numpy(), expected, rtol=2e-6)  # float32


def test_uniform_error_of_one_is_a_loss_of_one():
    losses = forecast_loss(STATE, DOMAIN, {"t850": 7.0})(fields(0) + 1, fields(0), LEADS)
    assert losses.mean().item() == pytest.approx(1, rel=1e-5)


def test_a_polar_row_counts_by_its_area():
    error = torch.zeros(1, 3, *DOMAIN.grid.shape)
    polar, equatorial = error.clone(), error.clone()
    polar[..., 0, :] = 1
    equatorial[..., DOMAIN.grid.shape[0] // 2, :] = 1
    loss = forecast_loss(STATE, DOMAIN, {})
    ratio = loss(polar, error, LEADS).mean() / loss(equatorial, error, LEADS).mean()
    edges = np.sin(np.deg2rad([90, 67.5, 22.5, 0]))  # rows of 8: the first spans 90 .. 67.5, the fifth 0 .. -22.5
    assert ratio.item() == pytest.approx((edges[0] - edges[1]) / (edges[2] - edges[3]), rel=1e-5)


def test_bfloat16_predictions_are_compared_in_float32():
    losses = forecast_loss(STATE, DOMAIN, {})(fields(0).bfloat16(), fields(0), LEADS)
    assert losses.dtype == torch.float32
    assert 0 < losses.mean() < 1e-4


def test_inverse_weighting_counts_a_sample_by_shortest_lead_over_its_own():
    equal = forecast_loss(STATE, DOMAIN, {})(fields(0), fields(1), LEADS)
    inverse = forecast_loss(STATE, DOMAIN, {}, shortest_lead_hours=24)(fields(0), fields(1), LEADS)
    torch.testing.assert_close(inverse, equal * torch.tensor([[1.0], [1 / 3]]))


def test_refuses_weights_that_leave_nothing():
    with pytest.raises(InputError, match="every channel weight zero"):
        forecast_loss(STATE, DOMAIN, dict.fromkeys(DOMAIN.channels, 0.0))
