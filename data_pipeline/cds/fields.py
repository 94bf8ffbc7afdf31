"""Reading the fields of an order from the files that have come, month by month, by what each file holds."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from weatherfm.data_pipeline.cds.downloads import index_download
from weatherfm.data_pipeline.cds.held import Held, shares
from weatherfm.data_pipeline.cds.order import Order
from weatherfm.data_pipeline.cds.wanted import needed_times, window_hours
from weatherfm.data_pipeline.fields.positions import Readable
from weatherfm.data_pipeline.fields.time_axis import name_times
from weatherfm.data_pipeline.formats.pieces import Contents, Piece, best_names
from weatherfm.data_pipeline.formats.reading.lazy_state import Fields
from weatherfm.data_pipeline.formats.reading.selection import Selection, select
from weatherfm.data_pipeline.source_config import FilesSource
from weatherfm.data_pipeline.store_config import DataConfig, Period
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError

_KEPT = 64
"""Selections of a month and variable that an `OrderedFields` remembers."""


class OrderedFields(Readable):
    """All fields of an order, each month read from its own files; small, and it pickles."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self.shape = (len(order.times), len(order.data.channels), *order.box.grid.shape)
        self._opening = threading.Lock()  # else every thread indexes the same file
        self._selections: dict[Any, Selection] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_settings, (self._order.data.model_dump_json(), self._order.latest)

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
        for variable in np.unique(variables):
            columns = np.flatnonzero(variables == variable)
            for month in np.unique(months):
                rows = np.flatnonzero(months == month)
                names = [stored[i] for i in columns]
                fields[np.ix_(rows, columns)] = self._read(variable, names, month, wanted[rows])
        return derivation.compute(fields, held, channels, wanted, order.box.grid, order.hours)

    def _read(self, variable: str, names: Sequence[str], month: np.datetime64, times: np.ndarray) -> np.ndarray:
        """[time, channel, lat, lon] of channels of one variable at times of one month."""
        with self._opening:
            channels, selection = self._selection(variable, month)
        where = np.minimum(np.searchsorted(selection.times, times), len(selection.times) - 1)
        if len(lacking := times[selection.times[where] != times]):
            raise InputError(
                f"{_paths(selection.pieces)}: {names[0]} is not there for {name_times(lacking)}; delete the file, and "
                "it is fetched again"
            )
        return Fields(selection).read(where, np.array([channels.index(name) for name in names]))

    def _selection(self, variable: str, month: np.datetime64) -> tuple[list[str], Selection]:
        """(channels of a variable, which message of which file stands for each at the times of a month)."""
        order = self._order
        channels = sorted(name for name in order.derivation.stored if parse_channel(name).variable.short == variable)
        if (key := (variable, month, order.latest)) not in self._selections:
            if len(self._selections) >= _KEPT:
                self._selections.pop(next(iter(self._selections)))
            self._selections[key] = _select(order, channels, month)
        return channels, self._selections[key]


@lru_cache(maxsize=4)
def _from_settings(text: str, until: int) -> OrderedFields:
    """An order follows from its settings and its files, so these are all that is sent to the workers of a cluster."""
    return OrderedFields(Order.of(DataConfig.model_validate_json(text), until))


def read_static(order: Order, name: str) -> np.ndarray:
    """[lat, lon] float32 of one constant field, canonical units.

    Raises:
        InputError: its file is not there.
    """
    ((held, hours),) = _files_of(order, name, order.wanted[name])
    piece = _pieces(order, held, name, hours)[0]
    values = piece.reader.read(piece.slots.index[:1], [piece.level])[0, 0]
    return piece.conversion.apply(piece.orientation.arrange(values))


def _select(order: Order, channels: Sequence[str], month: np.datetime64) -> Selection:
    times = order.times[order.times.astype("datetime64[M]") == month]
    hours = needed_times(times, window_hours(channels[0], order.data))
    pieces = [
        piece
        for name in channels
        for held, taken in _files_of(order, name, hours)
        for piece in _pieces(order, held, name, taken)
    ]
    days = times.astype("datetime64[D]")
    source = FilesSource(kind="files", paths=sorted({piece.path for piece in pieces}))
    settings = {
        "store": order.data.store,
        "source": source,
        "channels": channels,
        "period": Period(start=days[0].item(), end=days[-1].item()),
        **order.data.model_dump(mode="json", include={"step", "step_offset", "accumulation", "allow_gaps"}),
    }
    return select(pieces, DataConfig.model_validate(settings), source)


def _files_of(order: Order, name: str, hours: np.ndarray) -> list[tuple[Held, np.ndarray]]:
    """(file, hours to take from it) that together hold a channel at all these hours."""
    found = shares(name, hours, order.box, order.files)
    if len(lacking := np.setdiff1d(hours, np.concatenate([hours[:0], *(taken for _, taken in found)]))):
        raise InputError(
            f"{name} at {name_times(lacking)} is not in {order.downloads.folder}; `weatherfm prepare` downloads it "
            "first"
        )
    return found


def _pieces(order: Order, held: Held, name: str, hours: np.ndarray) -> list[Piece]:
    """The fields of a channel at these hours in one file, which holds them all.

    Raises:
        InputError: the file is gone, or another than what was downloaded.
    """
    try:
        stat = os.stat(held.path)
        contents = _contents(str(held.path), (stat.st_mtime_ns, stat.st_size), tuple(sorted(order.wanted)))
    except OSError as error:
        raise InputError(f"{held.path} is gone ({error.strerror}); start again, and it is fetched again") from error
    found = []
    for piece in best_names([piece for piece in contents.pieces if piece.channel == name]):
        if piece.orientation.grid != order.box.grid:
            raise InputError(
                f"{held.path} is on {piece.orientation.grid}, expected {order.box.grid}; delete it, and it is fetched "
                "again"
            )
        found.append(replace(piece, slots=piece.slots.keep(np.isin(piece.slots.times, hours))))
    if len(lacking := np.setdiff1d(hours, np.concatenate([hours[:0], *(piece.slots.times for piece in found)]))):
        raise InputError(
            f"{held.path}: {name} is not there for {name_times(lacking)}; delete the file, and it is fetched again"
        )
    return [piece for piece in found if len(piece.slots.times)]


def _paths(pieces: Sequence[Piece]) -> str:
    return ", ".join(sorted({piece.path for piece in pieces}))


@lru_cache(maxsize=32)
def _contents(path: str, stamp: tuple[int, int], channels: tuple[str, ...]) -> Contents:
    """Which message of a file is what; kept by each process for the next block, until the file changes."""
    return index_download(path, channels)
