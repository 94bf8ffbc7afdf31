"""A broken run goes on bit for bit, whatever came before the checkpoint: validation, average, export, any layout."""

from __future__ import annotations

from pathlib import Path

import kill_train
import pytest
import torch
import toy_run
from spawn_ranks import spawn
from test_train_layouts import ALONE, BOTH, COPIES, SHARD, TP, train_here

from weatherfm.training.checkpoints.checkpoint import newest

REPLICATE = {"dp_shard": 1, "dp_replicate": 2}
LAYOUTS = {"alone": ALONE, "tp": TP, "shard": SHARD, "replicate": REPLICATE, "both": BOTH, "copies": COPIES}
DETOURS: dict[str, dict] = {  # what happens between steps, before or with a checkpoint
    "validation": {"validate_every": 1},
    "validation-export": {"validate_every": 2, "export": "best"},
}
PLAIN = {"steps": 3, "checkpoint_every": 2, "log_every": 1, "validate_every": 100}


def decays(name: str) -> tuple[float, ...]:
    """With an average of the weights, which holds all that a run without it has; on one device also without."""
    return (0.0, 0.9) if name == "alone" else (0.9,)


def go(rank: int, folder: Path, name: str, layout: dict) -> None:
    for decay in decays(name):
        train_here(folder, f"{name}-{decay}", layout, **PLAIN, ema_decay=decay)
        for detour, training in DETOURS.items():
            for stop_after in (2, None):
                settings = PLAIN | training | {"ema_decay": decay}
                train_here(folder, f"{name}-{decay}-{detour}", layout, stop_after, **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    toy_run.make_store(folder)
    return folder


@pytest.mark.parametrize(
    "name",
    ["alone", "tp", "shard", *(pytest.param(name, marks=pytest.mark.slow) for name in ("replicate", "both", "copies"))],
)
def test_a_broken_run_goes_on_from_a_whole_checkpoint(folder, name):
    layout = LAYOUTS[name]
    ranks = layout.get("tp", 1) * layout.get("dp_shard", 1) * layout.get("dp_replicate", 1)
    if ranks == 1:
        go(0, folder, name, layout)
    else:
        spawn(ranks, go, folder, name, layout)
    for decay in decays(name):
        whole = kill_train.saved_tensors(newest(folder / f"{name}-{decay}/checkpoints"))
        kinds = ("model.", "optimizer.exp_avg.", "optimizer.exp_avg_sq.", *(("average.",) if decay else ()))
        held = [{key.removeprefix(kind) for key in whole if key.startswith(kind)} for kind in kinds]
        assert all(names == held[0] for names in held)
        for detour in DETOURS:
            broken = kill_train.saved_tensors(newest(folder / f"{name}-{decay}-{detour}/checkpoints"))
            assert broken.keys() == whole.keys()
            assert all(torch.equal(broken[key], value) for key, value in whole.items()), (decay, detour)


COOLING = PLAIN | {"schedule": "constant_cooldown", "warmup_steps": 1, "cooldown_steps": 2, "validate_every": 1}


def prolong(rank: int, folder: Path, name: str, layout: dict) -> None:
    for run, steps in (("planned", 8), ("prolonged", 5), ("prolonged", 8)):
        train_here(folder, f"{run}-{name}", layout, **(COOLING | {"steps": steps, "export": "best"}))


@pytest.mark.parametrize("name", ["tp", "shard"])
def test_a_prolonged_run_is_the_one_that_was_planned(folder, name):
    spawn(2, prolong, folder, name, LAYOUTS[name])
    planned, prolonged = (kill_train.result(folder / f"{run}-{name}") for run in ("planned", "prolonged"))
    assert prolonged == planned
