"""One optimizer step on this rank: gradients, the one small sum over ranks, the update.

Legend: S model step, B batch, C channel that comes out, L lead time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from weatherfm.model.model import WeatherViT
from weatherfm.training.feeding.ready_batches import ReadyBatch
from weatherfm.training.parallel.role import Role
from weatherfm.training.run_config import TrainingConfig
from weatherfm.training.stepping.loss import ForecastLoss
from weatherfm.training.stepping.optimizer import clip_gradients, learning_rate, set_learning_rate, squared_gradients
from weatherfm.training.stepping.rollout import step_losses


class Scored(NamedTuple):
    """The losses of a batch."""

    losses: Tensor
    """[B, C own] weighted, of own samples and channels; the mean over model steps."""
    lead_time_hours: Tensor
    """[B]."""
    by_step: Tensor
    """[S] mean over own samples and channels."""


class Exchanged(NamedTuple):
    """What all ranks know after their gradients are there."""

    gradient_norm: Tensor
    """Norm of all gradients of the whole model as one vector, a float64 scalar."""
    asked_to_stop: Tensor
    """How many ranks were asked to stop, a float64 scalar."""
    channel_loss: Tensor
    """[C] float64 mean weighted loss of every channel of the whole model."""
    lead_loss: Tensor
    """[2, L] float64: by lead time the sum of the samples' losses, and the number of samples; L 0 if not asked for."""
    step_loss: Tensor
    """[S] float64 mean weighted loss of every model step."""


def compute_gradients(
    model: WeatherViT,
    loss: ForecastLoss,
    batches: Iterable[ReadyBatch],
    count: int,
    role: Role,
    dtype: torch.dtype,
    read_inputs: bool = False,
) -> list[Scored]:
    """Gradients of the mean loss over `count` batches, which are taken one at a time: none is held when its turn ends.

    A rank's own loss is its part of a sum over channels; over samples FSDP takes the mean. Copies of the weights
    (`dp_replicate`) hear of the gradients with the last batch alone. `read_inputs` as of `step_losses`.
    """
    found: list[Scored] = []
    for ready in batches:
        if count > 1:
            _send_to_copies(model, len(found) == count - 1)
        losses = step_losses(model, loss, ready, dtype, read_inputs)  # [S, B, C own]
        (losses.sum() / (losses[:, :, 0].numel() * len(role.channels) * role.copies * count)).backward()
        losses = losses.detach()
        found.append(Scored(losses.mean(0), ready.batch.lead_time_hours, losses.mean((1, 2))))
        del ready, losses
    return found


def _send_to_copies(model: WeatherViT, wanted: bool) -> None:
    """Whether the next backward pass ends with the sum over copies of the weights; without it FSDP keeps its own."""
    if isinstance(model, FSDPModule):
        model.set_requires_all_reduce(wanted)


def _lead_losses(scored: Sequence[Scored], lead_times: Tensor, role: Role) -> Tensor:
    """This rank's part of `Exchanged.lead_loss`.

    A sample is counted by all ranks that score some of its channels, by each with its share of them.
    """
    total = torch.cat([one.losses for one in scored]).double().sum(1)  # [B]
    chosen = (torch.cat([one.lead_time_hours for one in scored])[:, None] == lead_times).double()  # [B, L]
    own = scored[0].losses.shape[1]
    return torch.stack([total @ chosen, chosen.sum(0) * own]) / (len(role.channels) * role.copies)


def exchange(
    model: WeatherViT, scored: Sequence[Scored], role: Role, asked_to_stop: bool, lead_times: Tensor | None = None
) -> Exchanged:
    """Tell all ranks the losses by channel, lead time and model step, the gradient norm and who was asked to stop.

    It is one small sum. Nothing here waits for the device, or copies to it: that would let its queue run dry in every
    step.
    """
    own = torch.stack([one.losses for one in scored]).double().mean((0, 1)) / role.part[1]  # [C own]
    square = squared_gradients(model.parameters()).double()
    leads = own.new_zeros(2, 0) if lead_times is None else _lead_losses(scored, lead_times, role)
    asked = own.new_full((1,), float(asked_to_stop))
    share = len(own) / (len(role.channels) * role.copies * role.part[1])
    steps = torch.stack([one.by_step for one in scored]).double().mean(0) * share  # [S]
    sums = role.sum(torch.cat([square[None], asked, role.spread(own), leads.flatten(), steps]))
    by_channel, by_lead, by_step = sums[2:].split([len(role.channels), leads.numel(), len(steps)])
    return Exchanged(sums[0].sqrt(), sums[1], by_channel, by_lead.view(2, -1), by_step)


def step_seed(seed: int, step: int, part: int = 0) -> int:
    """Seed of all random numbers of one optimizer step, for one part of the batch; neighbours are unrelated."""
    words = [seed, step, part] if part else [seed, step]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


def update_weights(
    model: WeatherViT, optimizer: torch.optim.Optimizer, norm: Tensor, settings: TrainingConfig, step: int
) -> None:
    """Clip the gradients by their global norm and take optimizer step `step` (from 0)."""
    clip_gradients(model.parameters(), settings.clip_norm, norm)
    set_learning_rate(optimizer, learning_rate(step, settings))
    optimizer.step()
