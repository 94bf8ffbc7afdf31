"""Probabilistic climatology: an ensemble of the training days' states near the same day of year (numpy only).

Its CRPS is what a forecast without any knowledge of the day reaches (as in WeatherBench2, Rasp et al. 2024,
doi:10.1029/2023MS004019).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from weatherfm.data_pipeline.fields.time_axis import day_of_year, hour_of_day, name_times
from weatherfm.data_pipeline.store.climatology import DAYS, window_weights
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.errors import InputError
from weatherfm.evaluation.baselines.persistence_and_climatology import states_at, training_times

_CACHE_BYTES = 512 * 2**20
"""Memory of the sets of members held; at least one set."""
_BINS_A_WINDOW = 12
"""A bin is this small a part of the window: 5 days of 61."""
_FEWEST = 2
"""Members and training years below which there is no ensemble."""

_Bin = tuple[int, int]
"""Position in the year, hour of day."""


class ProbabilisticClimatology:
    """Members are states of training days at the same hour, of every training year.

    Days are taken around the middle of a few neighbouring days of the year (a bin), with the weights of the store's
    climatology: dense around the middle, sparse towards the ends of its window, so that the mean of many members
    is near that climatology. All valid times of a bin get the same members. Where the climatology is one mean over all
    days, members are spread evenly over all training days. The choice depends on the store's times alone.

    For one thread; what it gives may be used by others.

    Args:
        store: states and training days.
        channels: short names.
        members: at most; fewer where the training days do not hold as many in every bin.

    Attributes:
        members: of every valid time.

    Raises:
        InputError: fewer than two members, or fewer than two training years around some day of the year.
    """

    def __init__(self, store: Store, channels: Sequence[str], members: int = 50) -> None:
        self._store, self._channels = store, tuple(channels)
        self._days = _TrainingDays(store)
        self._days.refuse_few(members)
        self.members = min(members, self._days.most_members)
        self._held: OrderedDict[_Bin, np.ndarray] = OrderedDict()
        set_bytes = 4 * self.members * len(self._channels) * int(np.prod(store.grid.shape))
        self._most_held = max(1, _CACHE_BYTES // set_bytes)

    def at(self, valid_times: np.ndarray) -> np.ndarray:
        """Members [B, member, channel, lat, lon] float32 at datetime64 `valid_times` [B]; not to be written to.

        Raises:
            InputError: a valid time within the training days, an hour that they lack, a value that is not finite.
        """
        bins = self._days.bins_of(valid_times)
        if len(set(bins)) == 1:
            members = self._set(bins[0])
            return np.broadcast_to(members, (len(bins), *members.shape))
        return np.stack([self._set(at) for at in bins])

    def _set(self, at: _Bin) -> np.ndarray:
        """[member, channel, lat, lon] of a bin, from memory if it was used lately."""
        if at not in self._held:
            while len(self._held) >= self._most_held:
                self._held.popitem(last=False)
            self._held[at] = states_at(self._store, self._channels, self._days.spread(at, self.members))
        self._held.move_to_end(at)
        return self._held[at]


class _TrainingDays:
    """The training times every bin may draw from, with whole numbers as weights, so that choices are exact.

    Bins follow the climatology: days of the year 1..366 closed to a ring, or all days where it is one mean.
    """

    def __init__(self, store: Store) -> None:
        self._path, self._train, self._window = store.path, store.periods.get("train"), store.climatology_window
        self._width = max(1, (self._window or 0) // _BINS_A_WINDOW)
        self._known = training_times(store)
        positions = range(1 if self._window is None else -(-DAYS // self._width))
        self._drawn: dict[_Bin, tuple[np.ndarray, np.ndarray]] = {}
        for hour in np.unique(hour_of_day(self._known)).tolist():
            times = self._known[hour_of_day(self._known) == hour]
            days = day_of_year(times)
            for position in positions:
                weight = self._weights(days, position)
                self._drawn[position, hour] = times[weight > 0], weight[weight > 0]

    @property
    def most_members(self) -> int:
        """That every bin can give, each once."""
        return min((int(weight.sum() // weight.max(initial=1)) for _, weight in self._drawn.values()), default=0)

    @property
    def fewest_years(self) -> int:
        """Calendar years that the fewest of any bin are from; not asked of one mean over all days."""
        if self._window is None:
            return _FEWEST
        return min((len(np.unique(times.astype("datetime64[Y]"))) for times, _ in self._drawn.values()), default=0)

    def refuse_few(self, members: int) -> None:
        """An InputError where there is no ensemble to be had."""
        most, years = min(members, self.most_members), self.fewest_years
        if min(most, years) < _FEWEST:
            around = "" if self._window is None else f" of {years} years"
            raise InputError(
                f"probabilistic climatology needs {_FEWEST} members of {_FEWEST} training years at every day of year; "
                f"{self._path} has {most}{around} for some (train is {self._train}, {len(self._known)} times, members "
                f"asked for {members}): prepare more training years, or set evaluation.probabilistic_climatology=false"
            )

    def bins_of(self, valid_times: np.ndarray) -> list[_Bin]:
        """[B] bins of `valid_times` [B].

        Raises:
            InputError: a valid time within the training days, or an hour that they lack.
        """
        if self._train is not None and (learned := self._train.contains(valid_times)).any():
            raise InputError(
                f"{name_times(valid_times[learned])} lie in the training days {self._train} of {self._path}, which the "
                "members are of: score other days"
            )
        days = np.zeros(len(valid_times), np.int64)
        if self._window is not None:
            days = (day_of_year(valid_times) - 1) // self._width
        bins = list(zip(days.tolist(), hour_of_day(valid_times).tolist(), strict=True))
        if absent := [i for i, at in enumerate(bins) if at not in self._drawn]:
            raise InputError(
                f"the training days of {self._path} have no {bins[absent[0]][1]:02d} UTC (asked for "
                f"{name_times(valid_times[absent])}): choose times at hours that they have"
            )
        return bins

    def spread(self, at: _Bin, members: int) -> np.ndarray:
        """[member] times at even steps of the summed weights, ascending; none twice, as no weight exceeds a step."""
        times, weight = self._drawn[at]
        steps = (2 * np.arange(members) + 1) * weight.sum()
        return times[np.searchsorted(2 * members * np.cumsum(weight), steps)]

    def _weights(self, days: np.ndarray, position: int) -> np.ndarray:
        """[n] int64 of days of the year [n] in the bin at `position`: the climatology's window around its middle."""
        if self._window is None:
            return np.ones(len(days), np.int64)
        half = self._window // 2
        ring = np.zeros(DAYS, np.int64)
        weights = np.rint(window_weights(self._window) * max(half, 1)).astype(np.int64)
        np.add.at(ring, np.arange(-half, half + 1) % DAYS, weights)
        middle = min(position * self._width + self._width // 2 + 1, DAYS)
        return ring[(days - middle) % DAYS]
