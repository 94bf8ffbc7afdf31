"""The members that one model makes of each initial time, and what is random in each of them.

All of it follows from the seed, the initial time, the member's number and the hour that a step starts from alone: a
forecast has it again, however its samples are batched or dealt out to devices.

Legend: I initial time, M member, Z number of noise.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from weatherfm.data_pipeline.store.states import States
from weatherfm.errors import InputError
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.model.noise import member_noise

_log = logging.getLogger(__name__)
_DROPOUT = 2
"""A stream of its own, as those of `weatherfm.model.noise`."""
_WORD = 2**64


@dataclass(frozen=True)
class ModelMembers:
    """Members of one model."""

    numbers: tuple[int, ...]
    """[M] numbers in the whole ensemble; one of a single forecast."""
    seed: int = 0
    noise: int = 0
    """Z of the model."""
    drawn: bool = False
    """Noise is drawn; else it is zeros, which is a forecast without."""
    scale: float = 1.0
    """Of the noise."""
    dropout: bool = False

    def __len__(self) -> int:
        return len(self.numbers)

    def noise_of(self, inits: np.ndarray, part: slice, hours: int) -> Tensor | None:
        """[I * M, Z] of some members in a step from so many hours on; None: the model takes none.

        Args:
            inits: [I] datetime64.
            part: which members.
            hours: after the initial times.
        """
        if not self.noise:
            return None
        numbers = self.numbers[part]
        if not self.drawn:
            return torch.zeros(len(inits) * len(numbers), self.noise)
        return self.scale * torch.from_numpy(member_noise(self.noise, self.seed, inits, numbers, hours))

    def dropout_seed(self, init: np.datetime64, member: int, hours: int) -> int:
        """What seeds dropout in a step of one sample; `member` is its place in M."""
        second = int(init.astype("datetime64[s]").astype(np.int64)) % _WORD
        entropy = [_DROPOUT, self.seed, second, self.numbers[member], hours]
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def members_of(noise: int, states: States, config: ForecastConfig, first: int = 0) -> ModelMembers:
    """The members of a model: those that are asked for, else those of the states.

    Args:
        noise: numbers of noise that the model takes.
        states: it starts from.
        config: of the forecast.
        first: number of its first member, after those of other models.

    Raises:
        InputError: members are asked for, and the states are those of an ensemble already.
    """
    asked = config.members
    if asked is None:
        numbers = tuple(number % _WORD for number in states.numbers or (0,))
        return ModelMembers(numbers, config.seed, noise, states.numbers is not None, config.noise_scale)
    if states.numbers is not None:
        raise InputError(
            f"forecast.members asks for an ensemble, and {states.name} has {len(states.numbers)} members already: "
            "leave members out, which forecasts from each of them, or give states of one"
        )
    numbers = tuple(range(first, first + asked.each))
    return ModelMembers(numbers, config.seed, noise, True, config.noise_scale, config.dropout)


def warn_of_no_noise(noise: Sequence[int], states: States, config: ForecastConfig) -> None:
    """Say that a model which takes noise, numbers of it each, is given none."""
    if config.members is None and states.numbers is None and any(noise):
        _log.warning(
            "this model takes noise, and no members are asked for: a single forecast without noise; --members 16 "
            "(members=16) makes an ensemble"
        )
