"""What one rank does in a layout: its share of the channels, its part of every batch, and how ranks' results add up.

Legend: C channel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
import torch.distributed as dist
from torch import Tensor

from weatherfm.earth.domain import Domain
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.share import ChannelShare, channel_shares, whole, within
from weatherfm.training.parallel.layout import Layout
from weatherfm.training.parallel.mesh import Mesh
from weatherfm.training.run_config import ParallelConfig, RunConfig


@dataclass(frozen=True)
class Role:
    """A rank's place in the work.

    Attributes:
        mesh: None when alone.
        share: channels that this rank reads, predicts and scores.
        part: (index, count) of its part of every batch; the same for all ranks of one `tp` group.
        copies: ranks that score the same channels of the same samples; 1 where channels are split.
        whole: the share that holds all channels.
        at_hand: of these, what the data at hand have; None: all.
    """

    mesh: Mesh | None
    share: ChannelShare
    part: tuple[int, int]
    copies: int
    whole: ChannelShare
    at_hand: ChannelShare | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """Of the whole model, those that are scored."""
        return self.whole.outputs

    @property
    def among(self) -> ChannelShare:
        """The channels at hand, on all ranks together."""
        return self.at_hand or self.whole

    def on(self, domain: Domain) -> Role:
        """The same on data that have some of the channels."""
        return replace(self, share=within(self.share, domain), at_hand=within(self.whole, domain))

    @property
    def first(self) -> bool:
        """Whether this rank speaks and writes for all."""
        return self.mesh is None or dist.get_rank() == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks, on each of them."""
        if self.mesh is not None:
            dist.all_reduce(values)
        return values

    def union(self, items: Iterable[str]) -> list[str]:
        """The items of all ranks, each once, in the order of ranks."""
        own = list(items)
        lists = [own]
        if self.mesh is not None:
            lists = [[]] * dist.get_world_size()
            dist.all_gather_object(lists, own)
        return list(dict.fromkeys(chain.from_iterable(lists)))

    def spread(self, values: Tensor) -> Tensor:
        """Own outputs' values [..., C own] among zeros for the others' [..., C]: summed over ranks, all are there."""
        places = [self.channels.index(name) for name in self.share.outputs]
        out = torch.zeros(*values.shape[:-1], len(self.channels), dtype=values.dtype, device=values.device)
        ends = [i for i, place in enumerate(places) if place + 1 not in places[i + 1 : i + 2]]
        for begin, end in zip([0, *(i + 1 for i in ends)], ends, strict=False):  # slices: no index goes to the device
            out[..., places[begin] : places[end] + 1] = values[..., begin : end + 1] / self.copies
        return out

    def deal_out(self, items: Sequence[int]) -> tuple[list[int], int]:
        """Own items, and how many of them count: the rest only keep the number of steps alike on all ranks."""
        index, count = self.part
        own = list(items[index::count])
        padding = -(-len(items) // count) - len(own)
        return own + [items[-1]] * padding, len(own)


def find_role(config: ParallelConfig, model: ModelConfig, domain: Domain, mesh: Mesh | None) -> Role:
    """The role of this rank."""
    everything = whole(model, domain)
    if mesh is None:
        return Role(None, everything, (0, 1), 1, everything)
    tp, part = mesh.layout.tp, (mesh.dp_index, mesh.layout.dp)
    if config.channels == "whole":
        return Role(mesh, everything, part, tp, everything)
    return Role(mesh, channel_shares(model, domain, tp)[mesh.tp_index], part, 1, everything)


def heaviest_rank(config: RunConfig, domain: Domain, layout: Layout) -> int:
    """The rank that holds most input and output channels, the first of these."""
    if config.parallel.channels == "whole":
        return 0
    shares = channel_shares(config.model, domain, layout.tp)
    weights = [len(share.input_names(config.model.input_times)) + len(share.outputs) for share in shares]
    return weights.index(max(weights))
