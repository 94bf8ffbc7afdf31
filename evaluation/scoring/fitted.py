"""What is fitted on training days before one group of channels is scored: what is asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.evaluation.baselines.damped_persistence import DampedPersistence, fit_damped_persistence, start_times
from weatherfm.evaluation.baselines.event_frequency import EventFrequency, event_frequency, times_learned_from
from weatherfm.evaluation.baselines.ridge_predictors import Predictors
from weatherfm.evaluation.baselines.ridge_regression import RidgeRegression, fit_ridge_regression, steps_of
from weatherfm.evaluation.baselines.seeps_climatology import seeps_climatology
from weatherfm.evaluation.metrics.events import Event
from weatherfm.evaluation.metrics.seeps import SeepsClimatology


@dataclass(frozen=True)
class RidgeInputs:
    """What ridge regression forecasts from, the same for all groups."""

    channels: tuple[str, ...]
    """Short names of all that is scored."""
    times: tuple[int, ...]
    """Hours, 0 or negative."""
    starts: int
    """Start times that it is fitted on."""
    most: int
    """Components at most, at each of the times."""


@dataclass(frozen=True)
class ToFit:
    """What one group of channels asks for; small."""

    channels: tuple[str, ...] = ()
    lead_times: tuple[int, ...] = ()
    """Hours."""
    events: tuple[Event, ...] = ()
    months: tuple[int, ...] = ()
    """1 .. 12, of the valid times."""
    damped: bool = False
    seeps: bool = False
    ridge: RidgeInputs | None = None

    @property
    def anything(self) -> bool:
        """There is something to fit."""
        return bool(self.damped or self.seeps or self.events or self.ridge)


@dataclass(frozen=True, eq=False)
class Fitted:
    """What came of it; None where it was not asked for."""

    damped: DampedPersistence | None = None
    ridge: RidgeRegression | None = None
    frequency: EventFrequency | None = None
    seeps: SeepsClimatology | None = None


_KINDS: dict[str, Any] = {"damped": DampedPersistence, "ridge": RidgeRegression}
_KINDS |= {"frequency": EventFrequency, "seeps": SeepsClimatology}
_PLAIN: dict[str, Callable[[np.ndarray], Any]] = {"int": int, "float": float}
_PLAIN |= {"tuple[int, ...]": lambda array: tuple(array.tolist()), "np.ndarray": lambda array: array}
"""Type of a field -> what makes it of an array."""


def fit_group(store: Store, wanted: ToFit, predictors: Predictors | None, progress: Callable[[int], object]) -> Fitted:
    """Fit all that a group asks for; memory is that of each fit in turn.

    Args:
        store: states, climatology and training days.
        wanted: what is asked for.
        predictors: of ridge regression, where that is.
        progress: told the times done, `times_to_fit` in all.

    Raises:
        InputError: too few training days, or a value that is not finite.
    """
    channels, asked = wanted.channels, predictors if wanted.ridge else None
    return Fitted(
        fit_damped_persistence(store, channels, wanted.lead_times, progress) if wanted.damped else None,
        fit_ridge_regression(store, channels, asked, progress) if asked else None,
        event_frequency(store, wanted.events, wanted.months, progress) if wanted.events else None,
        seeps_climatology(store, wanted.months) if wanted.seeps else None,
    )


def times_to_fit(store: Store, wanted: ToFit, predictors: Predictors | None) -> int:
    """What `progress` of `fit_group` is told in all; reads no fields. (SEEPS, one channel's, is not counted.)"""
    count = len(start_times(store, wanted.lead_times)) if wanted.damped else 0
    if wanted.events:
        count += sum(map(len, times_learned_from(store, wanted.months).values()))
    if wanted.ridge and predictors:
        count += steps_of(predictors, len(wanted.channels), int(np.prod(store.grid.shape)))
    return count


def arrays_of(fitted: Fitted | Predictors, prefix: str = "") -> dict[str, np.ndarray]:
    """Every number by its name, for a file."""
    arrays: dict[str, np.ndarray] = {}
    for one in fields(fitted):
        value = getattr(fitted, one.name)
        if one.name in _KINDS and value is not None:
            arrays |= arrays_of(value, f"{one.name}/")
        elif value is not None:
            arrays[f"{prefix}{one.name}"] = np.asarray(value)
    return arrays


def fitted_of(arrays: Mapping[str, np.ndarray]) -> Fitted:
    """Inverse of `arrays_of`."""
    asked = [name for name in _KINDS if any(key.startswith(f"{name}/") for key in arrays)]
    return Fitted(**{name: _made(_KINDS[name], arrays, f"{name}/") for name in asked})


def predictors_of(arrays: Mapping[str, np.ndarray]) -> Predictors:
    """Inverse of `arrays_of`, of predictors without their components."""
    return _made(Predictors, arrays, "", components=None)


def _made(kind: Any, arrays: Mapping[str, np.ndarray], prefix: str, **given: Any) -> Any:
    own = [one for one in fields(kind) if one.name not in given]
    return kind(**{one.name: _PLAIN[str(one.type)](arrays[f"{prefix}{one.name}"]) for one in own}, **given)
