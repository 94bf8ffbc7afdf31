"""Shipped configurations that start from the weights of another one: these fit, and what they freeze is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from places import ROOT

from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.model.architecture import patch_counts
from weatherfm.model.model import WeatherViT
from weatherfm.model.share import input_names
from weatherfm.training.run_config import RunConfig, load_run
from weatherfm.training.starting.donor import Donor
from weatherfm.training.starting.learning import freeze
from weatherfm.training.starting.matching import Match, match

EUROPE = Grid(np.arange(72, 32.9, -0.25), np.arange(-12, 42.1, 0.25))


def domain_of(config: RunConfig, grid: Grid) -> Domain:
    count = len(config.data.channels)
    statics = (*config.data.static, "mask_sst") if "sst" in config.data.channels else tuple(config.data.static)
    fields, ones = np.zeros((len(statics), *grid.shape), np.float32), np.ones(count)
    return Domain(tuple(config.data.channels), grid, 0 * ones, ones, ones, tuple(statics), fields)


def started(name: str, grid: Grid, others: Grid) -> tuple[RunConfig, Match]:
    """A shipped run, and what it takes from the one that its settings name."""
    config = load_run(ROOT / "configs" / f"{name}.yaml")
    settings = config.training.start_from
    old = load_run(ROOT / "configs" / f"{Path(settings.weights).name}.yaml")
    held, own = domain_of(old, others), domain_of(config, grid)
    with torch.device("meta"):
        donor, model = WeatherViT(old.model, held), WeatherViT(config.model, own)
    freeze(model, settings)
    names = frozenset(name for name, _ in donor.named_parameters())
    found = Donor(
        Path(settings.weights), old.model, tuple(input_names(old.model, held)), donor.share.outputs,
        patch_counts(old.model.patch, others.shape), names, held, "", {},
    )  # fmt: skip
    return config, match(found, config.model, own, settings.new_channels)


@pytest.mark.parametrize(
    ("name", "grid", "others", "new"),
    [
        ("finetune_planet", regular_grid((32, 64)), regular_grid((32, 64)), {"t925", "u400"}),
        ("era5_finetune_region", EUROPE, regular_grid((32, 64)), {"d2m"}),
        ("add_precipitation", regular_grid((32, 64)), regular_grid((32, 64)), {"tp"}),
    ],
)
def test_the_weights_that_a_recipe_names_fit(name, grid, others, new):
    config, found = started(name, grid, others)
    channels = config.data.channels
    assert {name for name in channels if found.outputs.get(name) != (name,)} == new
    assert {name for name in channels if name in found.inputs and found.inputs[name] != (name,)} == new - {"tp"}
    assert not found.added_blocks
    assert not found.joined
