"""Reading the fields of an order from the files that have come, month by month."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from weatherfm.data_pipeline.cds.order import Order
from weatherfm.data_pipeline.config import DataConfig, Period
from weatherfm.data_pipeline.formats.grib import index_grib
from weatherfm.data_pipeline.formats.names import NameRules
from weatherfm.data_pipeline.formats.pieces import best_names
from weatherfm.data_pipeline.formats.reading import Fields
from weatherfm.data_pipeline.formats.selection import Selection, select
from weatherfm.data_pipeline.positions import Readable
from weatherfm.data_pipeline.source_config import FilesSource
from weatherfm.data_pipeline.time_axis import name_times
from weatherfm.errors import InputError
from weatherfm.variables import parse_channel

_OPENING = threading.Lock()


class OrderedFields(Readable):
    """All fields of an order, each month read from its own files; small, and it pickles."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self.shape = (len(order.times), len(order.data.channels), *order.box.grid.shape)

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_settings, (self._order.data.model_dump_json(),)

    def read(self, times: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """[len(times), len(channels), lat, lon] for positions on the two axes.

        Raises:
            InputError: a file is not there, or is not what was downloaded.
        """
        order, derivation = self._order, self._order.derivation
        held = derivation.needed(channels)
        stored = [derivation.stored[position] for position in held]
        fields = np.empty((len(times), len(stored), *self.shape[2:]), np.float32)
        wanted = order.times[times]
        months = wanted.astype("datetime64[M]")
        variables = np.array([parse_channel(name).variable.short for name in stored])
        for variable in np.unique(variables):  # one file holds all levels of one
            columns = np.flatnonzero(variables == variable)
            for month in np.unique(months):
                rows = np.flatnonzero(months == month)
                fields[np.ix_(rows, columns)] = _read(order, [stored[i] for i in columns], month, wanted[rows])
        return derivation.compute(fields, held, channels, wanted, order.box.grid, order.hours)


@lru_cache(maxsize=4)
def _from_settings(text: str) -> OrderedFields:
    """An order follows from its settings, so these are all that is sent to the workers of a cluster."""
    return OrderedFields(Order.of(DataConfig.model_validate_json(text)))


def read_static(order: Order, number: int) -> np.ndarray:
    """[lat, lon] float32 of one constant field, canonical units.

    Raises:
        InputError: its file is not there.
    """
    request = order.static[number]
    path = str(order.file_of(request))
    contents = index_grib(path, NameRules(FilesSource(kind="files", paths=[path])), request.channels)
    piece = contents.pieces[0]
    values = piece.reader.read(piece.slots.index[:1], [piece.level])[0, 0]
    return piece.conversion.apply(piece.orientation.arrange(values))


def _read(order: Order, channels: Sequence[str], month: np.datetime64, times: np.ndarray) -> np.ndarray:
    """[time, channel, lat, lon] of channels of one variable at times of one month."""
    wanted = _wanted(order, channels, month)
    assert isinstance(wanted.source, FilesSource)
    with _OPENING:  # else every thread indexes the same file
        selection = _indexed(wanted.model_dump_json(), tuple(_stamp(path) for path in wanted.source.paths))
    if selection.grid != order.box.grid:
        raise InputError(
            f"{wanted.source.paths[0]} is on {selection.grid}, expected {order.box.grid}; delete it, and it is "
            "fetched again"
        )
    where = np.minimum(np.searchsorted(selection.times, times), len(selection.times) - 1)
    if len(lacking := times[selection.times[where] != times]):
        raise InputError(
            f"{', '.join(wanted.source.paths)}: {channels[0]} is not there for {name_times(lacking)}; delete the "
            "file, and it is fetched again"
        )
    return Fields(selection).read(where, np.array([wanted.channels.index(name) for name in channels]))


def _wanted(order: Order, channels: Sequence[str], month: np.datetime64) -> DataConfig:
    """All levels of a variable in a month, as settings of the source `files`."""
    days = order.times[order.times.astype("datetime64[M]") == month].astype("datetime64[D]")
    levels = {name for one in order.requests if set(channels) & set(one.channels) for name in one.channels}
    paths = [str(path) for path in order.files_of(channels, month)]
    return DataConfig.model_validate(
        {
            "store": order.data.store,
            "source": FilesSource(kind="files", paths=paths),
            "channels": sorted(levels),
            "period": Period(start=days[0].item(), end=days[-1].item()),
            **order.data.model_dump(mode="json", include={"step", "accumulation"}),
        }
    )


def _stamp(path: str) -> tuple[int, int]:
    """Changes when a file is replaced, as preliminary fields are by final ones."""
    stat = os.stat(path)
    return stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=64)
def _indexed(wanted: str, stamps: tuple[tuple[int, int], ...]) -> Selection:
    """Which message of which file stands for which channel and time; kept by each process for the next block."""
    data = DataConfig.model_validate_json(wanted)
    assert isinstance(data.source, FilesSource)
    rules = NameRules(data.source)
    contents = [index_grib(path, rules, data.channels) for path in data.source.paths]
    return select([piece for one in contents for piece in best_names(one.pieces)], data, data.source)
