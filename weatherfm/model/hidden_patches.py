"""Which patches a masked autoencoder sees: drawn at random, from nothing but a seed and what names the sample.

In training that is the number of the batch and the sample's place in the whole of it, else the sample's own time. So
all ranks of `tp` see the same patches, any number of devices does, and so does a run that goes on.

Legend: B sample, N position, V visible position.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_HIDDEN = 5
"""A stream of its own beside those of samples, lead times, shown channels, stores and noise."""


def visible_in_batch(seed: int, batch: int, samples: int, positions: int, visible: int) -> np.ndarray:
    """[B, V] int64, ascending: what each sample of a batch of training shows.

    Args:
        seed: of the run.
        batch: its number, over all steps.
        samples: of the whole batch.
        positions: N.
        visible: V.
    """
    return _drawn(np.random.default_rng([_HIDDEN, seed, batch]), samples, positions, visible)


def visible_at(seed: int, times: np.ndarray, positions: int, visible: int) -> np.ndarray:
    """[B, V] int64, ascending: what samples show that are known by their times.

    Args:
        seed: of the run.
        times: [B] datetime64.
        positions: N.
        visible: V.
    """
    seconds = times.astype("datetime64[s]").astype(np.int64)
    words = [[_HIDDEN, seed, 1, *np.array([second]).view(np.uint32)] for second in seconds]
    drawn = [_drawn(np.random.default_rng(list(map(int, one))), 1, positions, visible) for one in words]
    return np.concatenate(drawn) if drawn else np.zeros((0, visible), np.int64)


def hidden_points(visible: Tensor, tokens: tuple[int, int], patch: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    """[B, H, W] bool, True at points of patches that are not seen.

    Args:
        visible: [B, V].
        tokens: (rows, columns) of patches.
        patch: (rows, columns) of points of a patch.
        shape: (H, W), which the last patches may reach beyond.
    """
    hidden = torch.ones(len(visible), tokens[0] * tokens[1], dtype=torch.bool, device=visible.device)
    hidden = hidden.scatter(1, visible, False).unflatten(1, tokens)
    points = hidden.repeat_interleave(patch[0], 1).repeat_interleave(patch[1], 2)
    return points[:, : shape[0], : shape[1]]


def _drawn(random: np.random.Generator, samples: int, positions: int, visible: int) -> np.ndarray:
    order = random.random((samples, positions)).argsort(1, kind="stable")
    return np.sort(order[:, :visible], 1)
