"""Layouts: what settings mean on so many devices, and which are refused with what would work instead."""

from __future__ import annotations

import pytest
from toy_model import make_domain

from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig
from weatherfm.training.parallel.layout import Layout, check_layout, feasible_layouts, layout_problems, resolve_layout
from weatherfm.training.run_config import ParallelConfig

DOMAIN = make_domain(regular_grid((16, 32)))  # 3 channels, 32 positions with patch 4


def model(**settings) -> ModelConfig:
    return ModelConfig(**({"width": 32, "heads": 4} | settings))


def problems(layout: Layout, batch_size: int = 8, channels: str = "split", **settings) -> str:
    config = ParallelConfig(channels=channels)
    return " / ".join(layout_problems(layout, config, model(**settings), DOMAIN, batch_size))


def test_sharding_takes_the_devices_that_are_left():
    assert resolve_layout(ParallelConfig(tp=2, dp_replicate=3), 24) == Layout(3, 4, 2)
    assert resolve_layout(ParallelConfig(), 1) == Layout(1, 1, 1)
    assert resolve_layout(ParallelConfig(tp=2, dp_shard=4), 8).dp == 4


@pytest.mark.parametrize(("settings", "devices"), [({"tp": 4}, 6), ({"dp_shard": 2}, 8), ({"tp": 2}, 1)])
def test_axes_must_multiply_to_the_devices(settings, devices):
    with pytest.raises(InputError, match=f"there are {devices}; start"):
        resolve_layout(ParallelConfig(**settings), devices)


def test_layouts_have_names():
    assert str(Layout(2, 1, 4)) == "replicate2-tp4"
    assert str(Layout(1, 1, 1)) == "alone"


def test_a_fitting_layout_has_no_problems():
    assert problems(Layout(2, 2, 2)) == ""


@pytest.mark.parametrize(
    ("layout", "settings", "complaint"),
    [
        (Layout(1, 1, 2), {"heads": 1}, "does not divide model.heads 1"),
        (Layout(1, 1, 2), {"mlp_ratio": 33 / 32}, "the MLP's width 33"),
        (Layout(1, 1, 2), {"patch_size": 16, "heads": 4}, None),
        (Layout(1, 1, 2), {"patch_size": (16, 32)}, r"positions (1 x 1) 1"),
        (Layout(1, 1, 4), {}, "more than the 3 channels"),
        (Layout(1, 1, 2), {"aggregation": {"kind": "hierarchical", "groups": 3}}, "aggregation.groups 3"),
        (Layout(3, 1, 1), {}, "not a multiple of the 3 data-parallel groups"),
        (Layout(1, 32, 2), {"batch_size": 64}, "tp x dp_shard 64 does not divide model.width 32"),
        (Layout(1, 1, 2), {"channels": "whole"}, "whole needs model.aggregation.kind flat and evaluate tokens"),
    ],
)
def test_a_model_that_cannot_be_split_is_refused(layout, settings, complaint):
    found = problems(layout, **settings)
    assert complaint in found if complaint else found == ""


def test_refusal_says_what_would_work():
    with pytest.raises(InputError) as refusal:
        check_layout(Layout(1, 1, 4), ParallelConfig(tp=4), model(), DOMAIN, 8)
    message = str(refusal.value)
    assert message.startswith("layout tp4 cannot train this model:")
    assert "more than the 3 channels" in message
    assert "on 4 devices these would work: shard4, replicate2-shard2, replicate4, shard2-tp2, replicate2-tp2" in message


def test_feasible_layouts_are_all_and_only_those_without_problems():
    config, size = ParallelConfig(), 8
    found = list(feasible_layouts(8, config, model(), DOMAIN, size))
    every = [Layout(r, s, t) for r in range(1, 9) for s in range(1, 9) for t in range(1, 9) if r * s * t == 8]
    assert set(found) == {layout for layout in every if not layout_problems(layout, config, model(), DOMAIN, size)}
    assert len(found) == len(set(found))
