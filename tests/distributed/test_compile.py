"""Compiled blocks: that there are graphs in every mode of checkpointing, on every layout, in validation too."""

from __future__ import annotations

import pytest
import test_parity as parity
import torch
from spawn_ranks import spawn
from torch._dynamo.utils import counters

from weatherfm.config import parse_settings
from weatherfm.training.parallel.build_model import build_model
from weatherfm.training.parallel.layout import Layout
from weatherfm.training.parallel.mesh import build_mesh
from weatherfm.training.parallel.parallelize import reshard
from weatherfm.training.parallel.role import find_role
from weatherfm.training.plan.rank_step import made_up_batch
from weatherfm.training.run_config import RunConfig
from weatherfm.training.stepping.loss import forecast_loss, predict
from weatherfm.training.stepping.step import Ground, compute_gradients

VARIANTS = {"none": "flat", "block": "block-checkpointing-adaptive", "selective": "block-checkpointing-adaptive"}
"""Modes of checkpointing, and the model of the parity test that each compiles."""


def outcomes(rank: int, mode: str, layout: Layout | None) -> tuple[dict, dict]:
    """Compiled, and as Python runs it."""
    return outcome(mode, layout, True), outcome(mode, layout, False)


def outcome(mode: str, layout: Layout | None, compile: bool) -> dict:
    """Graphs compiled for a step, a validation and another step, and what these gave."""
    torch._dynamo.reset()
    counters.clear()
    plain = parity.make_config(VARIANTS[mode]).model_dump(mode="json")
    plain["parallel"]["activation_checkpointing"] = mode
    plain["training"]["compile"] = compile
    plain["training"]["batch_size"] *= layout.dp if layout else 1  # so that ranks and one process share compiled code
    config = parse_settings(RunConfig, plain, "test")
    domain = parity.make_domain(config)
    role = find_role(config.parallel, config.model, domain, build_mesh(layout, "cpu") if layout else None)
    model = build_model(config, domain, role, torch.device("cpu"), torch.float32).train()
    parity.excite(model)
    loss = forecast_loss(config.model, domain, {}, None, role.share)
    batch = made_up_batch(config, model, role)
    batch.batch.history.copy_(torch.linspace(0, 1, batch.batch.history.numel()).view(batch.batch.history.shape))
    graphs = []
    for phase in ("train", "validate", "train again"):
        if phase == "validate":
            with torch.no_grad():
                forecast = predict(model.eval(), batch, torch.float32)
            reshard(model.train())
        else:
            compute_gradients(model, [Ground(loss, role)], [batch], 1, torch.float32)
        graphs.append(counters["stats"]["unique_graphs"])
    norms = [float(torch.linalg.vector_norm(getattr(p.grad, "_local_tensor", p.grad))) for p in model.parameters()]
    return {"graphs": graphs, "breaks": sum(counters["graph_break"].values()), "norms": norms, "forecast": forecast}


def assert_compiled(mode: str, layout: Layout | None) -> None:
    ranks = [outcomes(0, mode, None)] if layout is None else spawn(layout.devices, outcomes, mode, layout)
    for compiled, eager in ranks:
        assert eager["graphs"] == [0, 0, 0]
        first, validated, again = compiled["graphs"]
        assert first >= 1
        assert validated > first  # blocks in evaluation are other graphs, and are compiled as well
        assert again == validated
        assert compiled["breaks"] == 0
        assert compiled["norms"] == pytest.approx(eager["norms"], rel=1e-4, abs=1e-6)
        torch.testing.assert_close(compiled["forecast"], eager["forecast"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "mode", [mode if mode == "block" else pytest.param(mode, marks=pytest.mark.slow) for mode in VARIANTS]
)
def test_blocks_are_compiled_in_every_mode(mode):
    assert_compiled(mode, None)


@pytest.mark.slow
def test_blocks_are_compiled_where_weights_are_sharded():
    assert_compiled("none", Layout(1, 2, 1))


@pytest.mark.slow
def test_blocks_are_compiled_under_tensor_parallelism():
    assert_compiled("selective", Layout(1, 1, 2))
