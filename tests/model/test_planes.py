"""A model of pictures: it runs on a plane of pixels, and its weights say so."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import plane_of
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.model import WeatherViT
from weatherfm.model.weights import read_header, save_weights

CHANNELS = tuple(f"refl{at}" for at in range(400, 1000, 100))


def domain() -> Domain:
    ones = np.ones(len(CHANNELS))
    return Domain(CHANNELS, plane_of((6, 10)), 0.3 * ones, 0.1 * ones, 0.1 * ones)


def build(**model) -> WeatherViT:
    torch.manual_seed(0)
    config = ModelConfig(patch_size=4, width=16, depth=2, heads=2, forcings=[], drop_path=0.0, **model)
    return WeatherViT(config, domain()).eval()


@pytest.mark.parametrize("model", [{}, {"mlp_convolution": True, "rotary": True, "decoder_fields": 2}], ids=str)
def test_a_model_runs_on_pictures_and_learns_from_them(model):
    built = build(**model)
    out = built(torch.rand(2, 1, len(CHANNELS), 6, 10), torch.zeros(2, 0, 6, 10), torch.tensor([24.0, 24.0]))
    assert out.shape == (2, len(CHANNELS), 6, 10)
    out.square().mean().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in built.parameters() if weight.grad is not None)


def test_weights_of_pictures_keep_their_plane(tmp_path):
    model = build()
    save_weights(tmp_path / "model.safetensors", model, {"data": "pictures"})
    config, held, _ = read_header(tmp_path / "model.safetensors")
    assert held.grid == plane_of((6, 10))
    assert held.grid.plane
    assert held.channels == CHANNELS
    assert config == model.config
