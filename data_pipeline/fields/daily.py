"""Days made of a source's times: means, smallest and largest values from 00 UTC on, and sums over the whole day."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np

from weatherfm.data_pipeline.fields.positions import BlockEnds, Portion, Readable, view
from weatherfm.data_pipeline.fields.source_data import ReadCost, SourceData
from weatherfm.data_pipeline.fields.time_axis import name_times, spacing
from weatherfm.data_pipeline.store_config import DataConfig, Period
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError

_log = logging.getLogger(__name__)
_DAY = 24 * 3600
"""Seconds."""
_HELD = 64 * 2**20
"""Bytes of a source's fields from which on no more days are read at once: a chunk that cuts a day is read twice."""
_MAKE: dict[str, Callable[..., np.ndarray]] = {
    "mean": np.mean, "minimum": np.min, "maximum": np.max, "sum": np.sum,
}  # fmt: skip


def samples_of(data: DataConfig) -> DataConfig:
    """The settings that read the times that days are made of; the same where no days are made.

    Sums end at their time: those of the last day end with the first time of the next.
    """
    if data.daily is None:
        return data
    channels = list(dict.fromkeys(base for base, _ in data.statistics_of_days().values()))
    period = data.period
    if period is not None and any(map(_is_sum, channels)):
        period = Period(start=period.start, end=period.end + timedelta(days=1))
    # times that a channel lacks make days that are not whole, and these are told below
    return data.model_copy(update={"daily": None, "channels": channels, "period": period, "allow_gaps": True})


def by_day(source: SourceData, data: DataConfig) -> SourceData:
    """Whole days of a source, labelled with their 00 UTC.

    Args:
        source: opened with `samples_of`.
        data: says what is made of which channel.

    Raises:
        InputError: times that do not divide a day, sums over another span than from one time to the next, or no whole
            day.
    """
    times = source.state["time"].values.astype("datetime64[s]")
    step = _step_of(times, data)  # seconds
    bases = [str(name) for name in source.state["channel"].values]
    _check_sums(source, bases, step)
    made = data.statistics_of_days()
    sums = any(map(_is_sum, bases))
    days, rows = _whole_days(times, step, sums, any(not _is_sum(name) for name in bases), data.period)
    columns = np.array([bases.index(made[name][0]) for name in data.channels])
    how = ["sum" if _is_sum(made[name][0]) else made[name][1] for name in data.channels]
    count = _DAY // step
    fields = DailyFields(source, rows, count, columns, how)
    state = view(fields, days, data.channels, source.grid, fields.blocks)
    state.attrs.update(source.state.attrs)
    window = {"window_hours": 24, "source_hours": step / 3600, "ends_hours_after": 24}
    windows = {name: dict(window) for name in data.channels if _is_sum(made[name][0])}
    told = {"statistics": dict(zip(data.channels, how, strict=True)), "times_a_day": count}
    attributes = {**source.attributes, "daily": told} | ({"accumulation": windows} if windows else {})
    return replace(
        source,
        state=state,
        attributes=attributes,
        preliminary=None if source.preliminary is None else source.preliminary[rows].any(1),
        cost=None if source.cost is None else _cost(source.cost, rows),
        block_bytes=source.block_bytes + fields.held_bytes,
        together=fields.together(source.together),
        place=None if source.place is None else _place(source.place, columns, rows),
        read_from=fields,
    )


class DailyFields(Readable):
    """Statistics of the fields of each day, made as they are read."""

    def __init__(
        self, source: SourceData, rows: np.ndarray, count: int, columns: np.ndarray, how: Sequence[str]
    ) -> None:
        """Take, of each day, positions `rows` on the source's time axis: the first `count` for values at single times,
        the last `count` for sums, which stand at the ends of their spans."""
        self._fields, self._ends = source.fields, BlockEnds.of(source.state)
        self._rows, self._count, self._columns, self._how = rows, count, columns, tuple(how)
        self.shape = (len(rows), len(columns), *source.state.shape[2:])

    def read(self, times: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """[len(times), len(channels), lat, lon] for positions on the two axes, a day at a time in float64."""
        out = np.empty((len(times), len(channels), *self.shape[2:]), np.float32)
        for sums, rows in ((False, self._rows[times, : self._count]), (True, self._rows[times, -self._count :])):
            wanted = np.flatnonzero([(self._how[channel] == "sum") == sums for channel in channels])
            if len(wanted):
                self._fill(out, rows, channels, wanted)
        return out

    def _fill(self, out: np.ndarray, rows: np.ndarray, channels: np.ndarray, wanted: np.ndarray) -> None:
        of, column = np.unique(self._columns[channels[wanted]], return_inverse=True)
        at, place = np.unique(rows, return_inverse=True)
        values = Portion.within(self._ends, at, of).read(self._fields)  # [time, channel, lat, lon]
        place = place.reshape(rows.shape)
        for i, own in enumerate(place):
            for position, c in zip(wanted, column, strict=True):
                exact = values[own, c].astype(np.float64)
                out[i, position] = _MAKE[self._how[channels[position]]](exact, axis=0)

    @property
    def blocks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Lengths along days and channels of what is best read at once: about a block of the source, one day at
        least; neighbours of one block of channels."""
        times, channels = self._ends.largest()
        fitting = _HELD // (4 * channels * int(np.prod(self.shape[2:])))
        most = max(1, max(times, fitting) // self._count)
        whole, rest = divmod(len(self._rows), most)
        block = np.searchsorted(self._ends.channels, self._columns, side="right")
        changes = np.flatnonzero(np.diff(block)) + 1
        lengths = np.diff([0, *changes.tolist(), len(block)]).tolist()
        return (most,) * whole + ((rest,) if rest else ()), tuple(lengths)

    @property
    def held_bytes(self) -> int:
        """Of the source's fields that one block is made of, and of one day in float64."""
        days, channels = (max(lengths) for lengths in self.blocks)
        field = int(np.prod(self.shape[2:]))
        return 4 * field * (days * self._count + 1) * channels + 8 * field * self._count

    def together(self, groups: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
        """Sets of channels that the source keeps in the same chunks, or that are made of the same fields."""
        grouped = {column for group in groups for column in group}
        alone = [(column,) for column in np.unique(self._columns).tolist() if column not in grouped]
        found = [tuple(np.flatnonzero(np.isin(self._columns, group)).tolist()) for group in (*groups, *alone)]
        return tuple(group for group in found if len(group) > 1)


def _is_sum(channel: str) -> bool:
    return parse_channel(channel).variable.accumulated


def _step_of(times: np.ndarray, data: DataConfig) -> int:
    """Seconds between the times that days are made of.

    Raises:
        InputError: they are days already, or do not divide one.
    """
    step = None if data.step is None else data.step * 3600
    if step is None and (apart := spacing(times)) is not None:
        step = round(apart * 3600)
    if step is None or not 0 < step < _DAY or _DAY % step:
        held = "a single time" if step is None else f"times {step / 3600:g}h apart"
        raise InputError(f"data.daily makes days of times within them, but the source has {held}; leave data.daily out")
    return step


def _check_sums(source: SourceData, bases: Sequence[str], step: int) -> None:
    for name, told in source.attributes.get("accumulation", {}).items():
        if name in bases and told["window_hours"] * 3600 != step:
            raise InputError(
                f"{name} is a sum over {told['window_hours']:g}h, and days are made of times {step / 3600:g}h apart; "
                f"set data.step={told['window_hours']:g}h, or add files with shorter sums"
            )


def _whole_days(
    times: np.ndarray, step: int, sums: bool, states: bool, period: Period | None
) -> tuple[np.ndarray, np.ndarray]:
    """([day] datetime64[s], [day, n] positions of its times, those of sums later by one) of days with all of them.

    Raises:
        InputError: there are none.
    """
    begin = np.unique(times.astype("datetime64[D]")).astype("datetime64[s]")
    if period is not None:
        begin = begin[period.contains(begin)]
    offsets = np.arange(0 if states else 1, _DAY // step + sums) * np.timedelta64(step, "s")
    wanted = begin[:, None] + offsets
    whole = np.isin(wanted, times).all(1)
    if not whole.any():
        raise InputError(
            f"no day of the source is whole: data.daily needs all times {step / 3600:g}h apart"
            + (", and sums until 00 UTC of the next day" if sums else "")
        )
    if len(broken := begin[~whole & np.isin(wanted[:, 1:], times).any(1)]):
        _log.warning("%d days lack some of their times and are left out: %s", len(broken), name_times(broken))
    return begin[whole], np.searchsorted(times, wanted[whole])


def _cost(cost: Callable[[np.ndarray], ReadCost], rows: np.ndarray) -> Callable[[np.ndarray], ReadCost]:
    return lambda days: cost(np.unique(rows[days]))


def _place(place: Callable[[int, int], str], columns: np.ndarray, rows: np.ndarray) -> Callable[[int, int], str]:
    return lambda channel, day: place(int(columns[channel]), int(rows[day, 0]))
