"""Small models and inputs that tests share."""

from __future__ import annotations

import numpy as np
import torch

from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import regular_grid
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.model import WeatherViT


def make_domain(grid=None, channels=("z500", "t850", "msl"), static=0):
    grid = grid or regular_grid((8, 16))
    C = len(channels)
    return Domain(
        channels=channels,
        grid=grid,
        mean=np.resize([54000.0, 280.0, 101000.0], C),
        std=np.resize([3000.0, 15.0, 1000.0], C),
        tendency_std=np.resize([600.0, 3.0, 500.0], C),
        static_names=("orography", "lsm")[:static],
        static=np.random.default_rng(0).normal(size=(static, *grid.shape)).astype(np.float32),
    )


def make_model(domain=None, **settings):
    settings = {"width": 32, "depth": 2, "heads": 4, "drop_path": 0.0} | settings
    return WeatherViT(ModelConfig(**settings), domain or make_domain())


def inputs(model, batch=2, dtype=torch.float32):
    torch.manual_seed(2)
    C, shape = len(model.domain.channels), model.domain.grid.shape
    history = torch.randn(batch, len(model.config.input_times), C, *shape, dtype=dtype)
    forcings = torch.randn(batch, len(model.forcings), *shape, dtype=dtype)
    return history, forcings, torch.full((batch,), 24)


def scramble(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def assert_autocast_stays_close(model):
    """Run a model with small weights in float32 and under bfloat16 autocast; returns what float32 gave."""
    model.eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    history, forcings, lead = inputs(model)
    expected = model(history, forcings, lead)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        given = model(history, forcings, lead)
    # bfloat16 keeps 8 bits: a few parts in a thousand of the increment after a dozen layers
    assert (given - expected).norm() < 0.02 * (expected - history[:, 0]).norm()
    return expected
