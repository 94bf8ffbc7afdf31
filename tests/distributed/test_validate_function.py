"""`validate` against one rank: every kind of run passes on every kind of layout, and a rank that lies is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import toy_run
import two_stores
from spawn_ranks import spawn

from weatherfm.config import parse_settings
from weatherfm.training import steps, trainer
from weatherfm.training.against_one_rank import function_rows, take_steps
from weatherfm.training.feeding.mixture import Mixture
from weatherfm.training.parallel import channel_parallel
from weatherfm.training.parallel.channel_rows import local
from weatherfm.training.parallel.layout import Layout
from weatherfm.training.parallel.mesh import build_mesh
from weatherfm.training.run_config import RunConfig
from weatherfm.training.starting import run_start
from weatherfm.training.validating import evidence
from weatherfm.training.validating.shortened import short, without_chance
from weatherfm.training.validating.table import Row

CPU = torch.device("cpu")
ROLES = {"inputs": ["-u10"], "outputs": ["-t850"]}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"model": {"position": "place"}, "training": {"accumulate": 2}},
    "crps-rollout-roles": {
        "model": ROLES | {"conditioning": "adaln", "noise": 3},
        "training": {
            "loss": "crps", "members": 3, "lead_times": ["6h"], "rollout": {"steps": {0: 1, 9: 2}, "inputs": "read"},
        },
        "parallel": {"activation_checkpointing": "block"},
    },
    "hierarchical-sampled-local": {
        "model": {
            "aggregation": {"kind": "hierarchical", "groups": 2, "local": "linear"},
            "mlp_convolution": True, "decoder_fields": 2, "rotary": True,
        },
        "training": {"channel_sampling": 0.5},
    },
    "lora": {"training": {"start_from": {"weights": "trained", "lora": {"rank": 2}, "freeze": ["blocks.0"]}}},
    "mix": {"model": {"inputs": ["-tcwv"], "outputs": ["-v10"]}, "training": {"channel_sampling": 0.7}},
    "bfloat16": {"training": {"precision": "bfloat16"}},
    "reconstruct-roles-sampled": {
        "model": ROLES | {"reconstruction": {"mask_ratio": 0.5, "depth": 1, "width": 8}, "mlp_convolution": False},
        "training": {"objective": "reconstruct", "channel_sampling": 0.7, "accumulate": 2},
    },
    "windows": {"model": {"backbone": "windows", "windows": {"size": [1, 2]}, "patch_size": 1, "rotary": True}},
    "own": {"model": {"backbone": "own_backbones:Layers", "backbone_options": {"hidden": 1}, "conditioning": "adaln"}},
}  # fmt: skip
ON_TWO = ["bfloat16", "windows", "own"]
"""Enough for these, as four ranks take their time."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Stores, and weights to start from."""
    folder = tmp_path_factory.mktemp("validate")
    toy_run.make_store(folder)
    two_stores.make_stores(folder)
    trainer.train(toy_run.make_run(folder, "trained", steps=2, validate_every=2))
    return folder


def make_run(folder: Path, kind: str, layout: Layout | None = None) -> RunConfig:
    changes, fixture = KINDS[kind], two_stores if kind == "mix" else toy_run
    settings = fixture.run_settings(folder, "run")
    settings["model"]["depth"] = 2 if kind == "lora" else 1
    for section, values in changes.items():
        settings[section] = settings.get(section, {}) | values
    if settings["training"].get("objective") == "reconstruct":
        settings["training"].pop("lead_times")
    if kind.startswith("own"):
        settings["model"].pop("dropout")
    if "start_from" in changes.get("training", {}):
        settings["training"]["start_from"] |= {"weights": str(folder / "trained")}
    if layout is not None:
        axes = {"tp": layout.tp, "dp_shard": layout.dp_shard, "dp_replicate": layout.dp_replicate}
        settings["parallel"] = settings.get("parallel", {}) | axes
    return parse_settings(RunConfig, settings, kind)


def compared(folder: Path, kind: str, layout: Layout, rank: int) -> list[Row]:
    config = without_chance(short(make_run(folder, kind, layout)))
    return function_rows(config, build_mesh(layout, "cpu"), CPU, rank == 0, lambda: None)


def on_rank(rank: int, folder: Path, layout: Layout, kinds: list[str]) -> dict[str, list[Row]]:
    return {kind: compared(folder, kind, layout, rank) for kind in kinds}


@pytest.mark.parametrize(
    ("layout", "kinds"),
    [(Layout(1, 2, 2), [kind for kind in KINDS if kind not in ON_TWO]), (Layout(1, 1, 2), [*ON_TWO, "plain", "mix"])],
    ids=lambda value: str(value) if isinstance(value, Layout) else "",
)
def test_every_kind_of_run_is_one_ranks(folder, layout, kinds):
    ranks = spawn(layout.devices, on_rank, folder, layout, kinds)
    for kind, rows in ranks[0].items():
        assert len(rows) == 10
        assert [f"{row.check}: {row.found}, {row.bound}" for row in rows if not row.ok] == [], kind
        exact = {row.check: row for row in rows if row.check in ("samples read", "weights at the start")}
        assert all(row.found == "the same to the bit" for row in exact.values())
        close = [row.value for row in rows if "float64" in row.check]
        assert len(close) == 4
        assert all(value < 1e-10 for value in close), kind


def test_what_is_compared_is_all_of_a_step(folder):
    """No gradient is zero, but of channels that the store of a step lacks; a mix is seen until both stores were."""
    for kind in KINDS:
        config = without_chance(short(make_run(folder, kind)))
        found = evidence.wholes(take_steps(config, None, CPU, True, lambda: None))
        assert {key.kind for key in found} == {
            evidence.SAMPLES, evidence.START, evidence.OUTPUTS, evidence.LOSSES, evidence.GRADIENTS, evidence.WEIGHTS,
        }  # fmt: skip
        zero = [key.name for key, value in found.items() if key.kind == evidence.GRADIENTS and not value.any()]
        absent = {f"{name} (step 1)" for name in ("z500",)} | {f"{name} (step 2)" for name in ("v10", "lsm", "tcwv")}
        assert {name.rpartition(".")[2] for name in zero} == (absent if kind == "mix" else set()), kind
        outputs = [key.name for key in found if key.kind == evidence.OUTPUTS]
        if kind == "mix":  # the second store comes first
            first, second = (f"({batch})" for batch in ("batch 2", "batch 1"))
            assert outputs == [f"{n} {second}" for n in ("t850", "u10", "tcwv")] + [
                f"{n} {first}" for n in ("z500", "t850", "u10")
            ]
        seen = [key.name for key in found if key.name.startswith("patches seen")]
        assert seen == ([f"patches seen (batch {i})" for i in (1, 2)] if kind.startswith("reconstruct") else [])
        if kind == "crps-rollout-roles":
            assert outputs == [f"{name} (batch 1, step {step})" for step in (1, 2) for name in ("z500", "u10")]
            assert {tuple(found[evidence.Key(evidence.OUTPUTS, name)].shape) for name in outputs} == {(12, 4, 8)}
            read = found[evidence.Key(evidence.SAMPLES, "z500 (batch 1)")]
            assert tuple(read.shape) == (4, 3, 4, 8)  # present, and two targets


# ranks that lie ---------------------------------------------------------------------------------------------------


def swap_rows(patch: pytest.MonkeyPatch) -> None:
    """It takes the embedding of its first channel for its second one's."""
    fill = run_start.fill_initial

    def wrong(model: Any, seed: int, alive: Callable[[], None]) -> None:
        fill(model, seed, alive)
        rows = local(model.get_parameter("tokenizer.weight"))
        with torch.no_grad():
            rows[:2] = rows[:2].flip(0).clone()

    patch.setattr(run_start, "fill_initial", wrong)


def leave_out_a_sum(patch: pytest.MonkeyPatch) -> None:
    """It takes part in the sum over channels, and goes on with its own part of it."""
    merge = channel_parallel.merge_softmax

    def wrong(mixed: torch.Tensor, log_mass: torch.Tensor, tp: Any) -> torch.Tensor:
        true = merge(mixed, log_mass, tp)
        own = mixed.chunk(tp.size(), 1)[tp.get_local_rank()]
        return own + 0 * true

    patch.setattr(channel_parallel, "merge_softmax", wrong)


def read_others(patch: pytest.MonkeyPatch) -> None:
    """It is a batch ahead."""
    batch = Mixture.batch
    patch.setattr(Mixture, "batch", lambda self, number: batch(self, number + 1))


def skip_update(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(steps, "update_weights", lambda *arguments: None)


def rename_a_channel(patch: pytest.MonkeyPatch) -> None:
    """What it has of one weight goes by another's name."""
    named = evidence.named_parts

    def wrong(model: Any, name: str, tensor: torch.Tensor) -> Any:
        yield from ((key.replace("u10", "v10"), part) for key, part in named(model, name, tensor))

    patch.setattr(evidence, "named_parts", wrong)


LIES = {lie.__name__: lie for lie in (swap_rows, leave_out_a_sum, read_others, skip_update, rename_a_channel)}


def with_lies(rank: int, folder: Path, layout: Layout, lies: list[str]) -> dict[str, list[Row]]:
    found = {}
    for lie in lies:
        with pytest.MonkeyPatch.context() as patch:
            if rank == 1:
                LIES[lie](patch)
            found[lie] = compared(folder, "plain", layout, rank)
    return found


@pytest.fixture(scope="module")
def told(folder) -> dict[str, SimpleNamespace]:
    """By lie: what is wrong on `tp 2`, by check."""
    found = spawn(2, with_lies, folder, Layout(1, 1, 2), list(LIES))[0]
    return {lie: {row.check: row.found for row in rows if not row.ok} for lie, rows in found.items()}


def test_a_rank_with_rows_of_other_channels_is_named(told):
    assert "on rank 1, tokenizer.weight." in told["swap_rows"]["weights at the start"]
    assert "samples read" not in told["swap_rows"]
    assert {"outputs, float64", "outputs, float32", "gradients, float64"} <= told["swap_rows"].keys()


def test_a_sum_that_is_left_out_is_found(told):
    assert not {"samples read", "weights at the start"} & told["leave_out_a_sum"].keys()
    assert {f"{what}, float64" for what in ("outputs", "loss", "gradients", "weights after a step")} <= told[
        "leave_out_a_sum"
    ].keys()


def test_a_rank_that_reads_other_samples_is_named(told):
    wrong = told["read_others"]["samples read"]
    assert "on rank 1, " in wrong
    assert "(batch " in wrong


def test_a_rank_that_skips_the_update_is_named(told):
    assert told["skip_update"].keys() == {"weights after a step, float64", "weights after a step, float32"}
    assert all("on rank 1, " in text for text in told["skip_update"].values())


def test_weights_that_nobody_has_are_missed(told):
    wrong = told["rename_a_channel"]["weights at the start"]
    assert wrong.startswith("no rank has tokenizer.weight.u10")
