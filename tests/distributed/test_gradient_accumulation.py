"""Several batches a step: the same function on every layout, one batch in memory, gradients sent to copies once."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import test_plan_against_ranks as ranks_that_run
import test_train_layouts as layouts
import torch
import toy_run
from spawn_ranks import spawn

from weatherfm.config import parse_settings
from weatherfm.training.feeding import ready_batches
from weatherfm.training.parallel.build_model import build_model
from weatherfm.training.parallel.layout import Layout
from weatherfm.training.parallel.mesh import build_mesh
from weatherfm.training.parallel.role import find_role
from weatherfm.training.plan.rank_step import count_step
from weatherfm.training.plan.simulated_rank import simulate
from weatherfm.training.plan.step_count import StepCount
from weatherfm.training.run_config import RunConfig
from weatherfm.training.stepping.loss import forecast_loss
from weatherfm.training.stepping.step import Ground
from weatherfm.training.trainer import train

ACCUMULATE = {"accumulate": 3, "steps": 4, "validate_every": 2, "rollout": {"steps": {0: 1, 2: 2}}}
"""The last two steps take two model steps a sample, whose gradients come to a weight one after the other."""


def train_on(rank: int, folder: Path, runs: list[tuple[str, dict]]) -> None:
    for run, layout in runs:
        layouts.train_here(folder, run, layout, **ACCUMULATE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("accumulation")
    toy_run.make_store(folder)
    train_on(0, folder, [("alone", layouts.ALONE)])
    return folder


def test_two_ranks_learn_what_one_does(folder):
    runs = [("shard", layouts.SHARD), ("tp", layouts.TP), ("replicate", {"dp_shard": 1, "dp_replicate": 2})]
    spawn(2, train_on, folder, runs)
    for run, _ in runs:
        layouts.assert_same_function(folder, run)


@pytest.mark.slow
def test_so_do_copies_of_what_is_split(folder):
    runs = [("copies", layouts.COPIES), ("hybrid", {"dp_shard": 2, "dp_replicate": 2})]
    spawn(4, train_on, folder, runs)
    for run, _ in runs:
        layouts.assert_same_function(folder, run)


def sent_to_copies(count: StepCount) -> float:
    return sum(size for (_, axis, _), size in count.sent.items() if axis == "dp_replicate")


def accumulating(accumulate: int) -> RunConfig:
    plain = ranks_that_run.make_config("flat", "none").model_dump(mode="json")
    plain["training"]["accumulate"] = accumulate
    return parse_settings(RunConfig, plain, "test")


def count_on(rank: int, layout: Layout) -> list[StepCount]:
    counts = []
    mesh, domain = build_mesh(layout, "cpu"), ranks_that_run.make_domain()
    for accumulate in (1, 2, 4):
        config = accumulating(accumulate)
        role = find_role(config.parallel, config.model, domain, mesh)
        model = build_model(config, domain, role, torch.device("cpu"), torch.float32)
        loss = forecast_loss(config.model, domain, {}, None, role.share)
        counts.append(count_step(config, model, Ground(loss, role), torch.float32))
    return counts


def test_gradients_cross_copies_once_a_step():
    """Also in the plan, which knows three batches and more from two."""
    layout = Layout(2, 1, 1)
    for counts in spawn(2, count_on, layout):
        assert sent_to_copies(counts[0]) > 0
        assert [sent_to_copies(count) for count in counts] == [sent_to_copies(counts[0])] * 3
        assert counts[2].peak <= counts[1].peak * 1.01  # not a batch more
    for accumulate in (1, 2, 4):
        planned = simulate(accumulating(accumulate), ranks_that_run.make_domain(), layout, torch.float32)
        assert sent_to_copies(planned) == sent_to_copies(counts[0])


def test_one_batch_at_work_and_one_read_ahead_are_in_memory(folder, monkeypatch):
    alive: weakref.WeakSet = weakref.WeakSet()
    most = [0]
    make_ready = ready_batches.make_ready

    class Watched(ready_batches.ReadyBatch):
        pass

    def watched(*arguments):
        ready = make_ready(*arguments)
        held = Watched(ready.batch, ready.forcings)
        alive.add(held)
        most[0] = max(most[0], len(alive))
        return held

    monkeypatch.setattr(ready_batches, "make_ready", watched)
    train(toy_run.make_run(folder, "memory", steps=3, accumulate=5, validate_every=100, cache="off"))
    assert most[0] == 2
