"""The noise of a rank's samples in training (`model.noise`), and in validation.

In training it follows from the seed, the number of the batch and the sample's place in the whole of it alone: all ranks
of `tp` have the same, another number of devices as well, and so has a run that goes on. It is drawn anew for every
model step of a rollout. In validation it follows from the initial time, so that the same members are scored every time.

Legend: S model step, B sample, M member, Z number of noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from weatherfm.model.noise import member_noise
from weatherfm.training.parallel.role import Role
from weatherfm.training.run_config import RunConfig

_NOISE = 4
"""A stream of its own beside those of `weatherfm.data_pipeline.loader` and of the channels that are shown."""


def training_noise(config: RunConfig, role: Role, first: int, stop: int) -> Iterator[Tensor] | None:
    """Of the batches `first` .. `stop` - 1, [S, B own * M, Z] float32 each; None: the model takes none."""
    if not config.model.noise:
        return None
    return (_of_batch(config, role, number) for number in range(first, stop))


def _of_batch(config: RunConfig, role: Role, number: int) -> Tensor:
    settings, (index, count) = config.training, role.part
    steps = settings.steps_at(number // settings.accumulate)
    shape = (steps, settings.batch_size, settings.members, config.model.noise)
    random = np.random.default_rng([_NOISE, settings.seed, number])
    drawn = torch.from_numpy(random.standard_normal(shape, np.float32))
    size = settings.batch_size // count
    return drawn[:, index * size : (index + 1) * size].flatten(1, 2)


def validation_noise(config: RunConfig, init_times: np.ndarray, batch_size: int) -> Iterator[Tensor] | None:
    """Of batches of these initial times [I] in turn, [1, B * M, Z]; None: the model takes none."""
    if not config.model.noise:
        return None
    batches = (init_times[i : i + batch_size] for i in range(0, len(init_times), batch_size))
    return (_of_inits(config, batch) for batch in batches)


def _of_inits(config: RunConfig, init_times: np.ndarray) -> Tensor:
    members: Sequence[int] = range(config.training.members)
    drawn = member_noise(config.model.noise, config.training.seed, init_times, members)
    return torch.from_numpy(drawn)[None]
