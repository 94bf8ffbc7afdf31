"""A mix of stores on several ranks: losses, gradients and weights of one rank, in float64, and runs that go on."""

from __future__ import annotations

import pytest
import torch
import two_stores
from spawn_ranks import spawn
from torch.distributed.tensor import DTensor

from weatherfm.training.feeding.channel_sampling import inputs_shown
from weatherfm.training.feeding.mixture import Mixture
from weatherfm.training.feeding.ready_batches import make_ready
from weatherfm.training.feeding.samples import reads_inputs, training_samples
from weatherfm.training.parallel.build_model import build_model
from weatherfm.training.parallel.channel_rows import local_part, named_parts
from weatherfm.training.parallel.layout import Layout
from weatherfm.training.parallel.mesh import build_mesh
from weatherfm.training.parallel.role import find_role
from weatherfm.training.parts import open_parts
from weatherfm.training.starting.run_start import choose_layout_of, find_start
from weatherfm.training.stepping.grounds import build_grounds
from weatherfm.training.stepping.optimizer import build_optimizer
from weatherfm.training.stepping.step import compute_gradients, exchange, update_weights
from weatherfm.training.stepping.untouched_rows import UntouchedRows

TOLERANCE = 1e-9
STEPS = 5
MODEL = {
    "drop_path": 0.0, "mlp_convolution": True, "rotary": True, "decoder_fields": 2, "conditioning": "adaln",
    "input_gates": True, "inputs": ["-tcwv"], "outputs": ["-v10"],
}  # fmt: skip
TRAINING = {
    "rollout": {"steps": {0: 2}, "inputs": "read"}, "channel_sampling": 0.7, "lead_times": ["6h"], "accumulate": 2,
    "clip_norm": 0.5, "learning_rate": 1e-2, "warmup_steps": 1,
}  # fmt: skip


def run(folder, layout: Layout | None) -> dict[str, torch.Tensor]:
    """Two batches a step, of either store: by layout-free name, all that they leave."""
    torch.set_default_dtype(torch.float64)
    try:
        config = two_stores.make_run(folder, "unused", MODEL, **TRAINING)
        if layout is not None:
            axes = {"tp": layout.tp, "dp_shard": layout.dp_shard, "dp_replicate": layout.dp_replicate}
            config = config.model_copy(update={"parallel": config.parallel.model_copy(update=axes)})
        settings, parts = config.training, open_parts(config)
        start = find_start(config, parts)
        mesh = None if layout is None else build_mesh(choose_layout_of(start, parts, layout.devices), "cpu")
        role = find_role(config.parallel, config.model, start.domain, mesh)
        model = build_model(config, start.domain, role, torch.device("cpu"), torch.float64)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05)
        grounds = build_grounds(model, parts, start.domains, role, torch.device("cpu"))
        loaders = [
            training_samples(part.config, part.store, share=ground.role.share, part=role.part)
            for part, ground in zip(parts, grounds, strict=True)
        ]
        mixture = Mixture(loaders, [part.weight for part in parts], 1, 2 * STEPS)
        shown = inputs_shown(config, lambda number: grounds[mixture.stores[number]].role, 0, 2 * STEPS)
        optimizer = build_optimizer(model, settings)
        untouched = UntouchedRows(model, optimizer, [ground.role.share for ground in grounds])
        assert set(mixture.stores[:2]) != set(mixture.stores[2:4])  # a step of one store alone is among them
        found: dict[str, torch.Tensor] = {}
        for step in range(STEPS):
            optimizer.zero_grad()
            batches = [mixture.batch(2 * step + i) for i in range(2)]
            ready = [
                make_ready(batch, model, torch.device("cpu"), None, next(shown), parts[batch.store].store.grid)
                for batch in batches
            ]
            scored = compute_gradients(model, grounds, ready, 2, torch.float64, reads_inputs(config))
            told = exchange(model, scored, role, False, torch.tensor([6]))
            if step == 0:
                found |= named(model, {name: p.grad for name, p in model.named_parameters()}, "gradient")
            found[f"norm {step}"] = told.gradient_norm.clone()
            found[f"channel loss {step}"] = told.channel_loss.clone().nan_to_num(-1)
            found[f"step loss {step}"] = told.step_loss.clone()
            kept = untouched.kept([batch.store for batch in batches])
            update_weights(model, optimizer, told.gradient_norm, settings, step, kept)
        return found | named(model, dict(model.named_parameters()), "weight")
    finally:
        torch.set_default_dtype(torch.float32)


def named(model, tensors, kind: str) -> dict[str, torch.Tensor]:
    return {
        f"{kind} {key}": part.clone()
        for name, tensor in tensors.items()
        for key, part in named_parts(model, name, tensor.detach())
    }


def on_rank(rank: int, layout: Layout, folder, expected) -> list[str]:
    wrong = []
    for name, found in run(folder, layout).items():
        own = found.to_local() if isinstance(found, DTensor) else found
        value = local_part(expected[name], found)
        error = float((own - value).norm() / max(expected[name].norm(), 1e-30))
        if not error <= TOLERANCE:
            wrong.append(f"{name} has a relative error of {error:.1e} on rank {rank}")
    return wrong


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mix")
    two_stores.make_stores(folder)
    return folder


@pytest.mark.parametrize("layout", [Layout(1, 1, 2), Layout(1, 2, 1), Layout(1, 2, 2), Layout(2, 1, 2)], ids=str)
def test_a_layout_computes_one_ranks_function(folder, layout):
    """With rollouts, channels withheld, roles, gates, adaptive norms and local structure, two batches a step."""
    expected = run(folder, None)
    ranks = spawn(layout.devices, on_rank, layout, folder, expected)
    assert [line for lines in ranks for line in lines] == []
