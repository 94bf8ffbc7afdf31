from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_model import make_domain

from weatherfm.config import parse_settings
from weatherfm.model.architecture import ModelConfig
from weatherfm.training.run_config import TrainingConfig
from weatherfm.training.stepping.channel_weights import weights_by_channel
from weatherfm.training.stepping.loss import forecast_loss

CHANNELS = ["t2m", "z500", "z1000", "u10", "t850", "z300", "tp", "msl", "tcwv", "o3500"]


def by_name(given):
    return dict(zip(CHANNELS, weights_by_channel(CHANNELS, given), strict=True))


def test_by_pressure_as_worked_by_hand():
    """z has 300, 500 and 1000 hPa: 600 in the mean; t and o3 have one level each, which is its own mean."""
    assert by_name({"scheme": "pressure"}) == pytest.approx(
        {
            "t2m": 1.0, "u10": 0.1, "msl": 0.1, "tp": 0.1, "tcwv": 0.1,
            "z300": 0.5, "z500": 500 / 600, "z1000": 1000 / 600, "t850": 1.0, "o3500": 1.0,
        }
    )  # fmt: skip


def test_thirteen_levels_as_graphcast_weighs_them():
    """Its code: level / level.mean(), over the levels of WeatherBench; their sum is 6,025 hPa."""
    levels = [50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000]
    found = weights_by_channel([f"q{level}" for level in levels], {"scheme": "pressure"})
    assert found[7] == pytest.approx(500 * 13 / 6025)
    assert found[0] == pytest.approx(50 * 13 / 6025)
    assert np.mean(found) == pytest.approx(1)


def test_single_ones_on_top():
    """A channel's weight is its weight, a variable's is multiplied by p / mean(p)."""
    found = by_name({"scheme": "pressure", "z500": 2.0, "z": 3.0, "u10": 1.0, "t": 0.0})
    assert (found["z500"], found["u10"], found["t850"]) == (2.0, 1.0, 0.0)
    assert (found["z300"], found["z1000"]) == pytest.approx((1.5, 5.0))
    assert (found["t2m"], found["msl"]) == (1.0, 0.1)


def test_by_hand_alone():
    found = by_name({"z": 3.0, "z300": 0.5, "t2m": 2.0})
    assert {name: weight for name, weight in found.items() if weight != 1} == {
        "z500": 3.0, "z1000": 3.0, "z300": 0.5, "t2m": 2.0
    }  # fmt: skip
    assert set(by_name({}).values()) == {1.0}


def test_the_loss_divides_them_by_their_mean():
    domain = make_domain(channels=("z500", "z1000", "msl"))
    zeros = torch.zeros(1, 3, *domain.grid.shape)
    losses = forecast_loss(ModelConfig(predict="state"), domain, {"scheme": "pressure"})(
        zeros + 1, zeros, torch.tensor([24])
    )
    expected = np.array([500 / 750, 1000 / 750, 0.1])
    np.testing.assert_allclose(losses[0].numpy(), expected / expected.mean(), rtol=1e-6)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("pressure", {"scheme": "pressure"}),
        ({"scheme": "pressure", "z500": 2}, {"scheme": "pressure", "z500": 2.0}),
        ({"z500": "1e-1", "u10": 2}, {"z500": 0.1, "u10": 2.0}),  # YAML takes 1e-1 for a text
    ],
    ids=str,
)
def test_how_they_are_written(written, meant):
    settings = parse_settings(TrainingConfig, {"channel_weights": written}, "test")
    assert settings.channel_weights == meant
    assert settings.model_dump(mode="json")["channel_weights"] == meant
