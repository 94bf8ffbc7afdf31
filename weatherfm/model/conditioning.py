"""Adaptive layer norms: every block is told the lead time of a sample and the time that it starts from.

A small MLP makes one vector of what is known of a sample; of it each block's two norms get shift, scale and gate, and
the last norm shift and scale (adaLN-Zero, arXiv 2212.09748, section 3.2; on the lead time as in arXiv 2312.03876):

    x + gate * layer(norm(x) * (1 + scale) + shift)

All of them start at zero (`initial`), so that each block starts as the identity. With `model.noise` a second such
network, whose conditions are the first one's and noise, makes further changes that are added to these: at zero too, so
that members of an ensemble start alike, and weights without noise can be gone on from (noise through norms as in
functional generative networks, arXiv 2506.10772, and AIFS-CRPS, arXiv 2412.15832). Where norms have weights instead
(`conditioning: embed`) they are changed by that one alone, and gates start at one.

Legend: B batch, K condition, E hidden number, L block, N position, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weatherfm.model.position import sincos

CHANGES = 6
"""Of a block: shift, scale and gate of the attention, then of the MLP."""
_HIDDEN = 64
"""A sample is told by a handful of numbers: with D in its place, what makes the changes of all blocks of it would be
half as large as the blocks."""
LEAD_TIME = 32
"""Sines and cosines of the lead time."""


class Modulation(nn.Linear):
    """Changes of norms from the vector of a sample; starts at zero."""


class Conditioning(nn.Module):
    """Changes of all norms from lead time and conditions.

    Args:
        width: D.
        depth: L.
        conditions: K.
    """

    def __init__(self, width: int, depth: int, conditions: int) -> None:
        super().__init__()
        self.width = width
        self.expand, self.mix = nn.Linear(LEAD_TIME + conditions, _HIDDEN), nn.Linear(_HIDDEN, _HIDDEN)
        self.blocks = nn.ModuleList(Modulation(_HIDDEN, CHANGES * width) for _ in range(depth))
        self.last = Modulation(_HIDDEN, 2 * width)

    def forward(self, lead_time_hours: Tensor, condition: Tensor) -> Tensor:
        """[B] and [B, K] -> [B, 6 L + 2, D]: of each block in turn, then shift and scale of the last norm."""
        known = known_of(lead_time_hours, condition, None, self.expand.weight.dtype)
        hidden = F.silu(self.mix(F.silu(self.expand(known))))  # [B, E]
        changes = torch.cat([modulation(hidden) for modulation in (*self.blocks, self.last)], 1)
        return changes.unflatten(1, (-1, self.width))


def known_of(lead_time_hours: Tensor, condition: Tensor | None, noise: Tensor | None, dtype: torch.dtype) -> Tensor:
    """What is known of a sample, in float32 or better: [B], [B, K], [B, Z] -> [B, LEAD_TIME + K + Z]."""
    exact = torch.promote_types(dtype, torch.float32)
    lead_time = sincos(lead_time_hours.to(exact), LEAD_TIME)
    return torch.cat([lead_time, *(x.to(exact) for x in (condition, noise) if x is not None)], 1)


def opened(changes: Tensor) -> Tensor:
    """Changes [B, 6 L + 2, D] with 1 added to the gates: none of them is a block as it is without."""
    places = torch.arange(changes.shape[1], device=changes.device)
    gates = (places % 3 == 2) & (places < changes.shape[1] - 2)
    return changes + gates.to(changes.dtype)[:, None]


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x [B, N, D] times 1 + scale, plus shift, [B, 1, D] each; a scale near zero is not lost in bfloat16."""
    return x + (x * scale + shift)
