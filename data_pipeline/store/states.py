"""States of the atmosphere at given times, to forecast from: of a store here, of files and Datasets in `file_states`.

Nothing but the states is asked of a place: neither truth nor statistics. Needs numpy and tensorstore alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from weatherfm.data_pipeline.fields.time_axis import name_times
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError, some_of

HAVE_ALL = "forecast from states that have all of the model's channels"
HAVE_SOME = "forecast from states that have some of the model's channels"


@runtime_checkable
class States(Protocol):
    """States at times, of one atmosphere or of each member of an ensemble."""

    name: str
    """What messages call it: a path, or what kind of object it is."""
    channels: tuple[str, ...]
    """Short names it can give."""
    grid: Grid
    times: np.ndarray
    """[time] datetime64[s], ascending."""
    numbers: tuple[int, ...] | None
    """Members of the ensemble; None where there is one state a time."""
    simulated: bool
    source: Any
    """JSON-able: where the states came from."""

    def read(self, times: np.ndarray, channels: Sequence[str]) -> np.ndarray:
        """[time, member, channel, lat, lon] float32 in canonical units at datetime64 `times` [time], all held."""
        ...


class StoreStates:
    """The states of a finished store."""

    numbers: tuple[int, ...] | None = None

    def __init__(self, store: Store) -> None:
        self.store = store
        self.name: str = str(store.path)
        self.channels: tuple[str, ...] = tuple(store.channels)
        self.grid: Grid = store.grid
        self.times: np.ndarray = store.times
        self.simulated: bool = bool(store.simulated)
        self.source: Any = store.manifest.get("source")

    def read(self, times: np.ndarray, channels: Sequence[str]) -> np.ndarray:
        """[time, 1, channel, lat, lon] float32, canonical units."""
        return self.store.read(self.store.index_of(times), channels)[:, None]


def as_states(place: Store | States) -> States:
    """A store as states; states as they are."""
    return place if isinstance(place, States) else StoreStates(place)


def missing_channels(inputs: Sequence[str], states: States) -> tuple[str, ...]:
    """Those of the channels that go into a model which the states lack."""
    return tuple(channel for channel in inputs if channel not in states.channels)


def require_fit(grid: Grid, inputs: Sequence[str], states: States, cure: str | None = HAVE_ALL) -> None:
    """Refuse states that a model cannot start from.

    Args:
        grid: of the model.
        inputs: channels that go into the whole of it.
        states: to start from.
        cure: what to do about missing channels; None: nothing, as long as there is one.

    Raises:
        InputError: a channel is missing, or the grid is another.
    """
    missing = missing_channels(inputs, states)
    if missing and (cure is not None or len(missing) == len(inputs)):
        raise InputError(
            f"the model needs {some_of(missing)}, which {states.name} lacks (it has {some_of(states.channels)}); "
            f"{cure or HAVE_SOME}"
        )
    if grid != states.grid:
        raise InputError(
            f"the model's grid is {grid}, that of {states.name} is {states.grid}; "
            "forecast from states on the model's grid"
        )


def require_weather(store: Store) -> None:
    """Refuse a store of pictures where states are to follow one another.

    Raises:
        InputError: its times only number pictures.
    """
    if store.grid.plane:
        raise InputError(
            f"{store.path} holds pictures of {store.grid}, which do not follow one another in time: there is nothing "
            "to forecast; learn to reconstruct them (training.objective: reconstruct)"
        )


def held(states: States, times: np.ndarray) -> np.ndarray:
    """[n] bool: which of the datetime64 `times` [n] there are states at."""
    return np.isin(np.asarray(times).astype("datetime64[s]"), states.times)


def extent(states: States) -> str:
    """Text for a message: how many times there are, from when to when."""
    if not len(states.times):
        return "no times"
    first, last = name_times(states.times[:1]), name_times(states.times[-1:])
    return f"{len(states.times)} times from {first} to {last}"
