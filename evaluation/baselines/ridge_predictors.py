"""What ridge regression forecasts from: principal components of the states at the input times, of all channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.errors import InputError
from weatherfm.evaluation.baselines.persistence_and_climatology import (
    normals_at,
    states_at,
    training_starts,
    training_times,
)
from weatherfm.evaluation.baselines.principal_components import PrincipalComponents, principal_components
from weatherfm.evaluation.baselines.ridge_memory import refuse_large

_STARTS = 4000
"""Start times at most: all days of eleven years, or evenly thinned."""
_FEWEST = 50
"""Start times below which there is no fit."""
_STARTS_A_COMPONENT = 4
"""There are no more predictors than a start time in this many."""
COMPONENTS = 200
"""Principal components at most."""
_READ_BYTES = 64 * 2**20
"""Of fields read at a time."""


@dataclass(frozen=True, eq=False)
class Predictors:
    """Principal components at all input times side by side."""

    lead_times: tuple[int, ...]
    """Hours."""
    input_times: tuple[int, ...]
    """Hours, 0 or negative."""
    starts: np.ndarray
    """[n] datetime64[s], ascending, in the training days."""
    train: np.ndarray
    """[n, predictor] float64 at the start times."""
    init_times: np.ndarray
    """[case] datetime64[s], ascending: what is to be forecast from."""
    now: np.ndarray
    """[case, predictor] float64."""
    components: PrincipalComponents | None
    """What they came of; None where they are kept in a file, for no fit asks for it."""


def ridge_predictors(
    store: Store,
    channels: Sequence[str],
    lead_times: Sequence[int],
    init_times: np.ndarray,
    input_times: Sequence[int] = (0,),
    most: int = COMPONENTS,
    memory: int | None = None,
) -> Predictors:
    """Find the components on the training days, and take them of the cases.

    Args:
        store: states, climatology and training days.
        channels: short names.
        lead_times: hours.
        init_times: [case] datetime64, ascending.
        input_times: hours before the initial time, 0 or negative.
        most: components at most; no more than a start time in four has predictors.
        memory: bytes at hand; without it, what is available.

    Raises:
        InputError: too few start times in the training days, fields that do not fit into memory, a case whose earlier
            input times the store lacks, or a value that is not finite.
    """
    starts, components = ridge_starts(store, channels, lead_times, init_times, input_times, most, memory)

    def anomalies(times: np.ndarray) -> np.ndarray:
        fields = states_at(store, channels, times)
        fields -= normals_at(store, channels, times)
        return fields

    shape = (len(channels), *store.grid.shape)
    step = max(1, _READ_BYTES // (4 * math.prod(shape)))
    found = principal_components(_together(anomalies, starts, shape, step), store.grid.area_weights, components)
    train, now = (_at_input_times(found, anomalies, times, input_times, step) for times in (starts, init_times))
    return Predictors(tuple(lead_times), tuple(input_times), starts, train, init_times, now, found)


def ridge_starts(
    store: Store,
    channels: Sequence[str],
    lead_times: Sequence[int],
    init_times: np.ndarray,
    input_times: Sequence[int] = (0,),
    most: int = COMPONENTS,
    memory: int | None = None,
) -> tuple[np.ndarray, int]:
    """(start times in the training days [n], components at most), before anything is read.

    Arguments and errors are those of `ridge_predictors`.
    """
    starts = _start_times(store, lead_times, input_times)
    _refuse_absent(store, init_times, input_times)
    components = min(most, len(starts) // (_STARTS_A_COMPONENT * len(input_times)))
    refuse_large(store, channels, lead_times, len(starts), components * len(input_times), memory)
    return starts, components


def _start_times(store: Store, lead_times: Sequence[int], input_times: Sequence[int]) -> np.ndarray:
    """Evenly thinned so that all hours of the day stay, as few as the limit asks for."""
    if odd := [hours for hours in input_times if hours % store.step_hours]:
        raise InputError(
            f"evaluation.ridge_times has {odd[0]}h, and {store.path} a state every {store.step_hours}h: choose "
            "multiples of that"
        )
    found = training_starts(training_times(store), (*input_times, *lead_times))
    if len(found) < _FEWEST * len(input_times):
        raise InputError(
            f"ridge regression needs {_FEWEST * len(input_times)} start times whose lead times and input times lie "
            f"within the training days; {store.path} has {len(found)} (train is {store.periods.get('train')}): prepare "
            "more training days, score shorter lead times, or set evaluation.ridge_regression=false"
        )
    daily = max(1, 24 // store.step_hours)
    stride = max(1, -(-len(found) // _STARTS))
    while math.gcd(stride, daily) != 1:
        stride += 1
    return found[::stride]


def _refuse_absent(store: Store, init_times: np.ndarray, input_times: Sequence[int]) -> None:
    for hours in input_times:
        wanted = init_times + np.timedelta64(hours, "h")
        if len(absent := wanted[~np.isin(wanted, store.times)]):
            raise InputError(
                f"ridge regression forecasts from the states at {hours}h, and {store.path} lacks {len(absent)} of "
                f"them, the first is {absent[0]}: score later initial times, or leave {hours}h out of "
                "evaluation.ridge_times"
            )


def _together(
    anomalies: Callable[[np.ndarray], np.ndarray], times: np.ndarray, shape: tuple[int, ...], step: int
) -> np.ndarray:
    """[n, channel, lat, lon] float32, read a few at a time."""
    fields = np.empty((len(times), *shape), np.float32)
    for first in range(0, len(times), step):
        fields[first : first + step] = anomalies(times[first : first + step])
    return fields


def _at_input_times(
    components: PrincipalComponents,
    anomalies: Callable[[np.ndarray], np.ndarray],
    times: np.ndarray,
    input_times: Sequence[int],
    step: int,
) -> np.ndarray:
    """[n, predictor] float64, those of the first input time first."""
    parts = [times[first : first + step] for first in range(0, len(times), step)]
    sides = [
        np.concatenate([components.of(anomalies(part + np.timedelta64(hours, "h"))) for part in parts])
        for hours in input_times
    ]
    return np.concatenate(sides, axis=1)
