"""Everything that one store asks of the Climate Data Store, and what is known of it before and after it has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from weatherfm.data_pipeline.cds.box import Box, box_of
from weatherfm.data_pipeline.cds.downloads import Downloads
from weatherfm.data_pipeline.cds.grouping import requests_for
from weatherfm.data_pipeline.cds.held import Held, not_held, only_preliminary
from weatherfm.data_pipeline.cds.queue import bring, downloads_of, today
from weatherfm.data_pipeline.cds.requests import Request
from weatherfm.data_pipeline.cds.wanted import (
    Wanted,
    is_published,
    needed_times,
    wanted_fields,
    wanted_times,
    window_hours,
)
from weatherfm.data_pipeline.fields.derived import Derivation, resolve, with_inputs
from weatherfm.data_pipeline.fields.source_data import ReadCost
from weatherfm.data_pipeline.source_config import CdsSource
from weatherfm.data_pipeline.store_config import DataConfig

_MANY = 24
"""Requests from which on the queue is worth a word."""


@dataclass(frozen=True, eq=False)
class Order:
    """Everything that one store asks for."""

    data: DataConfig
    times: np.ndarray
    """[time] datetime64[s] of the state."""
    box: Box
    wanted: Wanted
    """Constant fields included."""
    derivation: Derivation
    """Which channels are asked for, and which are computed from them."""
    until: int | None = None
    """Files that arrived later are not looked at (ns since 1970): a run goes on with those that it began with."""

    @classmethod
    def of(cls, data: DataConfig, until: int | None = None) -> Order:
        """What the settings mean, told without asking anybody.

        Raises:
            InputError: no period, or a channel, step, grid or area that ERA5 does not have.
        """
        box = box_of(data)
        derivation = resolve(data, {name for name in with_inputs(data.channels) if is_published(name)})
        times = wanted_times(data, derivation.stored)
        return cls(data, times, box, wanted_fields(data, derivation.stored, times), derivation, until)

    @property
    def source(self) -> CdsSource:
        """Its settings."""
        assert isinstance(self.data.source, CdsSource)
        return self.data.source

    @property
    def downloads(self) -> Downloads:
        """Where answers are kept."""
        return downloads_of(self.source)

    @cached_property
    def files(self) -> list[Held]:
        """What is here, the newest first; looked at once, and again after `fetch`."""
        return self.downloads.held(self.until)

    @property
    def latest(self) -> int:
        """When the newest of these files arrived."""
        return max((held.arrived for held in self.files), default=0)

    @cached_property
    def requests(self) -> list[Request]:
        """What would be asked if nothing were here."""
        return requests_for(self.wanted, self.box)

    @cached_property
    def missing(self) -> Wanted:
        """What has to be downloaded."""
        return not_held(self.wanted, self.box, self.files, today())

    @property
    def download_bytes(self) -> int:
        """About what the downloads that are missing take in `source.cache`."""
        return sum(request.bytes for request in requests_for(self.missing, self.box))

    def fetch(self) -> None:
        """Download what is missing."""
        bring(self.wanted, self.box, self.source)
        for name in ("files", "missing"):
            self.__dict__.pop(name, None)

    @cached_property
    def hours(self) -> int:
        """Over which a computed sum goes."""
        return self.derivation.window(self.times)

    def preliminary(self) -> np.ndarray | None:
        """[time] bool: made of ERA5T fields, as far as files are here; None where none are."""
        found = np.zeros(len(self.times), bool)
        for name in self.derivation.stored:
            hours = self.wanted[name]
            of_hours = hours[only_preliminary(name, hours, self.box, self.files)]
            for back in range(window_hours(name, self.data) if len(of_hours) else 0):
                found |= np.isin(self.times - np.timedelta64(back, "h"), of_hours)
        return found if found.any() else None

    def cost(self, positions: np.ndarray) -> ReadCost:
        """Of all channels at these positions on the time axis; what is downloaded already costs no request."""
        field = 4 * int(np.prod(self.box.grid.shape))
        wanted = len(positions) * len(self.data.channels) * field
        needed = self._needed(self.times[positions])
        sent = requests_for(_common(self.missing, needed), self.box)
        moved = sum(len(needed[name]) for name in self.derivation.stored) * field
        return ReadCost(wanted, moved, sum(request.bytes for request in sent), len(sent), _advice(len(sent)))

    def _needed(self, times: np.ndarray) -> Wanted:
        windows = {name: window_hours(name, self.data) for name in self.derivation.stored}
        hours = {window: needed_times(times, window) for window in set(windows.values())}
        return {name: hours[window] for name, window in windows.items()}


def _common(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> Wanted:
    """What both want."""
    known: dict[tuple[int, int], np.ndarray] = {}
    found = {}
    for name in first.keys() & second.keys():
        key = id(first[name]), id(second[name])  # most channels share both
        if key not in known:
            known[key] = np.intersect1d(first[name], second[name], assume_unique=True)
        if len(known[key]):
            found[name] = known[key]
    return found


def _advice(requests: int) -> tuple[str, ...]:
    if requests < _MANY:
        return ()
    return (
        f"{requests} requests wait in the store's queue, minutes to hours each, a few at a time: ARCO-ERA5 "
        "(source.kind=arco) has the same fields without queue or key",
    )
