"""The losses of a batch over successive steps of the model's own output; over one, where a batch has one target.

Legend: S model step, B batch, M member, T input time, C channel, O channel that comes out, H lat, W lon.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from weatherfm.device import autocast
from weatherfm.model.model import WeatherViT
from weatherfm.training.feeding.ready_batches import ReadyBatch
from weatherfm.training.stepping.loss import ForecastLoss


def step_losses(
    model: WeatherViT, loss: ForecastLoss, ready: ReadyBatch, dtype: torch.dtype, read_inputs: bool = False
) -> Tensor:
    """[S, B, O] weighted losses of a batch, float32 or better; the training loss is their mean.

    Every step takes the sample's lead time, and what it gives is the present state of the next one: gradients go
    through all of them. Channels that are inputs alone stay as they were, or with `read_inputs` are the targets'; those
    that a sample does not show stay absent. Members of a sample part with the first step.
    """
    batch, losses, members = ready.batch, [], ready.members
    leads = batch.lead_time_hours
    with autocast(batch.history.device, dtype):  # one for all steps: weights are rounded once
        history = model.normalize(batch.history)
        for step, target in enumerate(batch.targets):
            forcings, condition = ready.known(step)
            present = ready.present if step == 0 else _present_later(model, ready.present)
            known = [forcings, leads, present, condition]
            if step:
                known = [_of_members(x, members) for x in known]
            state, truth = model(history, *known, ready.noise_of(step)), model.normalize(target)
            losses.append(loss(state, truth, leads, model.known_outputs(present)))
            if step + 1 < len(batch.targets):
                history = _of_members(history, members) if step == 0 else history
                if read_inputs:
                    state = model.with_inputs_of(state, _of_members(truth, members))
                history = advanced(history, state, model.config.input_times)
    return torch.stack(losses)


@overload
def _of_members(x: Tensor, members: int) -> Tensor: ...
@overload
def _of_members(x: Tensor | None, members: int) -> Tensor | None: ...
def _of_members(x: Tensor | None, members: int) -> Tensor | None:
    """[B, ...] -> [B * M, ...]; None stays."""
    return x if x is None or members == 1 else x.repeat_interleave(members, 0)


def _present_later(model: WeatherViT, present: Tensor | None) -> Tensor | None:
    """[B, I] after the first step, when the model's own channels are there; None, on all ranks: everything is."""
    if present is None or model.config.outputs is None:
        return None
    share, later = model.share, present.clone()
    made = [name in share.outputs for name in share.inputs]  # the present state is the only one
    later[:, : len(made)] |= torch.tensor(made, device=later.device)
    return later


def advanced(history: Tensor, state: Tensor, input_times: Sequence[int]) -> Tensor:
    """Input states [B, T, C, H, W] a lead time later, when `state` [B, C, H, W] is the present one.

    What is the state of one input time now is then that of the one before: earlier input times are whole lead times
    back (`Rollout.require_states`).
    """
    descending = sorted(input_times, reverse=True)
    before = {hours: descending[i - 1] for i, hours in enumerate(descending) if hours}
    places = [None if hours == 0 else input_times.index(before[hours]) for hours in input_times]
    states = [state.to(history.dtype) if place is None else history[:, place] for place in places]
    return torch.stack(states, dim=1)
