"""The plan of backbones: deep ones from shallow ones, operations of windows by hand, and the formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from places import ROOT
from whole_simulation import simulate_whole

from weatherfm.cli import run_command
from weatherfm.config import parse_settings
from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError
from weatherfm.training.parallel.layout import Layout, check_layout
from weatherfm.training.plan.memory_formula import expected_peak
from weatherfm.training.plan.simulated_rank import simulate
from weatherfm.training.plan.step_count import shallower
from weatherfm.training.run_config import RunConfig

WINDOWS = {"backbone": "windows", "patch_size": 2}


def make_config(model=None, mode="none", **training) -> RunConfig:
    settings = {
        "run": "unused",
        "data": {"store": "no/store.zarr", "source": {"kind": "planet"}, "channels": ["z500", "t850", "u10"]},
        "model": {"width": 32, "depth": 3, "heads": 4} | (model or {}),
        "training": {"batch_size": 8} | training,
        "parallel": {"activation_checkpointing": mode},
    }
    return parse_settings(RunConfig, settings, "plan")


def make_domain(channels: int = 6, shape=(10, 14)) -> Domain:
    ones = np.ones(channels)
    return Domain(tuple(f"c{i}" for i in range(channels)), regular_grid(shape), ones, ones, ones)


@pytest.mark.parametrize(
    ("depth", "period", "pair"),
    [(4, 1, None), (5, 1, (3, 4)), (32, 1, (3, 4)), (6, 2, None), (7, 2, None), (8, 2, (4, 6)), (24, 4, (8, 12))],
)
def test_deep_models_are_like_two_that_end_as_they_do(depth, period, pair):
    assert shallower(depth, period) == pair


@pytest.mark.parametrize(
    ("layout", "mode", "windows", "depth"),
    [
        (Layout(1, 2, 1), "block", {"size": [2, 3]}, 8),
        (Layout(1, 1, 1), "none", {"size": 3, "global_every": 3}, 11),
    ],
    ids=str,
)
def test_windows_are_extrapolated_exactly(layout, mode, windows, depth):
    """5 x 7 patches: shifted blocks have rectangles of other sizes, and global ones keep other things."""
    config = make_config(WINDOWS | {"depth": depth, "windows": windows}, mode)
    found, expected = (f(config, make_domain(), layout) for f in (simulate, simulate_whole))
    assert shallower(depth, config.model.windows.period) is not None
    assert found.peak == pytest.approx(expected.peak, rel=1e-12)
    assert found.at_peak == pytest.approx(expected.at_peak, rel=1e-12)
    assert found.total_flops() == pytest.approx(expected.total_flops(), rel=1e-12)
    assert found.total_sent() == pytest.approx(expected.total_sent(), rel=1e-12)


def test_attention_within_windows_costs_what_its_pairs_do():
    """By hand: two products of 2 d operations a pair forward, five backward, of 8 samples."""
    blocks = {}
    for name, model in {"windows": WINDOWS | {"windows": {"size": 3}}, "global": {"patch_size": 2}}.items():
        count = simulate(make_config(model | {"depth": 2}), make_domain(), Layout(1, 1, 1), torch.float32)
        blocks[name] = count.total_flops()["blocks"]
    rows = {0: [3, 2], 1: [1, 3, 1]}  # 5 rows
    columns = [3, 3, 1]  # 7 columns round the globe, shifted or not
    pairs = sum((r * c) ** 2 for shift in (0, 1) for r in rows[shift] for c in columns)
    assert blocks["global"] - blocks["windows"] == 8 * 2 * 32 * (2 + 5) * (2 * 35**2 - pairs)


@pytest.mark.parametrize("mode", ["none", "block"])
def test_the_formula_is_within_a_fifth(mode):
    model = {"width": 512, "depth": 12, "heads": 8, "forcings": [], "drop_path": 0.0, "backbone": "windows"}
    config = make_config(model | {"windows": {"size": 8}}, mode)
    found = simulate(config, domain := make_domain(64, (64, 128)), Layout(1, 2, 2)).peak
    assert expected_peak(config, domain, Layout(1, 2, 2), torch.bfloat16) == pytest.approx(found, rel=0.2)


def test_of_ones_own_every_block_is_simulated():
    config = make_config({"depth": 7, "backbone": "own_backbones:Layers"})
    found, expected = (f(config, make_domain(), Layout(1, 1, 1)) for f in (simulate, simulate_whole))
    assert (found.peak, found.total_flops()) == (expected.peak, expected.total_flops())
    assert found.total_flops()["blocks"] > 0


def test_one_without_a_plan_is_refused_on_tp_and_told_what_to_add():
    config = make_config({"backbone": "own_backbones:Plain"})
    with pytest.raises(
        InputError, match=r"own_backbones:Plain does not say how it is split(.|\n)*these would work: .*shard2"
    ):
        check_layout(Layout(1, 1, 2), config.parallel, config.model, make_domain(16, (8, 16)), 8)


@pytest.mark.parametrize("backbone", ["windows", "own_backbones:Plain"])
def test_the_command_plans_them(backbone, capsys):
    file, given = str(ROOT / "configs" / "debug.yaml"), ["--grid", "16x32", "--jobs", "1", "--devices", "1"]
    assert run_command(["plan", file, "model.depth=1", f"model.backbone={backbone}", *given, "--memory", "8"]) == 0
    text = capsys.readouterr().out
    assert f"backbone {backbone}" in text
    assert ("    - |" in text) == backbone.startswith("own")  # no formula is known
