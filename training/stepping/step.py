"""One optimizer step on this rank: gradients, the one small sum over ranks, the update.

Legend: S model step, B batch, C channel that comes out, L lead time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from weatherfm.model.data_view import DataView, look_at
from weatherfm.model.model import WeatherViT
from weatherfm.training.feeding.ready_batches import ReadyBatch
from weatherfm.training.parallel.role import Role
from weatherfm.training.run_config import TrainingConfig
from weatherfm.training.stepping.objective import Loss, batch_losses
from weatherfm.training.stepping.optimizer import clip_gradients, learning_rate, set_learning_rate, squared_gradients


@dataclass(frozen=True, eq=False)
class Ground:
    """What batches of one store are worked on with."""

    loss: Loss
    role: Role
    view: DataView | None = None
    """How the model is on these data; None: as it was built."""

    def enter(self, model: WeatherViT) -> None:
        """Let the model be on these data."""
        if self.view is not None:
            look_at(model, self.view)

    def to_empty(self, device: str) -> None:
        """Of one on the meta device, what it holds on another, without values; in place."""
        self.loss.to_empty(device=device)
        if self.view is not None:
            self.view.built.to_empty(device=device)
            rows = self.view.rows
            rows |= {part: None if own is None else torch.empty_like(own, device=device) for part, own in rows.items()}


class Scored(NamedTuple):
    """The losses of a batch."""

    losses: Tensor
    """[B, C own] weighted, of own samples and channels; the mean over model steps."""
    lead_time_hours: Tensor
    """[B]."""
    by_step: Tensor
    """[S] own samples' and channels' part of the mean over all."""
    role: Role
    """Of this rank on these data."""


class Exchanged(NamedTuple):
    """What all ranks know after their gradients are there."""

    gradient_norm: Tensor
    """Norm of all gradients of the whole model as one vector, a float64 scalar."""
    asked_to_stop: Tensor
    """How many ranks were asked to stop, a float64 scalar."""
    channel_loss: Tensor
    """[C] float64 mean weighted loss of every channel of the whole model; not a number for one that no batch had."""
    lead_loss: Tensor
    """[2, L] float64: by lead time the sum of the samples' losses, and the number of samples; L 0 if not asked for."""
    step_loss: Tensor
    """[S] float64 mean weighted loss of every model step."""


def compute_gradients(
    model: WeatherViT,
    grounds: Sequence[Ground],
    batches: Iterable[ReadyBatch],
    count: int,
    dtype: torch.dtype,
    read_inputs: bool = False,
) -> list[Scored]:
    """Gradients of the mean loss over `count` batches, which are taken one at a time: none is held when its turn ends.

    A rank's own loss is its part of a sum over channels; over samples FSDP takes the mean. Copies of the weights
    (`dp_replicate`) hear of the gradients with the last batch alone. `grounds`: by the number of a batch's store.
    `read_inputs` as of `step_losses`.
    """
    found: list[Scored] = []
    for ready in batches:
        if count > 1:
            _send_to_copies(model, len(found) == count - 1)
        ground = grounds[ready.batch.store]
        ground.enter(model)
        role = ground.role
        losses = batch_losses(model, ground.loss, ready, dtype, read_inputs)  # [S, B, C own]
        steps, samples, _ = losses.shape
        every = samples * len(role.among.outputs) * role.copies
        (losses.sum() / (steps * every * count)).backward()
        losses = losses.detach()
        found.append(Scored(losses.mean(0), ready.batch.lead_time_hours, losses.sum((1, 2)) / every, role))
        del ready, losses
    return found


def _send_to_copies(model: WeatherViT, wanted: bool) -> None:
    """Whether the next backward pass ends with the sum over copies of the weights; without it FSDP keeps its own."""
    if isinstance(model, FSDPModule):
        model.set_requires_all_reduce(wanted)


def _lead_losses(one: Scored, lead_times: Tensor) -> Tensor:
    """This rank's part of `Exchanged.lead_loss` in one batch.

    A sample is counted by all ranks that score some of its channels, by each with its share of them.
    """
    total = one.losses.double().sum(1)  # [B]
    chosen = (one.lead_time_hours[:, None] == lead_times).double()  # [B, L]
    own, every = one.losses.shape[1], len(one.role.among.outputs) * one.role.copies
    return torch.stack([total @ chosen, chosen.sum(0) * own]) / every


def exchange(
    model: WeatherViT, scored: Sequence[Scored], role: Role, asked_to_stop: bool, lead_times: Tensor | None = None
) -> Exchanged:
    """Tell all ranks the losses by channel, lead time and model step, the gradient norm and who was asked to stop.

    It is one small sum. Nothing here waits for the device, or copies to it: that would let its queue run dry in every
    step.
    """
    square = squared_gradients(model.parameters()).double()
    parts = [one.role.spread(one.losses.double().mean(0)) for one in scored]  # [C] each
    own = torch.stack(parts).sum(0) / role.part[1]
    leads = own.new_zeros(2, 0)
    if lead_times is not None:
        leads = torch.stack([_lead_losses(one, lead_times) for one in scored]).sum(0)
    asked = own.new_full((1,), float(asked_to_stop))
    steps = torch.stack([one.by_step for one in scored]).double().mean(0) / role.part[1]  # [S]
    sums = role.sum(torch.cat([square[None], asked, own, leads.flatten(), steps]))
    by_channel, by_lead, by_step = sums[2:].split([len(role.channels), leads.numel(), len(steps)])
    batches = [sum(name in one.role.among.outputs for one in scored) for name in role.channels]
    if len(set(batches)) == 1:
        by_channel = by_channel / batches[0]
    else:  # not a number for a channel that no batch had
        by_channel = by_channel / torch.tensor(batches, dtype=by_channel.dtype).to(by_channel.device, non_blocking=True)
    return Exchanged(sums[0].sqrt(), sums[1], by_channel, by_lead.view(2, -1), by_step)


def step_seed(seed: int, step: int, part: int = 0) -> int:
    """Seed of all random numbers of one optimizer step, for one part of the batch; neighbours are unrelated."""
    words = [seed, step, part] if part else [seed, step]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


def update_weights(
    model: WeatherViT,
    optimizer: torch.optim.Optimizer,
    norm: Tensor,
    settings: TrainingConfig,
    step: int,
    untouched: AbstractContextManager[None] | None = None,
) -> None:
    """Clip the gradients by their global norm and take optimizer step `step` (from 0); `untouched` keeps rows through
    it (`UntouchedRows`)."""
    clip_gradients(model.parameters(), settings.clip_norm, norm)
    set_learning_rate(optimizer, learning_rate(step, settings))
    with untouched or nullcontext():
        optimizer.step()
