"""All fields of a channel as one table: which member, which forecast, and no time twice."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weatherfm.data_pipeline.formats.choice.overlaps import refuse_overlap
from weatherfm.data_pipeline.formats.pieces import NO_MEMBER, Piece
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError

_log = logging.getLogger(__name__)
_FIRST, _LAST = np.datetime64("1700-01-01", "s"), np.datetime64("2200-01-01", "s")
_COLUMNS = ("times", "leads", "numbers", "piece", "slot", "hours", "preliminary", "chosen", "signs")


@dataclass
class Table:
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
    chosen: np.ndarray
    """[row] bool: of the lead time asked for. A sum may need fields of others of its run."""
    signs: np.ndarray
    """[row] int8, or [row, term] once the rows are sums: 1 added, -1 taken off, 0 not needed."""

    @property
    def accumulated(self) -> bool:
        """True for sums over time."""
        return parse_channel(self.channel).variable.accumulated

    def keep(self, rows: np.ndarray) -> None:
        """Only these, or in this order."""
        for name in _COLUMNS:
            setattr(self, name, getattr(self, name)[rows])

    def sum_rows(self, rows: np.ndarray, signs: np.ndarray) -> None:
        """Make one row of each `rows` [row, term]; it has the time of its last term."""
        piece, slot, preliminary = self.piece[rows], self.slot[rows], self.preliminary[rows].any(axis=1)
        self.keep(rows[:, -1])
        self.piece, self.slot, self.preliminary, self.signs = piece, slot, preliminary, signs


def table_of(channel: str, pieces: Sequence[Piece]) -> Table:
    """All fields of `channel`, in the order of `pieces`.

    Raises:
        InputError: a field without a time, or of a year that cannot be.
    """
    numbered = [(i, piece) for i, piece in enumerate(pieces) if piece.channel == channel]
    for _, piece in numbered:
        if np.isnat(piece.slots.times).any():
            raise InputError(
                f"{piece.path}: {piece.name} has no time (or a missing value for one); add a time coordinate "
                "with 'units: hours since ...', or leave the file out (source.exclude)"
            )
        if (odd := piece.slots.times[(piece.slots.times < _FIRST) | (piece.slots.times > _LAST)]).size:
            raise InputError(
                f"{piece.path}: {piece.name} is at {odd[0]}, and no weather is known of that year (the year may be "
                "missing in the file); mend the date, or leave the file out (source.exclude)"
            )
    slots = [piece.slots for _, piece in numbered]
    count = sum(len(s.times) for s in slots)
    return Table(
        channel,
        np.concatenate([s.times for s in slots]),
        np.concatenate([s.leads for s in slots]),
        np.concatenate([s.numbers for s in slots]),
        np.concatenate([np.full(len(s.index), i) for (i, _), s in zip(numbered, slots, strict=True)]),
        np.concatenate([s.index for s in slots]),
        np.concatenate([np.full(len(s.times), np.nan) if s.accumulated is None else s.accumulated for s in slots]),
        np.concatenate([s.preliminary for s in slots]),
        np.ones(count, bool),
        np.ones(count, np.int8),
    )


def choose_member(tables: Sequence[Table], number: int | None) -> None:
    """Keep one member.

    Raises:
        InputError: several and none chosen, or one that the files do not hold.
    """
    known = sorted({int(n) for table in tables for n in distinct(table.numbers)} - {NO_MEMBER})
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


def choose_lead(tables: Sequence[Table], lead_time: int | str | None) -> None:
    """Keep one lead time, or with `shortest` the latest forecast for each time; of sums, only mark those chosen.

    Raises:
        InputError: several and none chosen, or one that the files do not hold.
    """
    for table in tables:
        if table.accumulated:
            _leave_out_empty_sums(table)
    if lead_time is None:
        known = _leads([table for table in tables if not table.accumulated])
        if len(known) > 1:
            raise InputError(
                f"files hold forecasts of several lead times ({list_hours(known)}); choose one, e.g. source.lead_time="
                f"{known[0]:g}h (analyses are 0h), or the latest forecast for each time: source.lead_time=shortest"
            )
        return
    for table in tables:
        if lead_time == "shortest":
            if not table.accumulated:
                _keep_shortest(table)
            continue
        known = _leads([table])
        table.chosen = (table.leads == lead_time) | np.isnan(table.leads)
        if not table.chosen.any():
            raise InputError(
                f"no file holds {table.channel} at lead time {lead_time}h, only {list_hours(known)}; choose one of "
                "these"
            )
        if not table.accumulated:
            table.keep(table.chosen)


def sort(table: Table, pieces: Sequence[Piece]) -> None:
    """Bring rows into the order of time; final fields take the place of preliminary ones of the same time.

    Raises:
        InputError: two fields for one time (of sums, over the same span and of the same forecast).
    """
    hours = np.nan_to_num(table.hours, nan=-1.0)
    table.keep(np.lexsort((table.preliminary, table.leads, hours, table.times)))
    again = _again(table)
    replaced = again & table.preliminary & ~np.roll(table.preliminary, 1)
    if replaced.any():
        first = int(np.flatnonzero(replaced)[0])
        final, early = (pieces[table.piece[i]].path for i in (first - 1, first))
        _log.info(
            "%d times of %s are in %s as preliminary fields and in %s as final ones: the final ones are taken",
            replaced.sum(), table.channel, early, final,
        )  # fmt: skip
        table.keep(~replaced)
        again = _again(table)
    if again.any():
        rows = np.flatnonzero(again) - 1
        refuse_overlap(table.channel, table.times, table.leads, table.piece, table.slot, rows, pieces)


def _again(table: Table) -> np.ndarray:
    """[row] bool: the same field as in the row before."""
    same = table.times[1:] == table.times[:-1]
    if table.accumulated:
        change = table.leads[1:] - table.leads[:-1]
        same &= np.isnan(change) | (change == 0)
        same &= np.nan_to_num(table.hours[1:], nan=-1.0) == np.nan_to_num(table.hours[:-1], nan=-1.0)
    return np.append(False, same)


def refuse_overlapping_runs(table: Table, pieces: Sequence[Piece]) -> None:
    """Refuse sums of two forecasts that end at the same time.

    Raises:
        InputError: there are such.
    """
    order = np.lexsort((table.leads, table.times))
    times, leads = table.times[order], table.leads[order]
    twice = np.flatnonzero((times[1:] == times[:-1]) & (leads[1:] != leads[:-1]) & ~np.isnan(leads[1:] + leads[:-1]))
    if len(twice):
        refuse_overlap(table.channel, times, leads, table.piece[order], table.slot[order], twice, pieces)


def _leave_out_empty_sums(table: Table) -> None:
    """A sum at the very start of a forecast holds nothing, where an earlier forecast has one that ends then."""
    empty = (table.leads == 0) & ~(table.hours > 0)
    if empty.any():
        others = table.times[~empty]
        table.keep(~empty | (~np.isin(table.times, others) & (table.hours != 0)))
    if not len(table.times):
        raise InputError(
            f"the files hold {table.channel} at the start of forecasts only, summed over no time; add later steps"
        )


def _keep_shortest(table: Table) -> None:
    order = np.lexsort((np.nan_to_num(table.leads, nan=np.inf), table.times))
    table.keep(order)
    first = np.append(True, table.times[1:] != table.times[:-1])
    best = table.leads[np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))]
    table.keep((table.leads == best) | np.isnan(table.leads))


def _leads(tables: Sequence[Table]) -> list[float]:
    return sorted({float(lead) for t in tables for lead in distinct(t.leads) if not np.isnan(lead)})


def distinct(values: np.ndarray) -> np.ndarray:
    """Ascending and each once; quick where they are so already or all the same, as in most files."""
    same = np.broadcast_to(values[:1], values.shape)
    if len(values) and np.array_equal(values, same, equal_nan=values.dtype.kind == "f"):
        return values[:1]
    return values if (values[1:] > values[:-1]).all() else np.unique(values)


def _list(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:12])) + (", ..." if len(values) > 12 else "")


def list_hours(leads: Sequence[float]) -> str:
    """Text for a message."""
    return ", ".join(f"{lead:g}h" for lead in leads[:12]) + (", ..." if len(leads) > 12 else "")
