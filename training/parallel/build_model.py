"""The model a rank trains: its share of the channels, its parts of the weights, and their initial values."""

from __future__ import annotations

from collections.abc import Callable

import torch

from weatherfm.earth.domain import Domain
from weatherfm.model.initial import initial_tensor
from weatherfm.model.model import WeatherViT
from weatherfm.training.parallel.channel_rows import local_part
from weatherfm.training.parallel.parallelize import parallelize
from weatherfm.training.parallel.role import Role
from weatherfm.training.run_config import RunConfig


def build_model(
    config: RunConfig,
    domain: Domain,
    role: Role,
    device: torch.device,
    dtype: torch.dtype,
    empty: bool = False,
) -> WeatherViT:
    """The model of a run, initialised from its seed: the same function on every layout.

    Args:
        config: of the run.
        domain: of the whole model.
        role: what this rank holds of it.
        device: where its parts shall be.
        dtype: of matrix products.
        empty: leave out the initial values, for weights that are about to be restored or come from elsewhere.
    """
    model = meta_model(config, domain, role, dtype)
    model.to_empty(device=device)
    model.set_statistics()
    if not empty:
        fill_initial(model, config.training.seed)
    return model


def meta_model(config: RunConfig, domain: Domain, role: Role, dtype: torch.dtype) -> WeatherViT:
    """The model of `build_model` without values, on the meta device, so that no rank ever holds more than its parts."""
    with torch.device("meta"):
        model = WeatherViT(config.model, domain, role.share)
    parallelize(model, role.mesh, config.parallel, dtype, config.training.compile)
    return model


@torch.no_grad()
def fill_initial(model: WeatherViT, seed: int, alive: Callable[[], None] = lambda: None) -> None:
    """Set this rank's parts of all weights to the initial values of the serial model, drawn one tensor at a time."""
    for name, parameter in model.named_parameters():
        own = parameter.to_local() if hasattr(parameter, "to_local") else parameter
        own.copy_(local_part(initial_tensor(model, name, seed), parameter))
        alive()
