"""What ridge regression holds in memory, and a refusal where it does not fit."""

from __future__ import annotations

import math
from collections.abc import Sequence

from weatherfm.data_pipeline.machine.host_memory import available_memory
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.errors import InputError

BLOCKS = 5
"""Of training days, each held out once."""
SUMS_BYTES = 512 * 2**20
"""Memory of the sums of channels that are fitted together; at least one channel."""

COEFFICIENT_BYTES = 512 * 2**20
"""Memory of the coefficients of channels that are scored together; at least one channel."""


def channels_together(channels: int, points: int, predictors: int) -> int:
    """How many channels of so many grid points are fitted at a time."""
    return min(channels, max(1, SUMS_BYTES // _sums_bytes(points, predictors)))


def memory_needed(channels: int, points: int, starts: int, predictors: int, lead_times: int) -> int:
    """Bytes: the larger of fields at the start times with their components, and of sums beside what is fitted.

    That is the coefficients of a group of channels: those of all, up to `COEFFICIENT_BYTES` or one channel's.
    """
    values = channels * points
    components = 4 * values * (starts + predictors) + 16 * min(starts, values) ** 2
    one = 4 * points * lead_times * predictors
    fitted = min(channels * one, max(one, COEFFICIENT_BYTES))
    return max(components, fitted + channels_together(channels, points, predictors) * _sums_bytes(points, predictors))


def refuse_large(
    store: Store, channels: Sequence[str], lead_times: Sequence[int], starts: int, predictors: int, memory: int | None
) -> None:
    """An InputError where so many start times and predictors need more than `memory` bytes, or what is available."""
    needed = memory_needed(len(channels), math.prod(store.grid.shape), starts, predictors, len(lead_times))
    there = available_memory() if memory is None else memory
    if needed > there:
        raise InputError(
            f"ridge regression would need {needed / 2**30:.3g} GiB of memory for {starts} fields of {len(channels)} "
            f"channels on {store.grid} and {predictors} coefficients of each value at {len(lead_times)} lead times; "
            f"{there / 2**30:.3g} GiB are available: score fewer channels or lead times, or on a coarser grid, or set "
            "evaluation.ridge_regression=false"
        )


def _sums_bytes(points: int, predictors: int) -> int:
    """Of one channel at one lead time, with the copies that its fit makes."""
    return 8 * (BLOCKS + 4) * predictors * points
