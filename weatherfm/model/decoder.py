"""A small convolutional decoder at grid level, channel by channel: it ends the seams between patches.

Legend: B batch, C channel, H lat, W lon, E hidden field.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weatherfm.earth.variables import is_wind_component
from weatherfm.errors import InputError
from weatherfm.model.neighbours import Edges, pad
from weatherfm.model.tokenizer import at_hand

REACH = 2
"""Rows and columns around a point that two convolutions of 3 x 3 see."""


class ChannelDecoder(nn.Module):
    """What is added to a channel's predicted field, from that field and the channel's present state.

    Two convolutions with GELU between them; the second starts at zero (`initial`). Every channel has weights of its
    own, so that whoever holds some channels decodes these.

    Args:
        channels: short names.
        fields: E, a channel.
        edges: of the grid.
    """

    rows: Tensor | None = None
    """Seam, as of the tokenizer."""
    of_data = ("channels", "edges")

    def __init__(self, channels: Sequence[str], fields: int, edges: Edges) -> None:
        super().__init__()
        self.channels, self.edges = tuple(channels), edges
        C = len(channels)
        self.expand = nn.Parameter(torch.empty(C, fields, 2 * 9))
        self.bias = nn.Parameter(torch.zeros(C, fields))
        self.contract = nn.Parameter(torch.empty(C, fields, 9))

    def forward(self, predicted: Tensor, now: Tensor, calm: Tensor) -> Tensor:
        """What to add to the prediction.

        Args:
            predicted: [B, C, H, W] increment or state, in the units of the head.
            now: [B, C, H, W] normalised.
            calm: [C, 2], or [B, 1, 1, C, 2], what no wind is in the units of both.

        Returns:
            [B, C, H, W].
        """
        bias, expand, contract = (at_hand(weight, self.rows) for weight in (self.bias, self.expand, self.contract))
        C, E = bias.shape
        x = torch.stack([predicted, now.to(predicted.dtype)], 2).permute(0, 3, 4, 1, 2)
        x = x.contiguous()  # [B, H, W, C, 2]: channels last in memory, where convolutions of one each are fast
        winds = torch.tensor([is_wind_component(name) for name in self.channels], device=x.device)[:, None]
        calm = calm.to(x.dtype)
        x = pad(x, REACH, self.edges, (1, 2), behind_pole=lambda rows: torch.where(winds, 2 * calm - rows, rows))
        x = x.flatten(3).permute(0, 3, 1, 2)
        expand = expand.unflatten(-1, (2, 3, 3)).flatten(0, 1)  # [C E, 2, 3, 3]
        hidden = F.gelu(F.conv2d(x, expand, bias.flatten(), groups=C))  # [B, C E, H + 2, W + 2]
        contract = contract.unflatten(-1, (3, 3)).flatten(0, 1)[:, None]  # [C E, 1, 3, 3]
        return F.conv2d(hidden, contract, groups=C * E).unflatten(1, (C, E)).sum(2)


def require_grid(shape: tuple[int, int]) -> None:
    """Refuse grids that end within its reach.

    Raises:
        InputError: fewer rows than it looks at behind a pole, where a row on the pole itself comes first.
    """
    if shape[0] <= REACH:
        raise InputError(
            f"model.decoder_fields is for grids of {REACH + 1} latitudes or more; this one has {shape[0]}; set "
            "decoder_fields: 0"
        )
