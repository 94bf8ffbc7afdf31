"""Ensembles on several ranks: other initial times on each, or models that are split, with the fields of one process."""

from __future__ import annotations

import sys
from pathlib import Path

import member_weights
import numpy as np
import pytest
from jobs import start
from member_weights import fields
from spawn_ranks import spawn

import weatherfm
from weatherfm.errors import InputError
from weatherfm.evaluation import forecast as command
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.training.forecast_on_ranks import find_layout, forecast_together
from weatherfm.training.run_config import ParallelConfig

CLI = [sys.executable, "-m", "weatherfm.cli", "forecast"]
SAME = {"rtol": 1e-6, "atol": 3e-5}  # sums in another order, in single precision, after steps of large weights
INITS = "2000-01-03T06,2000-01-08T18,2000-01-12T12"  # two ranks keep step: one makes the last of these twice
ROLLED = {"mode": "rollout", "rollout_step": "6h", "lead_times": ["6h", "12h"], "init": INITS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    member_weights.make_weights(folder, ("noisy", "other", "dropping"))
    return folder


def settings(folder: Path, kind: str) -> ForecastConfig:
    files = [str(folder / f"{name}.safetensors") for name in ("noisy", "other")]
    members = {"noise": 5, "weights": files, "both": {"weights": files, "each": 2}, "smooth": 3, "dropout": 3}[kind]
    more: dict = {"perturbation": {"amplitude": 0.1, "kind": "spherical"}} if kind == "smooth" else {}
    return ForecastConfig(
        device="cpu", members=members, seed=2, batch_size=4, dropout=kind == "dropout", **more, **ROLLED
    )


def values(path: Path) -> np.ndarray:
    with weatherfm.open_forecast(path) as opened:
        return fields(opened.load())


def alone(folder: Path, kind: str, name: str = "noisy") -> np.ndarray:
    path = folder / f"alone-{kind}-{len(list(folder.iterdir()))}.zarr"
    command.forecast(folder / f"{name}.safetensors", folder / "store.zarr", settings(folder, kind), path)
    return values(path)


def _on_ranks(rank: int, folder: Path, kind: str, name: str, parallel: dict, output: str) -> None:
    weights, layout = folder / f"{name}.safetensors", ParallelConfig(**parallel)
    forecast_together(weights, folder / "store.zarr", settings(folder, kind), layout, folder / output)


@pytest.mark.parametrize(
    ("kind", "parallel"),
    [
        ("noise", {"tp": 2}),
        ("noise", {"dp_shard": 2}),
        ("both", {"tp": 2}),
        ("both", {}),
        ("weights", {"dp_shard": 2}),
        ("smooth", {"tp": 2}),
        ("dropout", {"dp_shard": 2}),
    ],
    ids=["noise-tp2", "noise-shard2", "both-tp2", "both-apart", "weights-shard2", "smooth-tp2", "dropout-shard2"],
)
def test_members_on_two_ranks_are_those_of_one(folder, kind, parallel, request):
    """The second weights have their channels in another order, so that ranks of tp hold others of them."""
    name, output = "dropping" if kind == "dropout" else "noisy", f"{request.node.callspec.id}.zarr"
    spawn(2, _on_ranks, folder, kind, name, parallel, output)
    made, expected = values(folder / output), alone(folder, kind, name)
    np.testing.assert_allclose(made, expected, **SAME)
    assert expected.std(1).mean() > 0.01
    assert ForecastFile(folder / output).members == expected.shape[1]


def test_as_a_user_types_it(folder):
    files = [str(folder / f"{name}.safetensors") for name in ("noisy", "other")]
    asked = [files[0], "forecast.device=cpu", "forecast.seed=2", "--store", str(folder / "store.zarr"), "--init", INITS,
             "--lead", "6h", "12h", "--rollout=6h", "--devices=2", "--output", str(folder / "typed.zarr")]  # fmt: skip
    status, lines = start([*CLI, *asked, "--members", *files], ranks=2).end()
    assert status == 0, lines
    with weatherfm.open_forecast(folder / "typed.zarr") as opened:
        made = fields(opened.load())
    np.testing.assert_allclose(made, alone(folder, "weights"), **SAME)


def test_dropout_of_a_model_that_is_split_is_refused(folder):
    asked = settings(folder, "dropout")
    task = command.open_task(folder / "dropping.safetensors", folder / "store.zarr", asked)
    with pytest.raises(InputError, match=r"forecast.dropout would drop other numbers where parallel.tp 2 splits"):
        find_layout(ParallelConfig(tp=2), 2, task)
    assert find_layout(ParallelConfig(dp_shard=2), 2, task) is not None
