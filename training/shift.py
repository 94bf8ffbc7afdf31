"""Random shifts of the training fields: weather a little further on moves in much the same way.

All fields of a step are moved by the same few grid points, while constant fields, forcings and position embedding
stay. With few years of data it keeps the model from learning the days by heart. Cells that come from beyond the
edge (repeated from the edge row or column) do not count in the loss; along longitude a global grid has no edge.

Legend: H lat, W lon.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from weatherfm.training.batches import ReadyBatch


@dataclass(frozen=True)
class Shift:
    """Every value comes from `south` rows further down and `east` columns further on."""

    south: int
    east: int
    periodic: bool
    """True where the columns go round the Earth."""

    def fields(self, x: Tensor) -> Tensor:
        """[..., H, W] moved; cells beyond an edge repeat it."""
        rows, columns, _ = self._sources(x.shape[-2], x.shape[-1])
        return x[..., rows.to(x.device), :][..., columns.to(x.device)]

    def inside(self, shape: tuple[int, int]) -> Tensor:
        """[H, W] float32: 1 where a cell's values come from within the grid, else 0."""
        return self._sources(*shape)[2]

    def batch(self, ready: ReadyBatch) -> ReadyBatch:
        """The same samples with history and target moved."""
        batch = ready.batch
        moved = replace(batch, history=self.fields(batch.history), target=self.fields(batch.target))
        return replace(ready, batch=moved)

    def _sources(self, n_lat: int, n_lon: int) -> tuple[Tensor, Tensor, Tensor]:
        rows, columns = torch.arange(n_lat) + self.south, torch.arange(n_lon) + self.east
        if self.periodic:
            columns = columns % n_lon
        row_inside, column_inside = rows.clamp(0, n_lat - 1) == rows, columns.clamp(0, n_lon - 1) == columns
        inside = row_inside[:, None] & column_inside
        return rows.clamp(0, n_lat - 1), columns.clamp(0, n_lon - 1), inside.float()


def draw_shift(most: int, periodic: bool, seed: int, step: int) -> Shift | None:
    """The shift of an optimizer step, uniform up to `most` points either way; None where `most` is 0."""
    if most == 0:
        return None
    south, east = np.random.default_rng([seed, step, most]).integers(-most, most + 1, 2).tolist()
    return Shift(south, east, periodic)
