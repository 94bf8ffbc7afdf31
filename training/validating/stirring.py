"""Weights moved off their initial values, alike on every layout.

A model begins with weights at zero, its output among them, and then nearly all gradients are zero whatever a layout
does wrong. So each weight is moved by a little, drawn by its name alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from weatherfm.model.initial import row_names
from weatherfm.model.model import WeatherViT
from weatherfm.training.parallel.channel_rows import local, local_part

_SIZE = 0.02
"""Standard deviation of what is added: that of the matrices of a block at the start."""


@torch.no_grad()
def stir(model: WeatherViT, alive: Callable[[], None] = lambda: None) -> None:
    """Add to this rank's parts of all weights; rounded to float32, so that a model in float64 has the same ones."""
    for name, parameter in model.named_parameters():
        own = local(parameter)
        moved = own.float() + local_part(_drawn(model, name, parameter.shape), parameter).to(own.device)
        own.copy_(moved)
        alive()


def _drawn(model: WeatherViT, name: str, shape: torch.Size) -> Tensor:
    rows = row_names(model, name)
    if rows is None:
        return _normal(name, shape)
    return torch.stack([_normal(f"{name}.{row}", shape[1:]) for row in rows])


def _normal(name: str, shape: torch.Size) -> Tensor:
    digest = hashlib.sha256(f"stirred {name}".encode()).digest()
    random = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))
    return _SIZE * torch.randn(shape, generator=random, dtype=torch.float32)
