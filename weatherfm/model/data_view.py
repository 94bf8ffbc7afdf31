"""A model on other data: the same weights, with another grid, other statistics and some of the channels.

All of a model that follows from its data, and is no weight, is taken from one that is built for these data without
values: buffers, what modules name in `of_data`, and the rows of the weights that belong to the channels at hand. Rows
of other channels are not computed with, and their gradient is zero.

Legend: R rows at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from weatherfm.earth.domain import Domain
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.initial import row_names
from weatherfm.model.model import WeatherViT
from weatherfm.model.own_backbone import require_other_grid
from weatherfm.model.share import ChannelShare

ROW_PARTS = ("tokenizer", "to_patches", "decoder", "truncation")
"""Parts of a model whose weights are rows of channels."""


@dataclass(frozen=True, eq=False)
class DataView:
    """What a model is on some data, beside its weights."""

    built: WeatherViT
    """Its weights have no values; its buffers do."""
    rows: dict[str, Tensor | None]
    """By part the [R] places of the rows at hand among the model's own; None: all of them, in their order."""


def view_of(
    model: WeatherViT, config: ModelConfig, domain: Domain, share: ChannelShare, device: torch.device
) -> DataView:
    """How a model is on other data.

    Args:
        model: that holds the weights.
        config: its architecture, with the roles of the channels at hand.
        domain: of the whole of these data.
        share: what of the channels at hand the model holds, one at least that goes in.
        device: of the model.
    """
    with torch.device("meta"):
        built = WeatherViT(config, domain, share)
    require_other_grid(model, built)
    built.set_statistics(device)
    rows = {}
    for part in ROW_PARTS:
        held, wanted = (row_names(one, f"{part}.weight") or [] for one in (model, built))
        rows[part] = None if held == wanted else torch.tensor([held.index(name) for name in wanted], device=device)
    return DataView(built, rows)


def take_of_data(model: nn.Module, built: nn.Module) -> None:
    """Take from a model that is built for other data what modules say follows from data; in place."""
    parts = dict(built.named_modules())
    for name, module in model.named_modules():
        for key in getattr(module, "of_data", ()):
            setattr(module, key, getattr(parts[name], key))


def look_at(model: WeatherViT, view: DataView) -> None:
    """Let a model be on these data from now on; in place."""
    take_of_data(model, view.built)
    for name in model.data_buffers:
        setattr(model, name, getattr(view.built, name, None))
    for part, rows in view.rows.items():
        if (module := getattr(model, part)) is not None:
            module.rows = rows
    model.place_positions()
