"""Whole runs on several ranks: the loss curve of one process, also when going on from another layout's checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import toy_run
from safetensors.torch import load_file
from spawn_ranks import spawn

from weatherfm.config import parse_settings
from weatherfm.data_pipeline import loader
from weatherfm.training import trainer
from weatherfm.training.run_config import RunConfig

ALONE: dict = {}
TP: dict = {"tp": 2}
SHARD: dict = {"dp_shard": 2}
BOTH: dict = {"tp": 2, "dp_shard": 2}
COPIES: dict = {"tp": 2, "dp_replicate": 2}
BACKBONES = {
    "windows": {"width": 16, "heads": 2, "depth": 2, "drop_path": 0.0, "patch_size": 1}
    | {"backbone": "windows", "windows": {"size": 3}},
    "own": {"width": 16, "heads": 2, "depth": 1, "patch_size": 2, "conditioning": "adaln"}
    | {"backbone": "own_backbones:Layers"},
}
"""Models of runs whose names begin so."""
SHORT = {"steps": 12, "validate_every": 4, "checkpoint_every": 5, "log_every": 1, "validation_samples": 5}


class StopAfter:
    """A signal that comes in a certain step."""

    steps: int | None = None

    def __init__(self) -> None:
        self.asked = 0

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        return None

    def heed(self) -> None:
        """It comes in no moment before the first step."""

    @property
    def received(self) -> str | None:
        self.asked += 1  # once a step
        return "SIGTERM" if self.steps and self.asked >= self.steps else None


def settings(folder: Path, run: str, layout: dict, **training) -> dict:
    plain = toy_run.run_settings(folder, run, **(SHORT | training))
    plain["model"] |= {"dropout": 0.0, "drop_path": 0.0}  # random numbers differ between layouts
    plain["model"] = BACKBONES.get(run.partition("-")[0], plain["model"])
    if run.startswith("masked"):
        plain["model"] |= {"reconstruction": {"mask_ratio": 0.5, "depth": 1, "width": 8}}
        plain["training"] = {key: value for key, value in plain["training"].items() if key != "lead_times"}
        plain["training"] |= {"objective": "reconstruct", "channel_sampling": 0.7}
    return plain | {"parallel": layout}


def in_float64(batch: loader.Batch) -> loader.Batch:
    return replace(batch, history=batch.history.double(), target=batch.target.double())


def train_here(folder: Path, run: str, layout: dict, stop_after: int | None = None, **training) -> None:
    """In float64: in float32 Adam makes large steps of rounding, where a gradient is near zero."""
    StopAfter.steps = stop_after
    with pytest.MonkeyPatch.context() as patch:
        read = loader.read_batch
        patch.setattr(loader, "read_batch", lambda *arguments: in_float64(read(*arguments)))
        patch.setattr(trainer, "StopSignals", StopAfter)
        torch.set_default_dtype(torch.float64)
        try:
            trainer.train(parse_settings(RunConfig, settings(folder, run, layout, **training), "test"))
        finally:
            torch.set_default_dtype(torch.float32)


def on_rank(rank: int, folder: Path, legs: list[tuple[str, dict, int | None]]) -> None:
    for run, layout, stop_after in legs:
        train_here(folder, run, layout, stop_after)


def go(folder: Path, *legs: tuple[str, dict, int | None]) -> None:
    """Train one leg after another; all of one call on as many ranks."""
    layout = legs[0][1]
    ranks = layout.get("tp", 1) * layout.get("dp_shard", 1) * layout.get("dp_replicate", 1)
    if ranks == 1:
        on_rank(0, folder, list(legs))
    else:
        spawn(ranks, on_rank, folder, list(legs))


def curve(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = [line["loss"] for line in lines if "loss" in line]
    for line in lines:
        if "loss" in line:
            found += [line["gradient_norm"], *line["loss_by_channel"].values()]
        else:
            found += [line["validation"]["loss"], *(v for c in line["validation"]["rmse"].values() for v in c.values())]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store, and a run that one process trained without a break."""
    folder = tmp_path_factory.mktemp("layouts")
    toy_run.make_store(folder)
    go(folder, ("alone", ALONE, None))
    return folder


def assert_same_function(folder: Path, run: str, alone: str = "alone") -> None:
    assert curve(folder / run) == pytest.approx(curve(folder / alone), rel=1e-6)
    expected = load_file(folder / alone / "weights.safetensors")
    found = load_file(folder / run / "weights.safetensors")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).norm() <= 1e-6 * value.norm(), name  # the file is float32


@pytest.mark.slow
def test_a_run_is_the_same_on_copies(folder):
    go(folder, ("copies", COPIES, None))
    assert_same_function(folder, "copies")


def test_a_run_goes_on_where_another_layout_stopped(folder):
    """And so it is the same on each of these."""
    go(folder, ("moved", BOTH, 4))
    go(folder, ("moved", TP, 3))
    go(folder, ("moved", ALONE, 2))
    go(folder, ("moved", SHARD, None))
    assert_same_function(folder, "moved")


def test_so_does_a_masked_autoencoder(folder):
    """Its patches are the same on all ranks, and so is what validation hides."""
    go(folder, ("masked alone", ALONE, None))
    go(folder, ("masked", BOTH, 4))
    go(folder, ("masked", TP, None))
    assert_same_function(folder, "masked", "masked alone")


def test_on_ranks_a_run_is_the_same_and_goes_on_bit_for_bit(folder):
    go(folder, ("whole", BOTH, None), ("broken", BOTH, 4), ("broken", BOTH, None))
    assert_same_function(folder, "whole")
    assert curve(folder / "broken") == curve(folder / "whole")
    assert (folder / "broken/weights.safetensors").read_bytes() == (folder / "whole/weights.safetensors").read_bytes()


def test_so_it_is_with_other_backbones(folder):
    """Broken off on ranks that share samples, and gone on with there."""
    go(folder, *((f"{name}-alone", ALONE, None) for name in BACKBONES))
    go(folder, *((f"{name}-tp", TP, stop) for name in BACKBONES for stop in (5, None)))
    for name in BACKBONES:
        assert_same_function(folder, f"{name}-tp", f"{name}-alone")
