"""What lies around a field on the sphere, and convolution of the MLP's hidden units over neighbouring patches.

Legend: B batch, H rows, W columns, N = H W patch tokens, F hidden unit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weatherfm.earth.grid import Grid

_POLE = 90 - 1e-3
"""Degrees; archives store coordinates in float32."""


@dataclass(frozen=True)
class Edges:
    """What comes after the last row and column of a field, or of its patches."""

    periodic: bool
    """The last column neighbours the first."""
    north: int | None = None
    """What lies behind the pole that the first row is next to: the rows of the opposite longitudes from this one on, 1
    where the first row is the pole itself, else 0. None: no pole is there."""
    south: int | None = None
    """Of the last row, counted from the south, likewise."""

    @classmethod
    def of(cls, grid: Grid) -> Edges:
        """Of a grid's points."""

        def behind(end: int) -> int | None:
            at_pole = grid.periodic and abs(grid.latitude_bounds[end]) == 90
            return int(abs(grid.latitude[end]) > _POLE) if at_pole else None

        return cls(grid.periodic, behind(0), behind(-1))

    def of_patches(self) -> Edges:
        """Of the patches that such a grid is cut into: the outermost ones end at the poles."""
        return Edges(self.periodic, *(None if behind is None else 0 for behind in (self.north, self.south)))


def pad(
    x: Tensor,
    width: int,
    edges: Edges,
    dims: tuple[int, int] = (-2, -1),
    behind_pole: Callable[[Tensor], Tensor] = lambda rows: rows,
) -> Tensor:
    """A field with `width` more rows and columns on each side.

    Around a periodic grid come the columns of the other side; behind a pole the rows of the opposite longitudes (of an
    odd number of columns half a column off); elsewhere the outermost values are repeated.

    Args:
        x: [..., H, W], or with rows and columns at `dims`.
        width: at most H and W.
        edges: of the field.
        dims: where rows and columns are.
        behind_pole: makes of the rows of the opposite longitudes what they are seen from this side: components of a
            vector, whose directions turn round at the pole, change their sign.
    """
    row, column = dims
    rows, columns = x.shape[row], x.shape[column]

    def behind(first: int) -> Tensor:
        return behind_pole(x.narrow(row, first, width).flip(row).roll(columns // 2, column))

    def repeated(dim: int, index: int) -> Tensor:
        shape = list(field.shape)
        shape[dim] = width
        return field.narrow(dim, index, 1).expand(shape)

    field = x
    north = repeated(row, 0) if edges.north is None else behind(edges.north)
    south = repeated(row, rows - 1) if edges.south is None else behind(rows - width - edges.south)
    field = torch.cat([north, field, south], row)
    if edges.periodic:
        west, east = field.narrow(column, columns - width, width), field.narrow(column, 0, width)
    else:
        west, east = repeated(column, 0), repeated(column, columns - 1)
    return torch.cat([west, field, east], column)


class NeighbourMixing(nn.Module):
    """x plus a depth-wise 3 x 3 convolution of it over neighbouring patches, which starts at zero (`initial`).

    A convolution inside the MLP gives transformers the local structure that they learn slowly (SegFormer,
    arXiv 2105.15203, equation 3). Whoever holds some of the hidden units convolves these.

    Args:
        units: F.
        tokens: (H, W) patches.
        edges: of the patches.
    """

    of_data = ("tokens", "edges")
    own: Callable[[Tensor], Tensor] = staticmethod(lambda weight: weight)
    """Seam: the rows of the weight that belong to the hidden units handed in."""

    def __init__(self, units: int, tokens: tuple[int, int], edges: Edges) -> None:
        super().__init__()
        self.tokens, self.edges = tokens, edges
        self.weight = nn.Parameter(torch.empty(units, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, F] -> [B, N, F]."""
        weight = self.own(self.weight)
        fields = x.unflatten(1, self.tokens)  # [B, H, W, F]
        fields = pad(fields, 1, self.edges, (1, 2)).permute(0, 3, 1, 2)  # channels last in memory
        mixed = F.conv2d(fields, weight[:, None], groups=len(weight))
        return x + mixed.permute(0, 2, 3, 1).flatten(1, 2)
