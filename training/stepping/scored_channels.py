"""Which channels a rank scores, and what of their fields counts how much; the same for every objective.

Legend: C channel, O channel that comes out, H lat, W lon.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from weatherfm.earth.domain import Domain
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.share import ChannelShare, whole
from weatherfm.training.stepping.channel_weights import normalised_weights


@dataclass(frozen=True, eq=False)
class ScoredChannels:
    """The outputs of a share, among those of the whole model."""

    by_channel: Tensor
    """[O of the whole model] float64 weights, mean 1."""
    own: list[int]
    """Places of the share's outputs among those of the whole model."""
    places: list[int]
    """Places in the domain's channels of the outputs of the whole model."""
    cells: Tensor
    """[H, W] weights of cells, or [O, H, W], 0 where a channel has no value; mean 1 each."""
    rows: Tensor | None
    """[O] places of the share's outputs in its C channels; None: they are all of them."""


def scored_channels(
    config: ModelConfig, domain: Domain, weights: Mapping[str, float | str], share: ChannelShare | None = None
) -> ScoredChannels:
    """What a share scores.

    Args:
        config: of the model.
        domain: gives cell areas and masks.
        weights: `training.channel_weights`; they are divided by their mean.
        share: channels that are scored here, of all that the weights are shared among; without it, all.

    Raises:
        InputError: every channel has weight zero.
    """
    everything = whole(config, domain)
    share = share or everything
    own = [everything.outputs.index(name) for name in share.outputs]
    places = [domain.channels.index(name) for name in everything.outputs]
    cells = torch.as_tensor(domain.grid.area_weights)
    if domain.masks:
        cells = cells * torch.as_tensor(domain.present[places][own])
        cells = cells / cells.mean((-2, -1), keepdim=True)
    rows = None
    if share.outputs != share.channels:
        rows = torch.tensor([share.channels.index(name) for name in share.outputs])
    return ScoredChannels(normalised_weights(everything.outputs, weights), own, places, cells, rows)
