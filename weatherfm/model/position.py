"""Position embedding, its 2-D sine-cosine start and its interpolation to another grid; rotary positions.

Legend: B batch, N position, D width, h head, d head size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BASE = 100.0
"""Ratio of the longest wavelength to the shortest, for images (arXiv 2403.13298, section 3.2)."""


class Position(nn.Module):
    """A learned vector for every position, added to its token."""

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(positions, width))
        self.rows = slice(None)  # seam: the positions that are handed in; all of them when alone

    def forward(self, x: Tensor, chosen: Tensor | None = None) -> Tensor:
        """[B, N, D] -> [B, N, D], N the number of `rows`, or, where given, of the positions [B, N] `chosen`."""
        return x + self.weight[self.rows if chosen is None else chosen]


def sincos(positions: Tensor, width: int) -> Tensor:
    """[N] -> [N, width]: sines then cosines at wavelengths from 2 pi to 20,000 pi (arXiv 1706.03762, section 3.5)."""
    steps = torch.arange(width // 2, dtype=positions.dtype, device=positions.device)
    frequency = 10000 ** -(steps / (width / 2))
    angle = positions[:, None] * frequency  # [N, width / 2]
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def sincos_position(tokens: tuple[int, int], width: int) -> Tensor:
    """[N, width] for (lat, lon) patches: the first half of the width encodes longitude, the second latitude (MAE)."""
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in tokens)
    lat, lon = torch.meshgrid(rows, columns, indexing="ij")
    return torch.cat([sincos(lon.flatten(), width // 2), sincos(lat.flatten(), width // 2)], dim=1).float()


def interpolate_position(position: Tensor, tokens: tuple[int, int], new_tokens: tuple[int, int]) -> Tensor:
    """Bicubic interpolation of [N, width] from (lat, lon) `tokens` to `new_tokens`."""
    if tokens == new_tokens:
        return position
    image = position.T.unflatten(1, tokens)[None]  # [1, width, lat, lon]
    image = F.interpolate(image, new_tokens, mode="bicubic", align_corners=False)
    return image[0].flatten(1).T  # [N, width]


@dataclass(frozen=True)
class Rotary:
    """Turns queries and keys, so that attention sees how far apart two patches are (arXiv 2104.09864; 2403.13298).

    Half of a head's numbers are turned by the row of the patch, the other half by its column. On a periodic grid
    columns turn a whole number of times round the circle, so that distance is what it is on Earth.

    Args:
        tokens: (lat, lon) patches.
        head_size: d, a multiple of 4.
        periodic: the last column neighbours the first.
    """

    tokens: tuple[int, int]
    head_size: int
    periodic: bool

    def __call__(self, x: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Turn the pairs (i, i + d / 2) of [B, h, N, d], of all positions or those [B, N] `chosen`."""
        angles = self.angles(x)
        if chosen is not None:
            angles = angles[chosen][:, None]
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        first, second = x.chunk(2, -1)
        return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)

    def angles(self, like: Tensor) -> Tensor:
        """[N, d / 2] radians: for the row of each patch, then for its column; in float32 or better."""
        pairs = self.head_size // 4
        exact: dict[str, Any] = {"device": like.device, "dtype": torch.promote_types(like.dtype, torch.float32)}
        steps = torch.arange(pairs, **exact) / pairs
        slow_to_fast = math.pi * _BASE ** (steps - 1)  # radians a patch, from pi / 100 on
        around = slow_to_fast
        if self.periodic:  # from one turn in all columns to a turn in two
            around = ((self.tokens[1] / 2) ** steps).round() * (2 * math.pi / self.tokens[1])
        rows, columns = (torch.arange(n, **exact) for n in self.tokens)
        row, column = torch.meshgrid(rows, columns, indexing="ij")
        return torch.cat([row.reshape(-1, 1) * slow_to_fast, column.reshape(-1, 1) * around], 1)
