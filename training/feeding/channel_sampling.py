"""Channels that training shows the model, sample by sample; the others are absent (`training.channel_sampling`).

Every sample draws how many it sees, a share between none and all whose mean is the setting, and then which: so that the
weights know all channels, as an ordinary forecast has them, and few. What is drawn follows from the seed, the number of
the batch and the sample's place in the whole of it alone: all ranks see the same, and so does a run that goes on.

Legend: B sample of the whole batch, C channel that goes into the whole model, I input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from weatherfm.model.present import present_inputs
from weatherfm.training.parallel.role import Role
from weatherfm.training.run_config import RunConfig

_SHOWN = 3
"""A stream of its own beside those of `weatherfm.data_pipeline.loader`."""


def shown_channels(share: float, seed: int, batch: int, shape: tuple[int, int]) -> np.ndarray:
    """[B, C] bool, one True a sample at least.

    Args:
        share: of the channels, in the mean; in (0, 1].
        seed: of the run.
        batch: its number, over all steps.
        shape: (B, C).
    """
    drawn = np.random.default_rng([_SHOWN, seed, batch]).random((shape[0], 1 + shape[1]))
    low, high = max(0.0, 2 * share - 1), min(1.0, 2 * share)
    chances = drawn[:, 1:]
    shown: np.ndarray = chances < low + (high - low) * drawn[:, :1]
    shown[np.arange(shape[0]), chances.argmin(1)] = True
    return shown


def inputs_shown(
    config: RunConfig, role: Role | Callable[[int], Role], first: int, stop: int
) -> Iterator[Tensor] | None:
    """What the batches `first` .. `stop` - 1 show of a rank's samples and inputs, [B own, I own] bool; None: all.

    `role`: of the rank, or of the rank in a batch, by its number.
    """
    share = config.training.channel_sampling
    return None if share is None else (_of_batch(config, role, share, number) for number in range(first, stop))


def _of_batch(config: RunConfig, role: Role | Callable[[int], Role], share: float, number: int) -> Tensor:
    role = role(number) if callable(role) else role
    settings, (index, count) = config.training, role.part
    size = settings.batch_size // count
    shown = shown_channels(share, settings.seed, number, (settings.batch_size, len(role.among.inputs)))
    own = [role.among.inputs.index(name) for name in role.share.inputs]
    states = torch.from_numpy(shown[index * size : (index + 1) * size][:, None, own])
    return present_inputs(states.expand(-1, len(config.model.input_times), -1), role.share)
