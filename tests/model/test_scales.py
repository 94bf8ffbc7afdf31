"""Logarithms and increments by lead time: what the model sees and gives back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_model import inputs, make_domain, make_model, scramble

from weatherfm.earth.transforms import to_log
from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.increments import at_lead, increment_scales
from weatherfm.model.loading import load_weights
from weatherfm.model.weights import save_weights
from weatherfm.training.stepping.loss import forecast_loss

SCALES = {"t850": 0.25}
BY_LEAD = {6: np.array([100.0, 1.0, 200.0]), 24: np.array([600.0, 3.0, 500.0]), 72: np.array([900.0, 3.5, 800.0])}


def domain(**changes):
    return replace(make_domain(), **{"log_scales": SCALES, "tendency_std_by_lead": BY_LEAD} | changes)


def test_a_logarithm_is_taken_and_undone():
    model = make_model(domain(mean=np.array([54000.0, 4.0, 101000.0]), std=np.array([3000.0, 2.0, 1000.0]))).double()
    model.set_statistics()
    fields = torch.linspace(-3, 900, 3 * 8 * 16, dtype=torch.float64).reshape(1, 3, 8, 16)
    normal = model.normalize(fields)
    x = fields[0, 1].numpy()
    expected = (np.sign(x) * np.log(1 + np.abs(x) / 0.25) - 4) / 2
    np.testing.assert_allclose(normal[0, 1], expected, rtol=1e-12)
    np.testing.assert_allclose(normal[0, 1], (to_log(x, 0.25) - 4) / 2, rtol=1e-12)
    np.testing.assert_allclose(normal[0, 2], (fields[0, 2] - 101000) / 1000, rtol=1e-12)
    torch.testing.assert_close(model.denormalize(normal), fields, rtol=1e-10, atol=1e-9)


def test_dry_places_stay_dry_to_the_bit():
    model = make_model(domain(mean=np.zeros(3)))
    assert (model.denormalize(model.normalize(torch.zeros(1, 3, 8, 16)))[:, 1] == 0).all()


@pytest.mark.parametrize(
    ("hours", "expected"), [(3, 100), (6, 100), (15, 350), (24, 600), (48, 750), (72, 900), (240, 900)]
)
def test_increments_are_between_those_of_known_lead_times(hours, expected):
    leads, scales = (torch.from_numpy(values) for values in increment_scales(domain()))
    found = at_lead(scales, leads, torch.tensor([hours]))
    assert found[0, 0].item() * 3000 == pytest.approx(expected)


def test_one_known_lead_time_stands_for_all():
    leads, scales = (torch.from_numpy(values) for values in increment_scales(make_domain()))
    found = at_lead(scales, leads, torch.tensor([6, 240]))
    torch.testing.assert_close(found, torch.tensor([[0.2, 0.2, 0.5]], dtype=torch.float64).expand(2, -1))


def test_a_model_gives_increments_in_units_of_its_lead_time():
    """Of the same head's output: three times as much where changes are three times as large."""
    model = scramble(make_model(domain(tendency_std_by_lead={6: BY_LEAD[24] / 3, 24: BY_LEAD[24]})))
    model.eval()
    torch.nn.init.zeros_(model.lead_time.weight)
    history, forcings, _ = inputs(model)
    short, long = (model(history, forcings, torch.full((2,), hours)) - history[:, 0] for hours in (6, 24))
    torch.testing.assert_close(long, 3 * short, rtol=1e-4, atol=1e-5)


def test_the_loss_is_in_units_of_the_change_over_the_sample_s_lead_time():
    """Persistence costs the same at each lead time when changes are as large as they are known to be."""
    loss = forecast_loss(ModelConfig(), domain(), {})
    leads = torch.tensor([6, 24, 72])
    change = torch.stack([torch.from_numpy(BY_LEAD[int(lead)] / domain().std) for lead in leads]).float()
    losses = loss(torch.zeros(3, 3, 8, 16), change[:, :, None, None].expand(3, 3, 8, 16), leads)
    torch.testing.assert_close(losses, torch.ones(3, 3), rtol=1e-5, atol=0)


def test_weights_carry_them(tmp_path):
    model = scramble(make_model(domain()))
    model.eval()
    save_weights(tmp_path / "weights.safetensors", model, {})
    loaded = load_weights(tmp_path / "weights.safetensors")
    assert loaded.domain.log_scales == SCALES
    assert list(loaded.domain.tendency_std_by_lead) == [6, 24, 72]
    given = inputs(model)
    torch.testing.assert_close(loaded(*given), model(*given), rtol=0, atol=0)
    torch.testing.assert_close(loaded.denormalize(given[0]), model.denormalize(given[0]), rtol=0, atol=0)


@pytest.mark.parametrize("spread", [np.array([1.0, 0.0, 1.0]), np.array([1.0, np.nan, 1.0]), np.ones(2)])
def test_a_lead_time_without_changes_is_refused(spread):
    with pytest.raises(InputError, match="tendency_std over 6h is not one positive number a channel"):
        domain(tendency_std_by_lead={6: spread})
