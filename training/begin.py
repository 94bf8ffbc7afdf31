"""What training has before its first step: identity, samples, fields in memory, model, optimizer, or a checkpoint's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from weatherfm.device import choose_precision
from weatherfm.model.model import WeatherViT
from weatherfm.training.checkpoints.best_weights import bring_back_best
from weatherfm.training.checkpoints.checkpoint import Saved
from weatherfm.training.checkpoints.resume import agree_on_identity, forget_other_best
from weatherfm.training.checkpoints.state import Progress, TrainingState
from weatherfm.training.feeding.field_cache import choose_cache, keep_fields
from weatherfm.training.feeding.mixture import Mixture
from weatherfm.training.feeding.samples import training_samples
from weatherfm.training.parallel.build_model import build_model
from weatherfm.training.parallel.role import Role
from weatherfm.training.parts import Part
from weatherfm.training.ranks.coordination import Coordination
from weatherfm.training.ranks.job import Job
from weatherfm.training.starting.run_start import RunStart
from weatherfm.training.stepping.grounds import build_grounds, roles_of
from weatherfm.training.stepping.optimizer import build_optimizer
from weatherfm.training.stepping.step import Ground
from weatherfm.training.stepping.weight_average import WeightAverage
from weatherfm.training.upkeep.stop_signals import StopSignals

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Begun:
    """A run of this rank before its next step."""

    start: RunStart
    """The run and what it began with."""
    parts: list[Part]
    """Its stores, checked."""
    role: Role
    """What this rank does."""
    mixture: Mixture
    """Training batches of this rank."""
    state: TrainingState
    """Fresh or restored."""
    grounds: list[Ground]
    """What batches of each store are worked on with."""


def begin(
    start: RunStart,
    parts: list[Part],
    role: Role,
    device: torch.device,
    saved: Saved | None,
    job: Job,
    stop: StopSignals,
) -> tuple[Begun, dict[str, Any]]:
    """All that the first step needs; what can be refused is refused before the fields are read.

    Args:
        start: the run and what it begins with.
        parts: its stores, checked.
        role: of this rank.
        device: of this rank.
        saved: the checkpoint to go on from; None: from the beginning.
        job: told that this rank is alive.
        stop: asked now and then.

    Returns:
        That, and what a resumed run is compared with.

    Raises:
        StopRequest: on all ranks, when one of them was asked to stop.
    """
    config, settings, ranks = start.config, start.config.training, Coordination()
    dtype = choose_precision(settings.precision, device)

    def alive() -> None:
        job.beat()
        stop.heed()

    ranks.all_do(stop.heed)
    identity = agree_on_identity(config, parts, dtype, saved, alive, start.identity())
    finished = saved is not None and Progress(**saved.record["progress"]).is_finished(settings)
    mixture = feed(start, parts, role, device, alive, keep=not finished)
    ranks.all_do(stop.heed)
    for line in start.lines() if role.first and saved is None else ():
        _log.info("%s", line)
    fill = None if saved is not None else lambda model: start.fill(model, job.beat)
    state, grounds = assemble(start, parts, role, device, dtype, fill)
    if saved is not None:
        state.restore(saved)
        _log.info("going on from the checkpoint of step %d in %s", state.progress.step, config.folder)
        told = forget_other_best(state.progress, saved.record, identity), bring_back_best(config, state.progress)
        for text in filter(None, told):
            _log.info("%s", text)
    ranks.all_do(stop.heed)
    return Begun(start, parts, role, mixture, state, grounds), identity


def assemble(
    start: RunStart,
    parts: list[Part],
    role: Role,
    device: torch.device,
    dtype: torch.dtype,
    fill: Callable[[WeatherViT], None] | None,
) -> tuple[TrainingState, list[Ground]]:
    """All that changes, and what batches of each store are worked on with; asks no other rank.

    Args:
        start: the run and what it begins with.
        parts: its stores.
        role: of this rank.
        device: of this rank.
        dtype: of matrix products.
        fill: sets the weights; None: they are about to be restored.
    """
    config, settings = start.config, start.config.training
    model = build_model(config, start.domain, role, device, dtype, empty=True, known_blocks=start.known_blocks)
    start.freeze(model)
    if fill is not None:
        fill(model)
    average = WeightAverage(model, settings.ema_decay) if settings.ema_decay else None
    optimizer = build_optimizer(model, settings)
    rollout_steps = settings.rollout.most if settings.rollout else 0
    counts = len(role.channels), len(settings.lead_times)
    state = TrainingState(model, optimizer, average, *counts, rollout_steps, mixed=len(parts) > 1)
    return state, build_grounds(model, parts, start.domains, role, device)


def feed(
    start: RunStart, parts: list[Part], role: Role, device: torch.device, alive: Callable[[], None], keep: bool
) -> Mixture:
    """This rank's batches; with `keep`, what fields of them are kept in memory is read here, by all ranks together."""
    settings, loaders = start.config.training, []
    for part, own in zip(parts, roles_of(role, start.domains), strict=True):
        loaders.append(training_samples(part.config, part.store, device.type == "cuda", own.share, role.part))
        if not keep:
            continue
        cache = choose_cache(part.config, part.store, own.share.channels, role.part[1])
        _log.info("%s%s", f"{part.name}: " if part.name else "", cache.text)
        keep_fields(cache, part.store, own.share.channels, quiet=not role.first, alive=alive)
    return Mixture(loaders, [part.weight for part in parts], settings.seed, settings.steps * settings.accumulate)
