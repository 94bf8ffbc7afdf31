"""Attention within windows of patches: what a block sees, and its positions in the order of windows.

The grid of H x W patches is cut into windows of h x w, from the first row and column on; where a block is shifted, from
half a window further:

    row of windows      (i - s) // h                 s = h // 2 where shifted, else 0
    column of windows   ((j - t) mod W) // w         round a periodic grid (t = w // 2 where shifted, else 0)
                        (j - t) // w                 elsewhere

and a patch sees those of the same row and column of windows: no more and no less. So round a globe the cut lies t
columns further east in shifted blocks, and windows lie across the seam whole. Windows end at the poles as they end at
the edges of an area: nothing is looked at behind a pole, and the first and last rows of windows are as low as the shift
leaves them. (Patches around a pole meet through global blocks, `global_every`, and `model.mlp_convolution`.) A side of
a window as long as the grid's is that of the grid, and is not shifted.

What is left over at the ends are smaller windows. Windows of one size form a rectangle of the grid, of which there are
at most three by three; each is attended to by itself, without a mask and without a position that fills up. Nothing is
computed in vain, and kernels that know no masks serve.

Legend: B batch, H rows, W columns, N = H W patch tokens, D width, V windows of all samples, n positions of a window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """Windows over the patches of a grid.

    Args:
        tokens: (H, W) patches.
        size: (h, w) of a window, at most those of the grid.
        shift: (s, t) where the first whole window begins.
        periodic: the last column neighbours the first.
    """

    tokens: tuple[int, int]
    size: tuple[int, int]
    shift: tuple[int, int]
    periodic: bool

    @classmethod
    def over(cls, tokens: tuple[int, int], size: tuple[int, int], shifted: bool, periodic: bool) -> Windows | None:
        """Windows of at most this size; None where one holds the whole grid."""
        rows, columns = (min(*pair) for pair in zip(tokens, size, strict=True))
        if (rows, columns) == tokens:
            return None
        cut = (rows < tokens[0], columns < tokens[1])
        shift = (rows // 2 * (shifted and cut[0]), columns // 2 * (shifted and cut[1]))
        return cls(tokens, (rows, columns), shift, periodic)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, attention: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Attention of every position over those of its window.

        Args:
            query: [B, heads, N, d].
            key: the same.
            value: the same.
            attention: of [V, heads, n, d] each, to the same.

        Returns:
            [B, heads, N, d].
        """
        batch, heads, _, size = query.shape
        order, rectangles = self._order(batch, query.device)
        places = torch.empty_like(order).index_copy_(0, order, torch.arange(len(order), device=order.device))
        parts = [
            _Reordered.apply(x.transpose(1, 2).reshape(-1, heads, size), order, places).split(
                [count * length for count, length in rectangles]
            )
            for x in (query, key, value)
        ]
        mixed = []
        for (_, length), of_rectangle in zip(rectangles, zip(*parts, strict=True), strict=True):
            q, k, v = (x.unflatten(0, (-1, length)).transpose(1, 2) for x in of_rectangle)  # [V, heads, n, d]
            mixed.append(attention(q, k, v).transpose(1, 2).flatten(0, 1))  # [V * n, heads, d]
        whole = mixed[0] if len(mixed) == 1 else torch.cat(mixed)
        return _Reordered.apply(whole, places, order).view(batch, -1, heads, size).transpose(1, 2)

    def _order(self, batch: int, device: torch.device) -> tuple[Tensor, list[tuple[int, int]]]:
        """[B * N] positions of all samples in the order of windows, and by rectangle (V, n)."""
        (H, W), (h, w), (s, t) = self.tokens, self.size, self.shift
        positions = torch.arange(batch * H * W, device=device).view(batch, H, W)
        if self.periodic and t:
            positions, t = positions.roll(-t, 2), 0
        bands = [x for rows in positions.split(_lengths(H, h, s), 1) for x in rows.split(_lengths(W, w, t), 2)]
        parts, rectangles = [], []
        for band, (rows, columns) in zip(bands, product(_sides(H, h, s), _sides(W, w, t)), strict=True):
            windows = band.unflatten(2, (-1, columns)).unflatten(1, (-1, rows))  # [B, , rows, , columns]
            parts.append(windows.transpose(2, 3).flatten())
            rectangles.append((band.numel() // (rows * columns), rows * columns))
        return torch.cat(parts), rectangles


def _lengths(whole: int, size: int, shift: int) -> list[int]:
    """A side of the grid in what is before the first whole window, all whole windows, and what is left."""
    windows = (whole - shift) // size * size
    return [length for length in (shift, windows, whole - shift - windows) if length]


def _sides(whole: int, size: int, shift: int) -> list[int]:
    """Of each of these the side of a window."""
    return [min(size, length) if length % size == 0 else length for length in _lengths(whole, size, shift)]


class _Reordered(torch.autograd.Function):
    """Rows in another order; the gradient goes back by the inverse order, instead of being added up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return gradient.index_select(0, inverse), None, None
