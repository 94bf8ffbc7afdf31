"""A small convolutional decoder at grid level, channel by channel: it ends the seams between patches.

Legend: B batch, C channel, H lat, W lon, E hidden field.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weatherfm.earth.variables import is_wind_component
from weatherfm.model.neighbours import Edges, pad


class ChannelDecoder(nn.Module):
    """What is added to a channel's predicted field, from that field and the channel's present state.

    Two convolutions with GELU between them; the second starts at zero (`initial`). Every channel has weights of its
    own, so that whoever holds some channels decodes these.

    Args:
        channels: short names.
        fields: E, a channel.
        edges: of the grid.
    """

    def __init__(self, channels: Sequence[str], fields: int, edges: Edges) -> None:
        super().__init__()
        self.channels, self.edges = tuple(channels), edges
        C = len(channels)
        self.expand = nn.Parameter(torch.empty(C, fields, 2 * 9))
        self.bias = nn.Parameter(torch.zeros(C, fields))
        self.contract = nn.Parameter(torch.empty(C, fields, 9))

    def forward(self, predicted: Tensor, now: Tensor) -> Tensor:
        """Both [B, C, H, W]; -> [B, C, H, W]."""
        C, E = self.bias.shape
        x = torch.stack([predicted, now.to(predicted.dtype)], 2).permute(0, 3, 4, 1, 2)
        x = x.contiguous()  # [B, H, W, C, 2]: channels last in memory, where convolutions of one each are fast
        signs = x.new_tensor([-1.0 if is_wind_component(name) else 1.0 for name in self.channels])
        x = pad(x, 2, self.edges, (1, 2), behind_pole=signs[:, None]).flatten(3).permute(0, 3, 1, 2)
        expand = self.expand.unflatten(-1, (2, 3, 3)).flatten(0, 1)  # [C E, 2, 3, 3]
        hidden = F.gelu(F.conv2d(x, expand, self.bias.flatten(), groups=C))  # [B, C E, H + 2, W + 2]
        contract = self.contract.unflatten(-1, (3, 3)).flatten(0, 1)[:, None]  # [C E, 1, 3, 3]
        return F.conv2d(hidden, contract, groups=C * E).unflatten(1, (C, E)).sum(2)
