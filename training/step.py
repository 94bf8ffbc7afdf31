"""One optimizer step on this rank: gradients, the one small sum over ranks, the update.

Legend: B batch, C channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from weatherfm.model import WeatherViT
from weatherfm.training.batches import ReadyBatch, sample_losses
from weatherfm.training.config import TrainingConfig
from weatherfm.training.loss import ForecastLoss
from weatherfm.training.optimizer import clip_gradients, learning_rate, set_learning_rate, squared_gradients
from weatherfm.training.role import Role


class Exchanged(NamedTuple):
    """What all ranks know after their gradients are there."""

    gradient_norm: Tensor
    """Norm of all gradients of the whole model as one vector, a float64 scalar."""
    wishes: Tensor
    """How many ranks raised their hand, a float64 scalar."""
    channel_loss: Tensor
    """[C] float64 mean weighted loss of every channel of the whole model."""


def compute_gradients(
    model: WeatherViT, loss: ForecastLoss, batches: Sequence[ReadyBatch], role: Role, dtype: torch.dtype
) -> list[Tensor]:
    """Gradients of the mean loss over batches; returns the [B, C] losses of each, of own samples and channels.

    A rank's own loss is its part of a sum over channels; over samples FSDP takes the mean.
    """
    found = []
    for ready in batches:
        losses = sample_losses(model, loss, ready, dtype)  # [B, C own]
        (losses.sum() / (len(losses) * len(role.channels) * role.copies * len(batches))).backward()
        found.append(losses.detach())
    return found


def exchange(model: WeatherViT, losses: Sequence[Tensor], role: Role, wish: bool) -> Exchanged:
    """Tell all ranks the loss of every channel, the gradient norm and whether one has a wish, in one small sum."""
    own = torch.stack(list(losses)).double().mean((0, 1)) / role.part[1]  # [C own]
    square = squared_gradients(model.parameters()).double()
    sums = role.sum(torch.cat([square[None], own.new_tensor([wish]), role.spread(own)]))
    return Exchanged(sums[0].sqrt(), sums[1], sums[2:])


def update_weights(
    model: WeatherViT, optimizer: torch.optim.Optimizer, norm: Tensor, settings: TrainingConfig, step: int
) -> None:
    """Clip the gradients by their global norm and take optimizer step `step` (from 0)."""
    clip_gradients(model.parameters(), settings.clip_norm, norm)
    set_learning_rate(optimizer, learning_rate(step, settings))
    optimizer.step()
