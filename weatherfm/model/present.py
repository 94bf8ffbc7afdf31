"""Which inputs of a model are there, of samples that lack some channels.

Legend: B batch, T input time, C state channel, I input channel.
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


def present_now(present: Tensor, input_times: Sequence[int], channels: int) -> Tensor:
    """[B, C] of [B, I]: the channels whose state at the initial time is there; `channels` is C."""
    return present.narrow(1, list(input_times).index(0) * channels, channels)
