"""Which patches batches of a masked autoencoder show: of training by their number, of validation by their times.

The same on all ranks of `tp`, on any number of devices, and in a run that goes on (`weatherfm.model.hidden_patches`).

Legend: B sample, V visible position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.earth.grid import Grid
from weatherfm.model.architecture import patch_counts
from weatherfm.model.hidden_patches import visible_at, visible_in_batch
from weatherfm.training.parallel.role import Role
from weatherfm.training.run_config import RunConfig


def patches_shown(
    config: RunConfig, role: Role, grid_of: Callable[[int], Grid], first: int, stop: int
) -> Iterator[Tensor] | None:
    """What the batches `first` .. `stop` - 1 show of a rank's samples, [B own, V] each; None: the model forecasts.

    `grid_of`: the grid of a batch, by its number.
    """
    if config.model.reconstruction is None:
        return None
    return (_of_batch(config, role, grid_of(number), number) for number in range(first, stop))


def _of_batch(config: RunConfig, role: Role, grid: Grid, number: int) -> Tensor:
    settings, (index, count) = config.training, role.part
    size = settings.batch_size // count
    drawn = visible_in_batch(settings.seed, number, settings.batch_size, *_counts(config, grid))
    return torch.from_numpy(drawn[index * size : (index + 1) * size])


def validation_patches(
    config: RunConfig, store: Store, times: Sequence[np.datetime64] | np.ndarray, batch_size: int
) -> Iterator[Tensor]:
    """Of batches of these times [n] in turn, [B, V]: a sample shows the same whenever it is scored."""
    known, counts = np.asarray(times), _counts(config, store.grid)
    return (
        torch.from_numpy(visible_at(config.training.seed, known[i : i + batch_size], *counts))
        for i in range(0, len(known), batch_size)
    )


def _counts(config: RunConfig, grid: Grid) -> tuple[int, int]:
    """Patches of a grid, and those that are seen."""
    assert config.model.reconstruction is not None  # whoever asks hides some
    rows, columns = patch_counts(config.model.patch, grid.shape)
    return rows * columns, config.model.reconstruction.visible(rows * columns)
