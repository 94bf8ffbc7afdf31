"""Every way in which so many devices can train a model, each simulated."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import torch
from tqdm import tqdm

from weatherfm.earth.domain import Domain
from weatherfm.errors import InputError, OutsideError
from weatherfm.model.aggregation import AggregationConfig
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.backbone_config import is_own
from weatherfm.model.share import channel_groups
from weatherfm.training.parallel.layout import Layout, feasible_layouts, layout_problems
from weatherfm.training.plan.machine import GB, Machine, Seconds
from weatherfm.training.plan.memory_formula import expected_peak
from weatherfm.training.plan.simulated_rank import simulate
from weatherfm.training.plan.step_count import StepCount
from weatherfm.training.run_config import RunConfig

CHECKPOINTING = ("none", "selective", "block")
ALONE = "tp alone"
"""Tensor parallelism without splitting channels, over tokens: what other codes do, to compare with."""


@dataclass(frozen=True)
class Choice:
    """One way to train a model."""

    form: str
    """How channels are aggregated; `tp alone`: as tensor parallelism without splitting channels does it."""
    layout: Layout
    config: RunConfig
    """With this layout, form and checkpointing."""

    @property
    def checkpointing(self) -> str:
        """none, selective or block."""
        return self.config.parallel.activation_checkpointing


@dataclass(frozen=True)
class Candidate:
    """A choice, and what a step costs."""

    choice: Choice
    count: StepCount
    expected: float | None
    """Peak memory by formula, bytes, as a check; None where the backbone is the user's own."""
    seconds: Seconds
    fits: bool

    @property
    def alone(self) -> bool:
        """Whether channels are not split."""
        return self.choice.form == ALONE


def forms(model: ModelConfig, mixed: bool = False) -> dict[str, tuple[AggregationConfig, str]]:
    """Aggregations to compare by name, each with `parallel.channels`: as configured, flat and folded, tokens
    alone, where not several stores are `mixed`, for which channels must be split."""
    given, small = model.aggregation, {"block_mib": model.aggregation.block_mib}
    alone = {} if mixed else {ALONE: (AggregationConfig(evaluate="tokens", **small), "whole")}
    return {form_name(given): (given, "split"), "flat": (AggregationConfig(**small), "split"), **alone}


def form_name(aggregation: AggregationConfig) -> str:
    """A few words for a table, as `flat` or `linear x8 tokens`."""
    name = "flat" if aggregation.kind == "flat" else f"{aggregation.local} x{aggregation.groups}"
    name += f" tree {aggregation.tree}" if aggregation.tree > 1 else ""
    return name if aggregation.evaluate == "folded" else f"{name} tokens"


def choices(config: RunConfig, domain: Domain, devices: int) -> list[Choice]:
    """All of them.

    Raises:
        InputError: none works with channels split, with the reasons.
    """
    channel_groups(config.model, domain)  # refuses groups that do not exist
    found = list(_choices(config, domain, devices))
    if all(choice.form == ALONE for choice in found):
        reasons = {
            problem
            for tp in _powers_of_two(devices)
            for problem in layout_problems(
                Layout(1, devices // tp, tp), config.parallel, config.model, domain, config.training.batch_size
            )
        }
        raise InputError(
            f"no layout of {devices} devices can train this model:\n  " + "\n  ".join(sorted(reasons)[:6]) + "\n  "
            "choose another number of devices, or a training.batch_size that is a multiple of it"
        )
    return found


def _choices(config: RunConfig, domain: Domain, devices: int) -> Iterator[Choice]:
    for form, (aggregation, channels) in forms(config.model, bool(domain.stores)).items():
        for mode in CHECKPOINTING:
            model = config.model.model_copy(update={"aggregation": aggregation})
            settings = {"channels": channels, "activation_checkpointing": mode}
            parallel = config.parallel.model_copy(update=settings)
            for layout in feasible_layouts(devices, parallel, model, domain, config.training.batch_size):
                sizes = {"tp": layout.tp, "dp_shard": layout.dp_shard, "dp_replicate": layout.dp_replicate}
                changed = {"model": model, "parallel": parallel.model_copy(update=sizes)}
                yield Choice(form, layout, config.model_copy(update=changed))


def evaluate(
    found: Iterable[Choice], domain: Domain, machine: Machine, dtype: torch.dtype, jobs: int | None = None
) -> list[Candidate]:
    """Simulate every choice, several at a time (`jobs` processes; by default one a core)."""
    found, jobs = list(found), jobs or os.cpu_count() or 1
    count = partial(_count, domain=domain, machine=machine, dtype=dtype)
    bar = partial(tqdm, total=len(found), desc="layouts", unit="", disable=None, leave=False)
    if min(jobs, len(found)) == 1:
        return list(bar(map(count, found)))
    with ProcessPoolExecutor(min(jobs, len(found)), mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        try:
            return list(bar(pool.map(count, found, chunksize=2)))
        except BrokenProcessPool:
            raise OutsideError(
                "processes that simulate ended at once or were killed, perhaps for memory; take fewer (jobs=1), and in "
                "a script call this under `if __name__ == '__main__':`"
            ) from None


def _count(choice: Choice, domain: Domain, machine: Machine, dtype: torch.dtype) -> Candidate:
    count = simulate(choice.config, domain, choice.layout, dtype)
    known = not is_own(choice.config.model.backbone)
    expected = expected_peak(choice.config, domain, choice.layout, dtype) if known else None
    return Candidate(choice, count, expected, machine.seconds(choice.layout, count), count.peak / GB <= machine.usable)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _powers_of_two(devices: int) -> list[int]:
    return [2**i for i in range(devices.bit_length()) if devices % 2**i == 0]
