"""From what all files hold to one field for each channel and time; everything doubtful is refused here."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weatherfm.data_pipeline.config import DataConfig
from weatherfm.data_pipeline.formats.accumulation import Window, check_sums, find_window, told_hours
from weatherfm.data_pipeline.formats.pieces import NO_MEMBER, Piece
from weatherfm.data_pipeline.source_config import FilesSource
from weatherfm.data_pipeline.time_axis import name_times
from weatherfm.errors import InputError
from weatherfm.grid import Grid
from weatherfm.variables import parse_channel

_log = logging.getLogger(__name__)
_HOUR = np.timedelta64(3600, "s")


@dataclass(frozen=True, eq=False)
class Selection:
    """Which field of which file stands for each channel and time."""

    times: np.ndarray
    """[time] datetime64[s], ascending."""
    grid: Grid
    pieces: list[Piece]
    piece_of: np.ndarray
    """[channel, time] int32 position in `pieces`; of a sum, its last term."""
    slot_of: np.ndarray
    """[channel, time] int64, as the reader of that piece counts; of a sum, its last term."""
    sums: dict[int, tuple[np.ndarray, np.ndarray]]
    """Channel position -> (piece, slot) [time, term] of the fields, in time order, whose sum is the channel."""
    windows: dict[str, Window]
    """What each accumulated channel is a sum over."""
    preliminary: np.ndarray
    """[time] bool: some field of that time is ERA5T."""

    def terms_of(self, channel: int, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(piece, slot) [time, term] of a channel at positions on the time axis; one term unless it is a sum."""
        if channel in self.sums:
            pieces, slots = self.sums[channel]
            return pieces[times], slots[times]
        return self.piece_of[channel, times][:, None], self.slot_of[channel, times][:, None]


@dataclass
class _Table:
    """All fields of one channel: one row each."""

    channel: str
    times: np.ndarray
    leads: np.ndarray
    numbers: np.ndarray
    piece: np.ndarray
    """[row], or [row, term] once the rows are sums."""
    slot: np.ndarray
    """[row], or [row, term] once the rows are sums."""
    hours: np.ndarray
    """[row] that a field is summed over, NaN where that is not told."""
    preliminary: np.ndarray
    """[row] bool."""

    def keep(self, rows: np.ndarray) -> None:
        for name in ("times", "leads", "numbers", "piece", "slot", "hours", "preliminary"):
            setattr(self, name, getattr(self, name)[rows])

    def sum_rows(self, rows: np.ndarray) -> None:
        """Make one row of each `rows` [row, term]; it has the time of its last term."""
        piece, slot, preliminary = self.piece[rows], self.slot[rows], self.preliminary[rows].any(axis=1)
        self.keep(rows[:, -1])
        self.piece, self.slot, self.preliminary = piece, slot, preliminary


def select(pieces: Sequence[Piece], data: DataConfig, source: FilesSource) -> Selection:
    """Choose member, lead time and times; `pieces` hold every channel of the config at least once.

    Raises:
        InputError: several members or lead times and none chosen, two fields for one time, a channel that lacks
            times others have, files on different grids, accumulations that cannot be summed as the config asks.
    """
    kept = [piece for piece in pieces if piece.channel in data.channels]
    grid = common_grid(kept)
    tables = [_table(channel, kept) for channel in data.channels]
    _choose_member(tables, source.number)
    _choose_lead(tables, source.lead_time)
    windows = _windows(tables, kept, data)
    ends = {table.channel: _limit(table, data, windows.get(table.channel)) for table in tables}
    for table in tables:
        _sort(table, kept)
    _sum(tables, windows, ends, data)
    times = _common_times(tables, windows, data.allow_gaps)
    piece_of = np.empty((len(tables), len(times)), np.int32)
    slot_of = np.empty((len(tables), len(times)), np.int64)
    sums, preliminary = {}, np.zeros(len(times), bool)
    for i, table in enumerate(tables):
        rows = np.searchsorted(table.times, times)
        preliminary |= table.preliminary[rows]
        piece, slot = table.piece[rows], table.slot[rows]
        if piece.ndim == 2:
            sums[i] = piece.astype(np.int32), slot
            piece, slot = piece[:, -1], slot[:, -1]
        piece_of[i], slot_of[i] = piece, slot
    return Selection(times, grid, kept, piece_of, slot_of, sums, windows, preliminary)


def common_grid(pieces: Sequence[Piece]) -> Grid:
    """The grid that all pieces share.

    Raises:
        InputError: two grids, with a file for each.
    """
    first = pieces[0]
    for piece in pieces[1:]:
        same = piece.orientation is first.orientation or piece.orientation.grid == first.orientation.grid
        if not same:
            raise InputError(
                f"files are on different grids: {first.channel} in {first.path} on {first.orientation.grid}, "
                f"{piece.channel} in {piece.path} on {piece.orientation.grid}; "
                "regrid one or leave it out (source.exclude)"
            )
    return first.orientation.grid


def _table(channel: str, pieces: Sequence[Piece]) -> _Table:
    numbered = [(i, piece) for i, piece in enumerate(pieces) if piece.channel == channel]
    for _, piece in numbered:
        if np.isnat(piece.slots.times).any():
            raise InputError(
                f"{piece.path}: {piece.name} has no time (or a missing value for one); add a time coordinate "
                "with 'units: hours since ...', or leave the file out (source.exclude)"
            )
    slots = [piece.slots for _, piece in numbered]
    return _Table(
        channel,
        np.concatenate([s.times for s in slots]),
        np.concatenate([s.leads for s in slots]),
        np.concatenate([s.numbers for s in slots]),
        np.concatenate([np.full(len(s.index), i) for (i, _), s in zip(numbered, slots, strict=True)]),
        np.concatenate([s.index for s in slots]),
        np.concatenate([told_hours(piece) for _, piece in numbered]),
        np.concatenate([s.preliminary for s in slots]),
    )


def _choose_member(tables: Sequence[_Table], number: int | None) -> None:
    known = sorted({int(n) for table in tables for n in _distinct(table.numbers)} - {NO_MEMBER})
    if number is None and len(known) > 1:
        raise InputError(
            f"files hold {len(known)} ensemble members ({_list(known)}); choose one, e.g. source.number={known[0]}"
        )
    if number is not None and known and number not in known:
        raise InputError(f"source.number is {number}, but the files hold members {_list(known)}; choose one of these")
    if number is None:
        return
    for table in tables:
        table.keep((table.numbers == number) | (table.numbers == NO_MEMBER))
        if not len(table.times):
            raise InputError(f"no file holds member {number} of {table.channel}; add its file or choose another member")


def _choose_lead(tables: Sequence[_Table], lead_time: int | None) -> None:
    if lead_time is None:
        instant = [table for table in tables if not parse_channel(table.channel).variable.accumulated]
        known = _leads(instant)
        if len(known) > 1:
            raise InputError(
                f"files hold forecasts of several lead times ({_hours(known)}); choose one, e.g. "
                f"source.lead_time={known[0]:g}h (analyses are 0h)"
            )
        return
    for table in tables:
        known = _leads([table])
        table.keep((table.leads == lead_time) | np.isnan(table.leads))
        if not len(table.times):
            raise InputError(
                f"no file holds {table.channel} at lead time {lead_time}h, only {_hours(known)}; choose one of these"
            )


def _leads(tables: Sequence[_Table]) -> list[float]:
    return sorted({float(lead) for t in tables for lead in _distinct(t.leads) if not np.isnan(lead)})


def _windows(tables: Sequence[_Table], pieces: Sequence[Piece], data: DataConfig) -> dict[str, Window]:
    """What each accumulated channel is to be a sum over."""
    windows = {}
    for table in tables:
        paths = list(dict.fromkeys(pieces[i].path for i in _distinct(table.piece)))
        window = find_window(table.channel, data, table.times, table.leads, table.hours, paths)
        if window is not None:
            windows[table.channel] = window
    return windows


def _limit(table: _Table, data: DataConfig, window: Window | None) -> np.ndarray:
    """Drop times that the config does not ask for, so that files need not agree on them; the wanted times.

    Of a sum, all its terms stay.
    """
    keep = np.ones(len(table.times), bool) if data.period is None else data.period.contains(table.times)
    if not keep.any():
        raise InputError(
            f"no file holds {table.channel} in data.period {data.period}; the files go from "
            f"{table.times.min()} to {table.times.max()}: correct the period or add files"
        )
    if data.step is not None:
        every = math.gcd(data.step, 24) * _HOUR  # prepare keeps fewer still
        keep &= (table.times - np.datetime64(0, "s")) % every == np.timedelta64(0, "s")
    if not keep.any():
        raise InputError(f"{table.channel} has no time on steps of {data.step}h from 00 UTC; choose another data.step")
    ends = _distinct(table.times[keep])
    if window is not None and window.terms > 1:
        keep = (table.times > ends[0] - window.span) & (table.times <= ends[-1])
    table.keep(keep)
    return ends


def _sum(tables: Sequence[_Table], windows: dict[str, Window], ends: dict[str, np.ndarray], data: DataConfig) -> None:
    """Make each row of an accumulated channel the sum over its window; a time with an incomplete one is missing."""
    early = np.zeros(0, "datetime64[s]")
    for table in tables:
        window = windows.get(table.channel)
        if window is None or window.terms == 1:
            continue
        wanted = ends[table.channel]
        rows, complete = window.rows(table.times, wanted)
        check_sums(table.channel, window, wanted, complete, data)
        if data.period is None:
            early = np.union1d(early, wanted[window.begins_early(wanted)])
        table.sum_rows(rows[complete])
    if len(early):
        _log.warning("%d times left out: the sums at %s begin before the files do", len(early), name_times(early))
        for table in tables:
            table.keep(~np.isin(table.times, early))


def _sort(table: _Table, pieces: Sequence[Piece]) -> None:
    table.keep(np.argsort(table.times, kind="stable"))
    twice = np.flatnonzero(table.times[1:] == table.times[:-1])
    if not len(twice):
        return
    i = int(twice[0])
    first, second = pieces[table.piece[i]], pieces[table.piece[i + 1]]
    where = f"{first.path} and {second.path}" if first.path != second.path else f"{first.path} (twice)"
    names = "" if first.name == second.name else f" (as {first.name} and as {second.name})"
    leads = table.leads[i], table.leads[i + 1]
    cure = "leave one out (source.exclude) or cut the files so that they do not overlap"
    if leads[0] != leads[1] and not np.isnan(leads).any():
        cure = f"their lead times are {_hours(sorted(leads))}: choose one with source.lead_time"
    raise InputError(
        f"{table.channel} at {table.times[i]} stands in {where}{names}; {len(twice)} such "
        f"{'time' if len(twice) == 1 else 'times'} in all; {cure}"
    )


def _common_times(tables: Sequence[_Table], windows: dict[str, Window], allow_gaps: bool) -> np.ndarray:
    """Times that every channel has; unless gaps are allowed, none may lack any that another has."""
    union, common = tables[0].times, tables[0].times
    for table in tables[1:]:
        if np.array_equal(table.times, union) and len(common) == len(union):
            continue
        union, common = np.union1d(union, table.times), np.intersect1d(common, table.times)
    if len(common) < len(union) and not (allow_gaps and len(common)):
        worst = min(tables, key=lambda table: len(table.times))
        fullest = max(tables, key=lambda table: len(table.times))
        lacking = np.setdiff1d(union, worst.times)
        window = windows.get(worst.channel)
        why = "" if window is None or window.terms == 1 else f" has no complete {window.hours:g}h sum at"
        raise InputError(
            f"channels have different times: {worst.channel}{why or ' lacks'} {len(lacking)} of {len(union)} "
            f"(first {lacking[0]}; it goes from {worst.times[0]} to {worst.times[-1]}, {fullest.channel} from "
            f"{fullest.times[0]} to {fullest.times[-1]}); add files, narrow data.period, set data.step"
            + ("" if not len(common) else ", or set data.allow_gaps to keep only times all channels have")
        )
    if len(common) < len(union):
        _log.warning("%d of %d times left out: not every channel has them", len(union) - len(common), len(union))
    return common


def _distinct(values: np.ndarray) -> np.ndarray:
    """Ascending and each once; quick where they are so already or all the same, as in most files."""
    same = np.broadcast_to(values[:1], values.shape)
    if len(values) and np.array_equal(values, same, equal_nan=values.dtype.kind == "f"):
        return values[:1]
    return values if (values[1:] > values[:-1]).all() else np.unique(values)


def _list(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:12])) + (", ..." if len(values) > 12 else "")


def _hours(leads: Sequence[float]) -> str:
    return ", ".join(f"{lead:g}h" for lead in leads[:12]) + (", ..." if len(leads) > 12 else "")
