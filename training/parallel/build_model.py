"""The model a rank trains: its share of the channels, its parts of the weights, and their initial values."""

from __future__ import annotations

from collections.abc import Callable

import torch

from weatherfm.earth.domain import Domain
from weatherfm.model.initial import initial_tensor
from weatherfm.model.lora import adapt
from weatherfm.model.model import WeatherViT
from weatherfm.training.parallel.channel_rows import local, local_part
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
    known_blocks: int | None = None,
) -> WeatherViT:
    """The model of a run, initialised from its seed: the same function on every layout.

    Args:
        config: of the run.
        domain: of the whole model.
        role: what this rank holds of it.
        device: where its parts shall be.
        dtype: of matrix products.
        empty: leave out the initial values, for weights that are about to be restored or come from elsewhere.
        known_blocks: how many of its blocks the weights have that it starts from; without it, all.
    """
    model = meta_model(config, domain, role, dtype, known_blocks)
    model.to_empty(device=device)
    model.set_statistics()
    if not empty:
        fill_initial(model, config.training.seed)
    return model


def meta_model(
    config: RunConfig, domain: Domain, role: Role, dtype: torch.dtype, known_blocks: int | None = None
) -> WeatherViT:
    """The model of `build_model` without values, on the meta device, so that no rank ever holds more than its parts."""
    with torch.device("meta"):
        model = WeatherViT(config.model, domain, role.share)
    add_factors(model, config, known_blocks)
    parallelize(model, role.mesh, config.parallel, dtype, config.training.compile)
    return model


def add_factors(model: WeatherViT, config: RunConfig, known_blocks: int | None = None) -> None:
    """Put the factors of `training.start_from.lora`, where there are any, beside the matrices of the known blocks."""
    start = config.training.start_from
    if start is not None and start.lora is not None:
        adapt(model.blocks[:known_blocks], start.lora.matrices, start.lora.rank, start.lora.scale)


@torch.no_grad()
def fill_initial(model: WeatherViT, seed: int, alive: Callable[[], None] = lambda: None) -> None:
    """Set this rank's parts of all weights to the initial values of the serial model, drawn one tensor at a time."""
    for name, parameter in model.named_parameters():
        local(parameter).copy_(local_part(initial_tensor(model, name, seed), parameter))
        alive()
