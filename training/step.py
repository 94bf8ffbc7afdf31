"""One optimizer step on this rank: gradients, the one small sum over ranks, the update.

Legend: B batch, C channel, L lead time.
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
    lead_loss: Tensor
    """[2, L] float64: by lead time the sum of the samples' losses, and the number of samples; L 0 if not asked for."""


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


def lead_losses(losses: Sequence[Tensor], leads: Sequence[Tensor], lead_times: Tensor, role: Role) -> Tensor:
    """This rank's part of `Exchanged.lead_loss`, from the [B, C own] losses and [B] lead times of each batch.

    A sample is counted by all ranks that score some of its channels, by each with its share of them.
    """
    total = torch.cat(list(losses)).double().sum(1)  # [B]
    chosen = (torch.cat(list(leads))[:, None] == lead_times).double()  # [B, L]
    own = losses[0].shape[1]
    return torch.stack([total @ chosen, chosen.sum(0) * own]) / (len(role.channels) * role.copies)


def exchange(
    model: WeatherViT, losses: Sequence[Tensor], role: Role, wish: bool, by_lead: Tensor | None = None
) -> Exchanged:
    """Tell all ranks the loss of every channel and lead time, the gradient norm and wishes, in one small sum."""
    own = torch.stack(list(losses)).double().mean((0, 1)) / role.part[1]  # [C own]
    square = squared_gradients(model.parameters()).double()
    leads = own.new_zeros(2, 0) if by_lead is None else by_lead
    sums = role.sum(torch.cat([square[None], own.new_tensor([wish]), role.spread(own), leads.flatten()]))
    rest = sums[2:]
    return Exchanged(sums[0].sqrt(), sums[1], rest[: len(role.channels)], rest[len(role.channels) :].view(2, -1))


def update_weights(
    model: WeatherViT, optimizer: torch.optim.Optimizer, norm: Tensor, settings: TrainingConfig, step: int
) -> None:
    """Clip the gradients by their global norm and take optimizer step `step` (from 0)."""
    clip_gradients(model.parameters(), settings.clip_norm, norm)
    set_learning_rate(optimizer, learning_rate(step, settings))
    optimizer.step()
