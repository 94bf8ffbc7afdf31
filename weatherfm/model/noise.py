"""Noise that makes members of an ensemble differ: a few normal numbers a sample (`model.noise`).

A member's noise follows from the seed, the initial time, its number and the hour that a step starts from alone: the
same forecast has it again, however its samples are batched or dealt out to devices.

Legend: I initial time, M member, Z number of noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_NOISE = 1
"""A stream of its own beside others drawn for the same member."""


def member_noise(size: int, seed: int, init_times: np.ndarray, members: Sequence[int], hours: int = 0) -> np.ndarray:
    """Standard normal numbers [I * M, Z] float32, members of an initial time side by side.

    Args:
        size: Z.
        seed: of the forecast.
        init_times: [I] datetime64.
        members: numbers of the members, from 0.
        hours: after the initial time, when the model's step starts.
    """
    return member_draws(_NOISE, (size,), seed, init_times, members, hours)


def member_draws(
    stream: int, shape: tuple[int, ...], seed: int, init_times: np.ndarray, members: Sequence[int], hours: int = 0
) -> np.ndarray:
    """[I * M, *shape] standard normal float32 of a stream; different streams know nothing of each other.

    Args:
        stream: its number.
        shape: of one member's numbers.
        seed: of the forecast.
        init_times: [I] datetime64.
        members: numbers of the members, from 0.
        hours: after the initial time.
    """
    seconds = np.asarray(init_times).astype("datetime64[s]").astype(np.int64).view(np.uint64).tolist()
    drawn = np.empty((len(seconds) * len(members), *shape), np.float32)
    for i, (second, member) in enumerate((s, m) for s in seconds for m in members):
        np.random.default_rng([stream, seed, second, member, hours]).standard_normal(out=drawn[i], dtype=np.float32)
    return drawn
