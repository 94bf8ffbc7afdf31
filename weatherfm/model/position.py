"""Position embedding, its 2-D sine-cosine start, and its interpolation to another grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Position(nn.Module):
    """A learned vector for every position, added to its token."""

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(positions, width))
        self.rows = slice(None)  # seam: the positions that are handed in; all of them when alone

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D], N the number of `rows`."""
        return x + self.weight[self.rows]


def _sincos(positions: Tensor, width: int) -> Tensor:
    """[N] -> [N, width]: sines then cosines at wavelengths from 2 pi to 20,000 pi (arXiv 1706.03762, section 3.5)."""
    frequency = 10000 ** -(torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angle = positions[:, None] * frequency  # [N, width / 2]
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def sincos_position(tokens: tuple[int, int], width: int) -> Tensor:
    """[N, width] for (lat, lon) patches: the first half of the width encodes longitude, the second latitude (MAE)."""
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in tokens)
    lat, lon = torch.meshgrid(rows, columns, indexing="ij")
    return torch.cat([_sincos(lon.flatten(), width // 2), _sincos(lat.flatten(), width // 2)], dim=1).float()


def interpolate_position(position: Tensor, tokens: tuple[int, int], new_tokens: tuple[int, int]) -> Tensor:
    """Bicubic interpolation of [N, width] from (lat, lon) `tokens` to `new_tokens`."""
    if tokens == new_tokens:
        return position
    image = position.T.unflatten(1, tokens)[None]  # [1, width, lat, lon]
    image = F.interpolate(image, new_tokens, mode="bicubic", align_corners=False)
    return image[0].flatten(1).T  # [N, width]
