"""One training step of one rank, counted: the trainer's own functions, on real tensors or simulated ones."""

from __future__ import annotations

from itertools import cycle, islice

import numpy as np
import torch

from weatherfm.data_pipeline.loader import Batch
from weatherfm.earth.domain import Domain
from weatherfm.model.data_view import view_of
from weatherfm.model.model import WeatherViT
from weatherfm.training.feeding.ready_batches import ReadyBatch
from weatherfm.training.parallel.role import Role
from weatherfm.training.parts import model_of
from weatherfm.training.plan.counter import Moment, counting
from weatherfm.training.plan.model_parts import telling
from weatherfm.training.plan.step_count import StepCount
from weatherfm.training.plan.traffic import axis_names
from weatherfm.training.run_config import RunConfig
from weatherfm.training.stepping.objective import loss_of
from weatherfm.training.stepping.optimizer import build_optimizer
from weatherfm.training.stepping.step import Ground, compute_gradients, exchange, update_weights
from weatherfm.training.stepping.weight_average import WeightAverage


def planned_ground(
    config: RunConfig, model: WeatherViT, domain: Domain, role: Role, device: torch.device | str
) -> Ground:
    """What the step is counted on: all channels, or, of a mix, those of its first store.

    Args:
        config: of the run.
        model: of the rank.
        domain: of the whole model.
        role: of the rank.
        device: where the model is.
    """
    view, architecture = None, config.model
    if domain.stores:
        domain, architecture = (
            domain.restricted(domain.stores[0], domain.static_names),
            model_of(config, domain.stores[0]),
        )
        role = role.on(domain)
        view = view_of(model, architecture, domain, role.share, torch.device(device))
    return Ground(loss_of(config.training, architecture, domain, role.share).to(device), role, view)


def count_step(config: RunConfig, model: WeatherViT, ground: Ground, dtype: torch.dtype) -> StepCount:
    """Take one optimizer step of this rank and count it, with all that training holds beside it.

    Args:
        config: of the run.
        model: of the rank, parallelised; its weights move by one step.
        ground: what it is counted on.
        dtype: of matrix products.
    """
    settings, role = config.training, ground.role
    ground.enter(model)
    model.train()
    with counting(axis_names(role.mesh)) as counter, telling(model, counter):
        counter.hold("parameters", model.parameters())
        optimizer = build_optimizer(model, settings)
        states = [value for state in optimizer.state.values() for value in state.values()]
        counter.hold("optimizer", states)
        average = WeightAverage(model, settings.ema_decay) if settings.ema_decay else None
        counter.hold("average", average.values.values() if average else [])
        batches = [made_up_batch(config, model, role) for _ in range(2)]  # the one at work, and one read ahead
        counter.hold("batches", [tensor for batch in batches for tensor in batch.tensors])
        counter.hold("buffers", [*model.buffers(), *ground.loss.buffers()])

        counter.moment = Moment("forward", "other")
        count = settings.accumulate
        scored = compute_gradients(model, [ground], islice(cycle(batches), count), count, dtype)
        counter.moment = Moment("update", "other")
        counter.hold("gradients", [p.grad for p in model.parameters() if p.grad is not None])
        exchanged = exchange(model, scored, role, asked_to_stop=False)
        update_weights(model, optimizer, exchanged.gradient_norm, settings, step=0)
        if average is not None:
            average.update(model, 1)
        return StepCount.of(counter)


def made_up_batch(config: RunConfig, model: WeatherViT, role: Role) -> ReadyBatch:
    """A batch of zeros of the shapes that this rank reads, with as many successive targets as a sample ever has."""
    size = config.training.batch_size // role.part[1]
    shape = (len(model.domain.channels), *model.domain.grid.shape)
    history = torch.zeros(size, len(config.model.input_times), *shape, device=model.mean.device)
    visible = None
    if config.model.reconstruction is not None:
        seen = config.model.reconstruction.visible(model.tokens[0] * model.tokens[1])
        visible = torch.arange(seen, device=history.device).expand(size, -1).contiguous()
    target = torch.zeros(size if visible is None else 0, *shape, device=history.device)
    forcings = torch.zeros(size, len(model.forcings), *shape[1:], device=history.device)
    leads = torch.full((size,), 24, device=history.device)
    condition = torch.zeros(size, len(model.conditions), device=history.device)
    present = None
    if config.training.channel_sampling is not None:
        inputs = len(model.share.input_names(config.model.input_times))
        present = torch.ones(size, inputs, dtype=torch.bool, device=history.device)
    more = max(config.training.model_steps.values()) - 1
    noise = None
    if config.model.noise:
        rows = size * config.training.members
        noise = torch.zeros(1 + more, rows, config.model.noise, device=history.device)
    if not more:
        batch = Batch(history, target, np.zeros(size), leads)
        return ReadyBatch(batch, forcings, condition, present, noise=noise, visible=visible)
    further = [torch.zeros(more, *x.shape, device=history.device) for x in (target, forcings, condition)]
    batch = Batch(history, target, np.zeros(size), leads, further[0])
    return ReadyBatch(batch, forcings, condition, present, None, further[1], further[2], noise)
