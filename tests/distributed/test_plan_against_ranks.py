"""What the plan simulates against what ranks that really run hold and send, counted by the same counter."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from spawn_ranks import spawn
from whole_simulation import simulate_whole

from weatherfm.config import parse_settings
from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import regular_grid
from weatherfm.training.parallel.build_model import build_model
from weatherfm.training.parallel.layout import Layout
from weatherfm.training.parallel.mesh import Mesh, build_mesh
from weatherfm.training.parallel.role import find_role, heaviest_rank
from weatherfm.training.plan import rank_step
from weatherfm.training.plan.step_count import StepCount
from weatherfm.training.run_config import RunConfig
from weatherfm.training.starting.learning import freeze

TOLERANCE = 0.05
"""Of memory; what is left are gaps between operations, as when a gloo thread lets go of a buffer."""

CHANNELS = [f"{name}{level}" for name in "zt" for level in (250, 500, 700, 850, 925)]
FORMS: dict[str, dict] = {
    "flat": {},
    "hierarchical": {"kind": "hierarchical", "groups": 4},
    "linear": {"kind": "hierarchical", "groups": 4, "local": "linear"},
    "tokens": {"evaluate": "tokens"},
    "rollout": {},
    "members": {},
    "mix": {},
    "reconstruct": {"kind": "hierarchical", "groups": 4},
    "lora": {},
    "frozen": {},
    "windows": {},
    "own": {},
}
BACKBONES = {
    "windows": {"backbone": "windows", "windows": {"size": 3}, "patch_size": [4, 2]},
    "own": {"backbone": "own_backbones:Layers", "conditioning": "adaln"},
}
START = {
    "lora": {"weights": "unused", "lora": {"rank": 8}, "freeze": ["blocks"]},
    "frozen": {"weights": "unused", "freeze": ["tokenizer", "aggregation", "position", "lead_time", "blocks.0"]},
}
LOCAL = {"mlp_convolution": True, "rotary": True, "decoder_fields": 2, "truncation": 3}
LOCAL |= {"conditioning": "adaln", "position": "place"}
"""Of the hierarchical form and of whole channels."""
FEW = [("flat", "none"), ("flat", "block"), ("hierarchical", "block"), ("whole", "block")]
OTHERS = [("flat", "selective"), ("hierarchical", "none"), ("hierarchical", "selective")]
OTHERS += [("linear", "block"), ("tokens", "block"), ("rollout", "block"), ("mix", "none"), ("members", "block")]
"""Few of them in bfloat16 on every layout, and, slower, on one all others as well, and the few in float32."""
LAYOUTS = [Layout(1, 1, 1), Layout(1, 2, 2), Layout(2, 1, 2)]


def make_config(form: str, mode: str) -> RunConfig:
    settings = {
        "run": "unused",
        "data": {"store": "unused", "source": {"kind": "planet"}, "channels": CHANNELS},
        "model": {
            "width": 32,
            "depth": 2,
            "heads": 4,
            "aggregation": FORMS["tokens" if form == "whole" else form] | {"block_mib": 8},
        }
        | (LOCAL if form in ("hierarchical", "whole") else {})
        | ({"conditioning": "adaln", "noise": 8} if form == "members" else {})
        | BACKBONES.get(form, {})
        | ({"rotary": True, "reconstruction": {"width": 16, "heads": 2}} if form == "reconstruct" else {}),
        "training": {"batch_size": 4, "ema_decay": 0.9, "accumulate": 2 if form == "flat" else 1}
        | ({"rollout": {"steps": {0: 1, 10: 3}}} if form in ("rollout", "members") else {})
        | ({"loss": "crps", "members": 3} if form == "members" else {})
        | ({"objective": "reconstruct"} if form == "reconstruct" else {})
        | ({"start_from": START[form]} if form in START else {}),
        "parallel": {"channels": "whole" if form == "whole" else "split", "activation_checkpointing": mode},
    }
    return parse_settings(RunConfig, settings, form)


def make_domain(form: str = "") -> Domain:
    C, stores = len(CHANNELS), (tuple(CHANNELS[2:8]), tuple(CHANNELS)) if form == "mix" else ()
    return Domain(tuple(CHANNELS), regular_grid((16, 32)), np.zeros(C), np.ones(C), np.ones(C), stores=stores)


def count(form: str, mode: str, mesh: Mesh | None, dtype: torch.dtype) -> StepCount:
    config, domain = make_config(form, mode), make_domain(form)
    role = find_role(config.parallel, config.model, domain, mesh)
    model = build_model(config, domain, role, torch.device("cpu"), dtype)
    freeze(model, config.training.start_from)
    return rank_step.count_step(config, model, rank_step.planned_ground(config, model, domain, role, "cpu"), dtype)


def on_rank(rank: int, layout: Layout, dtype: torch.dtype, cases: list[tuple[str, str]]) -> list[StepCount | None]:
    """The count of every case on the rank that is simulated; the others take the same steps without counting."""
    mesh, found = build_mesh(layout, "cpu") if layout.devices > 1 else None, []
    for case in cases:
        heaviest = heaviest_rank(make_config(*case), make_domain(case[0]), layout)
        with contextlib.nullcontext() if rank == heaviest else uncounted():
            found.append(count(*case, mesh, dtype))
    return found


def count_on_every(rank: int, layout: Layout, dtype: torch.dtype, cases: list[tuple[str, str]]) -> list[StepCount]:
    mesh = build_mesh(layout, "cpu")
    return [count(*case, mesh, dtype) for case in cases]


@contextlib.contextmanager
def uncounted() -> Iterator[None]:
    """Inside the block `count_step` takes its step without a look at it, and returns None."""
    deaf = SimpleNamespace(hold=lambda use, tensors: list(tensors), moment=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rank_step, "counting", lambda axes: contextlib.nullcontext(deaf))
        patch.setattr(rank_step, "telling", lambda model, counter: contextlib.nullcontext())
        patch.setattr(rank_step, "StepCount", SimpleNamespace(of=lambda counter: None))
        yield


@pytest.mark.parametrize("layout", [*LAYOUTS[:2], pytest.param(LAYOUTS[2], marks=pytest.mark.slow)], ids=str)
def test_a_simulated_rank_holds_and_sends_what_a_real_one_does(layout):
    compare(layout, torch.bfloat16, FEW)


def test_so_it_does_where_few_numbers_learn_and_with_other_backbones():
    others = [("windows", "none"), ("own", "block")]
    compare(Layout(1, 2, 2), torch.bfloat16, [("lora", "none"), ("frozen", "block"), *others])


@pytest.mark.parametrize("layout", [Layout(1, 1, 1), Layout(1, 2, 2)], ids=str)
def test_so_it_does_where_patches_are_hidden(layout):
    compare(layout, torch.bfloat16, [("reconstruct", "none"), ("reconstruct", "block")])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_so_does_every_form_and_mode(dtype):
    compare(Layout(1, 2, 2), dtype, FEW if dtype == torch.float32 else OTHERS)


def compare(layout: Layout, dtype: torch.dtype, cases: list[tuple[str, str]]) -> None:
    ranks = spawn(layout.devices, on_rank, layout, dtype, cases)
    for i, case in enumerate(cases):
        config, domain = make_config(*case), make_domain(case[0])
        real = ranks[heaviest_rank(config, domain, layout)][i]
        simulated = simulate_whole(config, domain, layout, dtype)
        assert simulated.peak == pytest.approx(real.peak, rel=TOLERANCE), (case, simulated.at_peak, real.at_peak)
        assert simulated.sent == real.sent, case
        assert simulated.flops == real.flops, case


def test_the_rank_that_is_simulated_holds_most():
    layout = Layout(1, 1, 4)  # 10 channels: 3, 3, 2, 2; forcings: the last three one each
    ranks = spawn(layout.devices, count_on_every, layout, torch.bfloat16, FEW)
    for i, case in enumerate(FEW):
        peaks = [counts[i].peak for counts in ranks]
        assert peaks[heaviest_rank(make_config(*case), make_domain(), layout)] >= 0.99 * max(peaks), (case, peaks)
