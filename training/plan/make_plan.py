"""The plan of a run: every layout, the one to take, and what it saves against tensor parallelism alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import regular_grid
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError
from weatherfm.home import expanded
from weatherfm.training.parallel.own_backbone_trial import try_backbones
from weatherfm.training.parts import Part, joint_domain, open_parts
from weatherfm.training.plan.candidates import CHECKPOINTING, Candidate, choices, evaluate, form_name
from weatherfm.training.plan.machine import GB, Machine, Training
from weatherfm.training.run_config import RunConfig

_FINEST = 40_000
"""Columns of a grid with a point every kilometre of the equator."""
_STATE = ("parameters", "gradients", "optimizer", "average")


@dataclass(frozen=True)
class Plan:
    """All candidates, and what follows from them."""

    config: RunConfig
    domain: Domain
    machine: Machine
    dtype: torch.dtype
    candidates: list[Candidate]
    training: Training

    @cached_property
    def recommended(self) -> Candidate:
        """The fastest that fits of the form configured, or, where that fits nowhere, of the flat one.

        Of equals (1 %) that with least checkpointing, then least memory: norms and the like that are made again cost
        time, which the model of time does not count.
        """
        fitting = [c for c in self.candidates if c.fits and not c.alone]
        configured = form_name(self.config.model.aggregation)
        pool = [c for c in fitting if c.choice.form == configured] or fitting
        best = min(c.seconds.total for c in pool)
        equals = [c for c in pool if c.seconds.total <= 1.01 * best]
        return min(equals, key=lambda c: (CHECKPOINTING.index(c.choice.checkpointing), c.count.peak))

    def alike(self, form: str) -> Candidate | None:
        """Another form on the recommended layout, checkpointing the same; None where it cannot be."""
        best = self.recommended.choice
        same = [c for c in self.candidates if c.choice.form == form and c.choice.layout == best.layout]
        return next((c for c in same if c.choice.checkpointing == best.checkpointing), None)

    @cached_property
    def alone_best(self) -> Candidate | None:
        """The fastest that fits of tensor parallelism alone; None where none does."""
        fitting = [c for c in self.candidates if c.alone and c.fits]
        return min(fitting, key=lambda c: c.seconds.total, default=None)

    @cached_property
    def alone_least(self) -> Candidate | None:
        """Of tensor parallelism alone that which holds least."""
        return min((c for c in self.candidates if c.alone), key=lambda c: c.count.peak, default=None)

    @property
    def samples(self) -> float:
        """That the whole training sees: those asked for, or of the run's own steps."""
        settings = self.config.training
        own = settings.steps * settings.batch_size * settings.accumulate
        return own if self.training.samples is None else self.training.samples

    def hours(self, candidate: Candidate) -> float:
        """Of the whole training."""
        settings = self.config.training
        steps = self.samples / (settings.batch_size * settings.accumulate)
        return steps * candidate.seconds.total / 3600

    def gpu_hours(self, candidate: Candidate) -> float:
        """Device hours of the whole training."""
        return self.hours(candidate) * self.machine.devices

    def cost(self, candidate: Candidate) -> float | None:
        """Money for the whole training; None where the price is not known."""
        price = self.training.price_per_gpu_hour
        return None if price is None else self.gpu_hours(candidate) * price

    def energy(self, candidate: Candidate) -> float | None:
        """kWh for the whole training; None where it is not known what a device draws."""
        watts = self.training.watts
        return None if watts is None else self.gpu_hours(candidate) * watts / 1000


def make_plan(
    config: RunConfig,
    domain: Domain,
    machine: Machine,
    training: Training,
    jobs: int | None = None,
) -> Plan:
    """Simulate every feasible layout of a run.

    Args:
        config: of the run; its batch_size stays the batch over all devices, its `parallel` is not asked.
        domain: of the model (`plan_domain`).
        machine: what there is.
        training: the whole of it, for hours and money.
        jobs: processes that simulate; by default one a core.

    Raises:
        InputError: no layout can train the model, or none fits, with what would help; a backbone of the user's own that
            cannot be had or does not do what it has to.
    """
    try_backbones([(config.model, domain)])
    dtype = torch.float32 if config.training.precision == "float32" else torch.bfloat16
    found = evaluate(choices(config, domain, machine.devices), domain, machine, dtype, jobs)
    if not any(c.fits and not c.alone for c in found):
        raise InputError(_nothing_fits(found, machine))
    return Plan(config, domain, machine, dtype, found, training)


def plan_domain(config: RunConfig, grid: str | None) -> Domain:
    """The domain of a run: from its store, or, where that is not prepared yet, from its channels and a grid.

    Which channels have masks only a store knows: without one, those that may have get one constant field for it. Of
    several stores (`data.mix`) steps of the one that takes most are planned.

    Args:
        config: of the run.
        grid: `128x256` (lat x lon); None: as in the store.

    Raises:
        InputError: neither store nor grid, or a grid that cannot be read.
    """
    if grid is None:
        if not expanded(config.data.store).exists():
            raise InputError(
                f"there is no store {config.data.store} to take the grid from; prepare it, or give --grid, e.g. 32x64"
            )
        return _prepared_domain(config)
    match = re.fullmatch(r"(\d+)x(\d+)", grid.strip())
    if match is None or min(int(match[1]), int(match[2])) < 2:
        raise InputError(f"--grid {grid!r} cannot be read; write latitudes x longitudes, e.g. 128x256")
    shape = int(match[1]), int(match[2])
    if max(shape) > _FINEST:
        raise InputError(f"--grid {grid} is finer than a kilometre; give {_FINEST} rows and columns at most")
    ones, static = np.ones(len(config.data.channels)), tuple(map(str, config.data.static))
    static += ("mask",) if any(parse_channel(name).variable.masked for name in config.data.channels) else ()
    fields = np.zeros((len(static), *shape), np.float32)
    return Domain(tuple(config.data.channels), regular_grid(shape), ones, ones, ones, static, fields)


def _prepared_domain(config: RunConfig) -> Domain:
    """Of a mix on the grid of the store whose steps take most, which then is its first."""

    def size(part: Part) -> int:
        return len(part.config.data.channels) * int(np.prod(part.store.grid.shape))

    parts = sorted(open_parts(config), key=size, reverse=True)
    return joint_domain(config, parts, [part.domain for part in parts])


def _nothing_fits(found: list[Candidate], machine: Machine) -> str:
    least = min((c for c in found if not c.alone), key=lambda c: c.count.peak)
    uses = least.count.at_peak
    state = sum(size for use, size in uses.items() if use.kind in _STATE)
    front = sum(size for use, size in uses.items() if use.part == "front")
    if state > least.count.peak / 2:
        help = f"most of that are weights, gradients and optimizer: split them over more devices than {machine.devices}"
        help += ", or make model.width or model.depth smaller"
    elif front > least.count.peak / 3:
        help = "most of that is the aggregation of channels: lower model.aggregation.block_mib"
        help += ", or training.batch_size (and raise training.accumulate)"
    else:
        help = "most of that are activations: lower training.batch_size (and raise training.accumulate)"
        help += ", or make model.patch_size larger"
    choice = least.choice
    return (
        f"no layout of {machine.devices} devices fits {machine.memory:g} GB ({machine.spare:.0%} of it left for what "
        f"is not counted); the smallest needs {least.count.peak / GB:.3g} GB ({choice.form}, {choice.layout}, "
        f"checkpointing {choice.checkpointing})\n  {help}"
    )
