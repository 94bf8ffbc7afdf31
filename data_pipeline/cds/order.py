"""Everything that one store asks of the Climate Data Store, and what is known of it before and after it has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from weatherfm.data_pipeline.cds.downloads import Downloads
from weatherfm.data_pipeline.cds.queue import bring, downloads_of
from weatherfm.data_pipeline.cds.requests import (
    Box,
    Request,
    box_of,
    is_published,
    needed_times,
    requests_for,
    static_requests,
    wanted_times,
    window_hours,
)
from weatherfm.data_pipeline.config import DataConfig
from weatherfm.data_pipeline.derived import Derivation, resolve, with_inputs
from weatherfm.data_pipeline.read_cost import ReadCost
from weatherfm.data_pipeline.source_config import CdsSource
from weatherfm.errors import InputError

_PACKED = 2
"""Bytes a point in ERA5's GRIB files: 16 bits."""
_MANY = 24
"""Requests from which on the queue is worth a word."""


@dataclass(frozen=True, eq=False)
class Order:
    """Everything that one store asks for."""

    data: DataConfig
    times: np.ndarray
    """[time] datetime64[s] of the state."""
    box: Box
    requests: list[Request]
    static: list[Request]
    derivation: Derivation
    """Which channels are asked for, and which are computed from them."""

    @classmethod
    def of(cls, data: DataConfig) -> Order:
        """What the settings mean, told without asking anybody.

        Raises:
            InputError: no period, or a channel, step, grid or area that ERA5 does not have.
        """
        times, box = wanted_times(data), box_of(data)
        derivation = resolve(data, {name for name in with_inputs(data.channels) if is_published(name)})
        requests = requests_for(data, derivation.stored, box, times)
        return cls(data, times, box, requests, static_requests(data.static, box), derivation)

    @property
    def source(self) -> CdsSource:
        """Its settings."""
        assert isinstance(self.data.source, CdsSource)
        return self.data.source

    @cached_property
    def downloads(self) -> Downloads:
        """Where answers are kept."""
        return downloads_of(self.source)

    def fetch(self) -> None:
        """Download what is missing."""
        bring([*self.static, *self.requests], self.source)

    @cached_property
    def hours(self) -> int:
        """Over which a computed sum goes."""
        return self.derivation.window(self.times)

    def files_of(self, channels: Sequence[str], month: np.datetime64) -> list[Path]:
        """Those that hold what these channels take in a month, the hours of its first sums included; they exist.

        Raises:
            InputError: one is not there.
        """
        times = self.times[self.times.astype("datetime64[M]") == month]
        hours = np.concatenate([needed_times(times, window_hours(name, self.data)) for name in channels])
        months = {str(one) for one in np.unique(hours.astype("datetime64[M]"))}
        held = [one for one in self.requests if one.month in months and set(one.channels) & set(channels)]
        return [self.file_of(one) for one in held]

    def file_of(self, request: Request) -> Path:
        """The answer to one request.

        Raises:
            InputError: it is not there.
        """
        path = self.downloads.path(request)
        if not path.exists():
            raise InputError(
                f"{request.label} is not in {self.downloads.folder}; `weatherfm prepare` downloads it first"
            )
        return path

    def preliminary(self) -> np.ndarray | None:
        """[time] bool: made of ERA5T fields, as far as files are here; None where none are."""
        found = np.zeros(len(self.times), bool)
        for request in self.requests:
            window = window_hours(request.channels[0], self.data)
            if len(hours := self.downloads.preliminary(request)):
                for back in range(window):
                    found |= np.isin(self.times - np.timedelta64(back, "h"), hours)
        return found if found.any() else None

    def cost(self, positions: np.ndarray) -> ReadCost:
        """Of all channels at these positions on the time axis; what is downloaded already costs no request."""
        field = int(np.prod(self.box.grid.shape))
        wanted = len(positions) * len(self.data.channels) * 4 * field
        moved = sent = fields = 0
        windows = {window_hours(request.channels[0], self.data) for request in self.requests}
        needed = {window: needed_times(self.times[positions], window) for window in windows}
        for request in self.requests:
            hours = needed[window_hours(request.channels[0], self.data)]
            ends = [np.searchsorted(hours, request.times, side) for side in ("left", "right")]
            count = int((ends[1] - ends[0]).sum()) * len(request.channels)
            moved += count * 4 * field
            if count and not self.downloads.holds(request):
                sent, fields = sent + 1, fields + request.fields
        return ReadCost(wanted, moved, fields * field * _PACKED, sent, _advice(sent))


def _advice(requests: int) -> tuple[str, ...]:
    if requests < _MANY:
        return ()
    return (
        f"{requests} requests wait in the store's queue, minutes to hours each, a few at a time: ARCO-ERA5 "
        "(source.kind=arco) has the same fields without queue or key",
    )
