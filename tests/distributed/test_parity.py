"""Every layout computes one rank's function: outputs, gradients, and all that some optimizer steps leave, in float64.

Weights are compared whole after the last step: a mistake in any step, in a gradient, its clipping or the optimizer's
moments, is in them, so that few steps tell as much as many. One variant on one layout takes many, for what might grow.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from spawn_ranks import spawn
from torch import Tensor
from torch.distributed.tensor import DTensor

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.loader import Batch
from weatherfm.earth.domain import Domain, mask_fields
from weatherfm.earth.forcings import CLOCK
from weatherfm.earth.grid import regular_grid
from weatherfm.model.initial import row_names
from weatherfm.model.lora import is_factor
from weatherfm.training.feeding.channel_sampling import inputs_shown
from weatherfm.training.feeding.hidden_patches import patches_shown
from weatherfm.training.feeding.noise import training_noise
from weatherfm.training.feeding.ready_batches import ReadyBatch
from weatherfm.training.feeding.samples import reads_inputs
from weatherfm.training.parallel.build_model import build_model
from weatherfm.training.parallel.channel_rows import local_part, named_parts
from weatherfm.training.parallel.layout import Layout, check_layout
from weatherfm.training.parallel.mesh import build_mesh
from weatherfm.training.parallel.role import Role, find_role
from weatherfm.training.run_config import RunConfig
from weatherfm.training.starting.learning import freeze
from weatherfm.training.stepping.objective import loss_of
from weatherfm.training.stepping.optimizer import build_optimizer
from weatherfm.training.stepping.step import Ground, compute_gradients, exchange, update_weights

TOLERANCE = 1e-9
"""Relative; float64 sums in another order leave 1e-15 or so, any mistake in a factor leaves 1e-2 or more."""
STEPS = 2
"""One while the learning rate rises, and one after."""
LONG = 20
DEPTH = 2
"""Blocks; where every variant meets every layout, one: variants differ before the first block, or in each."""

LOCAL = {"mlp_convolution": True, "rotary": True, "decoder_fields": 2, "truncation": 5}
ADAPTIVE = {"conditioning": "adaln", "position": "place"}
ROLES = {"inputs": ["-z600"], "outputs": ["-u100", "-u300"]}
HIERARCHICAL = {"kind": "hierarchical", "groups": 4}
MASKED = {"reconstruction": {"mask_ratio": 0.5, "depth": 1, "width": 16, "heads": 4}}
VARIANTS: dict[str, dict] = {
    "flat": {},
    "flat-tokens": {"aggregation": {"evaluate": "tokens"}},
    "flat-uneven-local-adaptive-sampled": {
        "channels": 10,
        "model": LOCAL | ADAPTIVE | {"input_gates": True},
        "training": {"channel_sampling": 0.5},
    },
    "attention": {"aggregation": HIERARCHICAL},
    "attention-local": {"aggregation": HIERARCHICAL, "model": LOCAL},
    "attention-uneven-tokens-roles": {
        "channels": 10,
        "aggregation": HIERARCHICAL | {"evaluate": "tokens"},
        "model": ROLES,
    },
    "linear-uneven": {"channels": 10, "aggregation": HIERARCHICAL | {"local": "linear"}},
    "tree": {"aggregation": HIERARCHICAL | {"tree": 2}},
    "linear-tree-uneven-sampled": {
        "channels": 10,
        "aggregation": HIERARCHICAL | {"local": "linear", "tree": 2},
        "training": {"channel_sampling": 0.5},
    },
    "block-checkpointing-adaptive": {"parallel": {"activation_checkpointing": "block"}, "model": ADAPTIVE},
    "selective-checkpointing-local-adaptive": {
        "parallel": {"activation_checkpointing": "selective"},
        "model": LOCAL | ADAPTIVE,
    },
    "rollout-uneven-roles": {
        "channels": 10,
        "training": {"rollout": {"steps": {0: 2}, "inputs": "read"}, "lead_times": ["24h"]},
        "parallel": {"activation_checkpointing": "block"},
        "model": ADAPTIVE | ROLES,
    },
    "crps-rollout-uneven-roles": {
        "channels": 10,
        "training": {"loss": "crps", "rollout": {"steps": {0: 2}, "inputs": "read"}, "lead_times": ["24h"]},
        "parallel": {"activation_checkpointing": "block"},
        "model": ADAPTIVE | ROLES | {"noise": 3},
    },
    "crps-attention-local-sampled": {
        "aggregation": HIERARCHICAL,
        "training": {"loss": "crps", "members": 3, "channel_sampling": 0.5},
        "model": LOCAL | {"noise": 3},
    },
    "lora": {"training": {"start_from": {"weights": "unused", "lora": {"rank": 3, "alpha": 2}, "freeze": ["blocks"]}}},
    "lora-block-checkpointing-adaptive": {
        "training": {"start_from": {"weights": "unused", "lora": {"on": ["attention.out", "mlp"]}, "layer_decay": 0.8}},
        "parallel": {"activation_checkpointing": "block"},
        "model": ADAPTIVE,
    },
    "reconstruct-uneven-roles-adaptive-sampled": {
        "channels": 10,
        "training": {"objective": "reconstruct", "channel_sampling": 0.5},
        "model": ADAPTIVE | ROLES | MASKED | {"rotary": True},
    },
    "reconstruct-attention-block-checkpointing": {
        "aggregation": HIERARCHICAL,
        "training": {"objective": "reconstruct"},
        "parallel": {"activation_checkpointing": "block"},
        "model": MASKED,
    },
    "reconstruct-linear-tree-uneven-selective": {
        "channels": 10,
        "aggregation": HIERARCHICAL | {"local": "linear", "tree": 2},
        "training": {"objective": "reconstruct"},
        "parallel": {"activation_checkpointing": "selective"},
        "model": MASKED,
    },
    "windows-uneven-local-adaptive": {
        "channels": 10,
        "parallel": {"activation_checkpointing": "block"},
        "model": LOCAL | ADAPTIVE | {"patch_size": 2, "backbone": "windows", "windows": {"size": 3}},
    },
    "own-uneven-adaptive": {
        "channels": 10,
        "parallel": {"activation_checkpointing": "block"},
        "model": ADAPTIVE | {"backbone": "own_backbones:Layers", "backbone_options": {"hidden": 1}},
    },
    "own-heads-divided": {"aggregation": HIERARCHICAL, "model": {"backbone": "own_backbones:HeadsDivided"}},
    "own-of-a-library": {"model": {"backbone": "own_backbones:OfALibrary"}},
    "tensor-parallel-alone-reconstruct": {
        "aggregation": {"evaluate": "tokens"},
        "training": {"objective": "reconstruct"},
        "parallel": {"channels": "whole"},
        "model": MASKED,
    },
    "tensor-parallel-alone-local-adaptive": {
        "aggregation": {"evaluate": "tokens"},
        "parallel": {"channels": "whole"},
        "model": LOCAL | ADAPTIVE | {"input_gates": True},
    },
}
TELLING = ["flat-uneven-local-adaptive-sampled", "attention", "linear-tree-uneven-sampled"]
"""Variants that between them go through all that layouts do differently."""
BACKBONES = ["windows-uneven-local-adaptive", "own-uneven-adaptive", "own-heads-divided"]
CRPS = [name for name in VARIANTS if name.startswith("crps")]
RECONSTRUCT = [name for name in VARIANTS if name.startswith("reconstruct")]
LAYOUTS = [
    (Layout(1, 1, 2), [*TELLING, "lora", *CRPS, *BACKBONES, *RECONSTRUCT]),
    (Layout(1, 1, 4), TELLING),
    (Layout(1, 2, 1), [*TELLING, *CRPS, *BACKBONES, *RECONSTRUCT]),
    (Layout(1, 2, 2), list(VARIANTS)),
    (Layout(2, 1, 1), TELLING),
    (Layout(2, 2, 1), TELLING),
    (Layout(2, 1, 2), [*TELLING, "rollout-uneven-roles", "lora-block-checkpointing-adaptive", RECONSTRUCT[0]]),
]
"""The fast tests; the slow ones take every variant to four ranks of one axis, and the telling ones to eight of all
three."""


def make_config(variant: str, depth: int = DEPTH) -> RunConfig:
    given = VARIANTS.get(variant, {"compile": True})
    levels = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700)[: given.get("channels", 8)]
    names = [f"{'zu'[i % 2]}{level}" for i, level in enumerate(levels)]
    masked = given.get("training", {}).get("objective") == "reconstruct"
    settings = {
        "run": "unused",
        "data": {"store": "unused", "source": {"kind": "planet"}, "channels": names},
        "model": {
            "width": 16,
            "depth": depth,
            "heads": 4,
            **({} if given.get("model", {}).get("backbone", "").startswith("own") else {"drop_path": 0.0}),
            "input_times": ["0h", "-24h"],
            "aggregation": given.get("aggregation", {}),
        }
        | given.get("model", {}),
        "training": {
            "batch_size": 4,
            "learning_rate": 1e-2,
            "warmup_steps": 1,
            "clip_norm": 0.065,  # gradients of some steps are longer, of others shorter
            "steps": LONG,
            "seed": 3,
            "compile": given.get("compile", False),
            "channel_weights": {names[0]: 3.0},
        }
        | ({} if masked else {"lead_times": ["6h"], "lead_time_weighting": "inverse"})
        | given.get("training", {}),
        "parallel": given.get("parallel", {}),
    }
    return parse_settings(RunConfig, settings, variant)


def make_domain(config: RunConfig, masked: bool = False) -> Domain:
    """Perhaps with masks of two channels, logarithms of two and spreads of several lead times, where channels are
    uneven."""
    rng, C = np.random.default_rng(0), len(config.data.channels)
    grid = regular_grid((8, 16))
    std = rng.uniform(1, 2, C)
    mean, tendency_std = rng.normal(size=C), std * rng.uniform(0.2, 0.4, C)
    names, static = ("orography",), rng.normal(size=(1, 8, 16)).astype(np.float32)
    channels = config.data.channels
    masks = {name: rng.random((8, 16)) < 0.3 for name in channels[1::5]} if masked and C % 4 else {}
    if masks:
        shown, fields = mask_fields(masks)
        names, static = (*names, *shown), np.concatenate([static, fields])
    scales = {name: 0.3 for name in channels[2::5]} if masks else {}
    by_lead = {lead: tendency_std * (1 + np.arange(C) % 3 * lead / 100) for lead in (6, 48)} if masks else {}
    return Domain(tuple(channels), grid, mean, std, tendency_std, names, static, masks, scales, by_lead)


def make_batch(
    role: Role, domain: Domain, forcings: tuple[str, ...], step: int, conditioned: int = 0, successive: int = 1
) -> ReadyBatch:
    """This rank's part of the batch of a step: its samples, its channels; of several model steps, all of 24 hours."""
    rng = np.random.default_rng([7, step])
    index, count = role.part
    rows = slice(index * 4 // count, (index + 1) * 4 // count)
    own = [domain.channels.index(name) for name in role.share.channels]
    known = [role_forcings(domain).index(name) for name in forcings]
    history, target = (
        rng.normal(size=(4, 2, len(domain.channels), 8, 16)),
        rng.normal(size=(4, len(domain.channels), 8, 16)),
    )
    for name, mask in domain.masks.items():
        history[:, :, domain.channels.index(name), mask] = target[:, domain.channels.index(name), mask] = np.nan
    fields, conditions = rng.normal(size=(4, 3, 8, 16)), rng.normal(size=(4, len(CLOCK)))[:, :conditioned]
    leads = torch.tensor([6, 24, 24, 72])
    batch = Batch(
        torch.tensor(history[rows][:, :, own]), torch.tensor(target[rows][:, own]), np.zeros(4)[rows], leads[rows]
    )
    ready = ReadyBatch(batch, torch.tensor(fields[rows][:, known]), torch.tensor(conditions[rows]))
    if successive == 1:
        return ready
    whole = rng.normal(size=(successive - 1, 4, len(domain.channels), 8, 16))
    for name, mask in domain.masks.items():
        whole[:, :, domain.channels.index(name), mask] = np.nan
    batch = replace(batch, lead_time_hours=torch.full_like(batch.lead_time_hours, 24))
    batch = replace(batch, further=torch.tensor(whole[:, rows][:, :, own]))
    shown = torch.tensor(rng.normal(size=(successive - 1, 4, 3, 8, 16))[:, rows][:, :, known])
    clocks = torch.tensor(rng.normal(size=(successive - 1, 4, len(CLOCK)))[:, rows, :conditioned])
    return replace(ready, batch=batch, further_forcings=shown, further_condition=clocks)


def role_forcings(domain: Domain) -> list[str]:
    return ["latitude", "sin_longitude", "cos_longitude"]


def excite(model: torch.nn.Module) -> None:
    """Move every weight away from zero, so that each gradient says something; the same on every layout.

    Gates of inputs stay closed for one variable, as those of newcomers: a rank may hold no other.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(0.05)
            if is_factor(name):  # rows that are alike would add up to nothing behind a norm
                waves = torch.arange(parameter.numel()).sin().view(parameter.shape)
                own = parameter.to_local() if isinstance(parameter, DTensor) else parameter
                own.add_(local_part(waves, parameter))
            if name == "to_patches.weight" and model.reconstruction is not None:  # there they stand right behind one
                waves = (
                    torch.arange(parameter.shape[1:].numel()).sin().view(parameter.shape[1:]).expand(parameter.shape)
                )
                own = parameter.to_local() if isinstance(parameter, DTensor) else parameter
                own.add_(0.1 * local_part(waves, parameter))
            if name == "tokenizer.gate":
                own = parameter.to_local() if isinstance(parameter, DTensor) else parameter
                new = torch.tensor([row.startswith("u") for row in row_names(model, name)])
                own[local_part(new, parameter)] = 0


def run(variant: str, layout: Layout | None, steps: int = STEPS, depth: int = DEPTH) -> dict[str, Tensor]:
    """Everything that must not depend on the layout, by name: what a rank has of weights and their gradients, and all
    else whole."""
    torch.set_default_dtype(torch.float64)
    try:
        config = make_config(variant, depth)
        domain = make_domain(config, masked=True)
        mesh = None
        if layout is not None:
            check_layout(layout, config.parallel, config.model, domain, config.training.batch_size)
            mesh = build_mesh(layout, "cpu")
        role = find_role(config.parallel, config.model, domain, mesh)
        model = build_model(config, domain, role, torch.device("cpu"), torch.float64)
        freeze(model, config.training.start_from)
        excite(model)
        return measure(config, domain, role, model, steps)
    finally:
        torch.set_default_dtype(torch.float32)


def measure(config: RunConfig, domain: Domain, role: Role, model, steps: int) -> dict[str, Tensor]:
    settings = config.training
    loss = loss_of(settings, config.model, domain, role.share)
    optimizer = build_optimizer(model, settings)
    result: dict[str, Tensor] = {}
    curve, predictions = [], []
    seen = model.register_forward_hook(
        lambda module, given, state: predictions.append(module.outputs_of(state.detach()))
    )
    for step in range(steps):
        batch = make_batch(role, domain, model.forcings, step, len(model.conditions), settings.model_steps[0])
        if (shown := inputs_shown(config, role, step, step + 1)) is not None:
            batch = replace(batch, present=next(shown))
        if (drawn := training_noise(config, role, step, step + 1)) is not None:
            batch = replace(batch, noise=next(drawn))
        if (seen_patches := patches_shown(config, role, lambda number: domain.grid, step, step + 1)) is not None:
            batch = replace(batch, visible=next(seen_patches))
        optimizer.zero_grad()
        scored = compute_gradients(model, [Ground(loss, role)], [batch], 1, torch.float64, reads_inputs(config))
        norm, _, channel_loss, lead_loss, step_loss = exchange(
            model, scored, role, False, torch.tensor([6, 12, 24, 72])
        )
        if step == 0:
            seen.remove()
            gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
            result |= outputs(role, predictions[-1]) | parts(model, gradients, "gradient")
            result |= {"norm": norm.clone(), "channel loss": channel_loss.clone(), "lead loss": lead_loss.clone()}
            result["step loss"] = step_loss.clone()
        update_weights(model, optimizer, norm, settings, step)
        curve.append(channel_loss.mean())
    return result | parts(model, dict(model.named_parameters()), "weight") | {"curve": torch.stack(curve)}


def parts(model: torch.nn.Module, tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Copies, by a name that no layout changes; a rank's own part of what is split."""
    named = [pair for name, tensor in tensors.items() for pair in named_parts(model, name, tensor.detach())]
    return {f"{kind} {key}": part.clone() for key, part in named}


def outputs(role: Role, prediction: Tensor) -> dict[str, Tensor]:
    """The prediction of all samples, their members and channels, put together from all ranks."""
    index, count = role.part
    own = len(prediction)
    whole = torch.zeros(own * count, *prediction.shape[2:], len(role.channels))
    whole[index * own : (index + 1) * own] = role.spread(prediction.movedim(1, -1))
    return {"output": role.sum(whole)}


def on_rank(
    rank: int, layout: Layout, expected: dict[str, dict[str, np.ndarray]], steps: int, depth: int
) -> tuple[list[str], set[tuple[str, str]]]:
    """What is wrong on this rank, and the names that it has compared."""
    wrong, names = [], set()
    for variant, whole in expected.items():
        for name, found in run(variant, layout, steps, depth).items():
            names.add((variant, name))
            own, value = found.to_local() if isinstance(found, DTensor) else found, torch.from_numpy(whole[name])
            error = float((own - local_part(value, found)).norm() / value.norm())
            if not error <= TOLERANCE:
                wrong.append(f"{variant}: {name} has a relative error of {error:.1e} on rank {rank}")
    return wrong, names


@cache
def alone(variant: str, steps: int, depth: int) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in run(variant, None, steps, depth).items()}


@pytest.mark.parametrize(
    ("layout", "variants"), LAYOUTS, ids=lambda value: str(value) if isinstance(value, Layout) else ""
)
def test_a_layout_computes_one_ranks_function(layout, variants):
    assert_same_function(layout, variants, depth=1 if len(variants) == len(VARIANTS) else DEPTH)


@pytest.mark.parametrize("layout", [Layout(1, 2, 2)], ids=str)
def test_what_differs_does_not_grow(layout):
    assert_same_function(layout, ["linear-tree-uneven-sampled"], LONG)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "variants"),
    [
        (Layout(1, 1, 4), [v for v in VARIANTS if v not in TELLING]),
        (Layout(1, 4, 1), TELLING),
        (Layout(2, 2, 2), [*TELLING, "rollout-uneven-roles", "tensor-parallel-alone-local-adaptive"]),
    ],
    ids=lambda value: str(value) if isinstance(value, Layout) else "",
)
def test_variants_on_more_ranks(layout, variants):
    """All that the layouts of four ranks do to weights, on one of eight: the telling variants and what splits heads."""
    assert_same_function(layout, variants, depth=1)


@pytest.mark.slow
def test_compiled_blocks_compute_the_same_function():
    assert_same_function(Layout(1, 1, 2), ["compiled"])


def assert_same_function(layout: Layout, variants: list[str], steps: int = STEPS, depth: int = DEPTH) -> None:
    expected = {variant: alone("flat" if variant == "compiled" else variant, steps, depth) for variant in variants}
    for variant, values in expected.items():
        assert all(np.any(value) for value in values.values()), variant
    ranks = spawn(layout.devices, on_rank, layout, expected, steps, depth)
    wrong = [line for lines, _ in ranks for line in lines]
    assert not wrong, "\n".join(wrong)
    compared = set().union(*(names for _, names in ranks))
    assert compared == {(variant, name) for variant, values in expected.items() for name in values}
