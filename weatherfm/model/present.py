"""Which inputs of a model are there, of samples that lack some channels.

Legend: B batch, T input time, C channel that goes in, O channel that comes out, I input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from weatherfm.model.share import ChannelShare


def present_inputs(states: Tensor, share: ChannelShare) -> Tensor:
    """[B, I] bool of the states [B, T, C] that are there; constant fields and forcings always are."""
    others = len(share.static_names) + len(share.forcings)
    return torch.cat([states.flatten(1), states.new_ones(len(states), others)], 1)


def present_now(present: Tensor, input_times: Sequence[int], share: ChannelShare) -> Tensor:
    """[B, O] of [B, I]: outputs whose state at the initial time is there; one that never goes in is not."""
    now = present.narrow(1, list(input_times).index(0) * len(share.inputs), len(share.inputs))
    if share.inputs == share.outputs:
        return now
    alone = now.new_zeros(len(now), 1)
    places = {name: i for i, name in enumerate(share.inputs)}
    order = torch.tensor([places.get(name, len(places)) for name in share.outputs], device=now.device)
    return torch.cat([now, alone], 1).index_select(1, order)
