"""From what all files hold to one field for each channel and time; everything doubtful is refused here."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weatherfm.data_pipeline.fields.derived import Derivation
from weatherfm.data_pipeline.fields.time_axis import name_times
from weatherfm.data_pipeline.formats.choice.tables import (
    Table,
    choose_lead,
    choose_member,
    refuse_overlapping_runs,
    sort,
    table_of,
)
from weatherfm.data_pipeline.formats.pieces import Piece
from weatherfm.data_pipeline.formats.sums.accumulation import Window, check_sums, find_window
from weatherfm.data_pipeline.formats.sums.labels import at_labels_of_means
from weatherfm.data_pipeline.source_config import FilesSource
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError

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
    signs: dict[int, np.ndarray]
    """Channel position -> [time, term] int8 of such a sum, where fields are taken off (-1) or not needed (0)."""
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


def select(pieces: Sequence[Piece], data: DataConfig, source: FilesSource) -> Selection:
    """Choose member, lead time and times; `pieces` hold every channel of the config at least once.

    Raises:
        InputError: several members or lead times and none chosen, two fields for one time, a channel that lacks
            times others have, files on different grids, accumulations that cannot be summed as the config asks.
    """
    kept = at_labels_of_means([piece for piece in pieces if piece.channel in data.channels])
    grid = common_grid(kept)
    tables = [table_of(channel, kept) for channel in data.channels]
    choose_member(tables, source.number)
    choose_lead(tables, source.lead_time)
    windows = _windows(tables, kept, data, source)
    ends = {table.channel: _limit(table, data, windows.get(table.channel)) for table in tables}
    for table in tables:
        sort(table, kept)
    _sum(tables, windows, ends, data)
    times = _common_times(tables, windows, data.allow_gaps)
    piece_of = np.empty((len(tables), len(times)), np.int32)
    slot_of = np.empty((len(tables), len(times)), np.int64)
    sums, signs, preliminary = {}, {}, np.zeros(len(times), bool)
    for i, table in enumerate(tables):
        rows = np.searchsorted(table.times, times)
        preliminary |= table.preliminary[rows]
        piece, slot = table.piece[rows], table.slot[rows]
        if piece.ndim == 2:
            sums[i] = piece.astype(np.int32), slot
            if (table.signs[rows] != 1).any():
                signs[i] = table.signs[rows]
            piece, slot = piece[:, -1], slot[:, -1]
        piece_of[i], slot_of[i] = piece, slot
    return Selection(times, grid, kept, piece_of, slot_of, sums, signs, windows, preliminary)


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


def _windows(
    tables: Sequence[Table], pieces: Sequence[Piece], data: DataConfig, source: FilesSource
) -> dict[str, Window]:
    """What each accumulated channel is to be a sum over."""
    windows = {}
    for table in tables:
        if table.accumulated and source.lead_time is None:
            refuse_overlapping_runs(table, pieces)
        window = find_window(table, pieces, data, source)
        if window is not None:
            windows[table.channel] = window
    return windows


def _limit(table: Table, data: DataConfig, window: Window | None) -> np.ndarray:
    """Drop times that the config does not ask for, so that files need not agree on them; the wanted times.

    Of a sum, all its terms stay.
    """
    keep = table.chosen if data.period is None else table.chosen & data.period.contains(table.times)
    if not len(table.times):
        raise InputError(f"the files with {table.channel} hold no time at all; fetch them again, or leave them out")
    if not keep.any():
        raise InputError(
            f"no file holds {table.channel} in data.period {data.period}; the files go from "
            f"{table.times.min()} to {table.times.max()}: correct the period or add files"
        )
    if data.step is not None:
        every = math.gcd(data.step, 24) * _HOUR  # prepare keeps fewer still
        keep = keep & ((table.times - np.datetime64(data.step_offset, "h")) % every == np.timedelta64(0, "s"))
    if not keep.any():
        raise InputError(
            f"{table.channel} has no time on steps of {data.step}h from {data.step_offset:02d} UTC; choose others"
        )
    ends = np.unique(table.times[keep])
    if window is not None:
        keep = (table.times >= ends[0] - window.span) & (table.times <= ends[-1])
    table.keep(keep)
    return ends


def _sum(tables: Sequence[Table], windows: dict[str, Window], ends: dict[str, np.ndarray], data: DataConfig) -> None:
    """Make each row of an accumulated channel the sum over its window; a time with an incomplete one is missing."""
    early, asked = np.zeros(0, "datetime64[s]"), np.concatenate(list(ends.values()))
    for table in tables:
        if (window := windows.get(table.channel)) is None:
            continue
        wanted = ends[table.channel]
        terms = window.terms(table, wanted)
        check_sums(table.channel, window, wanted, terms, data)
        if data.period is None:
            early = np.union1d(early, wanted[terms.early])
            begin = wanted[terms.complete][0]  # other channels may have the start of a forecast, which ends no sum
            early = np.union1d(early, asked[(asked >= begin - window.span) & (asked < begin)])
        rows, signs = terms.rows[terms.complete], terms.signs[terms.complete]
        if rows.shape[1] == 1:
            table.keep(rows[:, 0])
        else:
            table.sum_rows(rows, signs)
    if len(early):
        _log.warning("%d times left out: the sums at %s begin before the files do", len(early), name_times(early))
        for table in tables:
            table.keep(~np.isin(table.times, early))


def _common_times(tables: Sequence[Table], windows: dict[str, Window], allow_gaps: bool) -> np.ndarray:
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
        why = "" if window is None or window.whole else f" has no complete {window.hours:g}h sum at"
        raise InputError(
            f"channels have different times: {worst.channel}{why or ' lacks'} {len(lacking)} of {len(union)} "
            f"(first {lacking[0]}; it goes from {worst.times[0]} to {worst.times[-1]}, {fullest.channel} from "
            f"{fullest.times[0]} to {fullest.times[-1]}); add files, narrow data.period, set data.step"
            + ("" if not len(common) else ", or set data.allow_gaps to keep only times all channels have")
        )
    if len(common) < len(union):
        _log.warning("%d of %d times left out: not every channel has them", len(union) - len(common), len(union))
    return common


def place_of(selection: Selection, derivation: Derivation, channel: int, time: int) -> str:
    """File and name of the field, or of all that it is computed from.

    Args:
        selection: which field of which file stands for what is stored.
        derivation: how channels come of it.
        channel: position among the channels of `derivation`.
        time: position on the time axis of `selection`.
    """
    pieces = []
    for held in derivation.needed(np.array([channel])):
        numbers, _ = selection.terms_of(int(held), np.array([time]))
        pieces.append(selection.pieces[int(numbers[0, -1])])
    names = dict.fromkeys(f"{piece.name} of {piece.path}" for piece in pieces)
    return " and ".join(names)
