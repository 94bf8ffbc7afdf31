"""The fields of one channel in one GRIB file, as the slots of a piece."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from weatherfm.data_pipeline.formats.grib.copies import refuse_different_copies
from weatherfm.data_pipeline.formats.grib.headers import Header
from weatherfm.data_pipeline.formats.grib.index import GribIndex
from weatherfm.data_pipeline.formats.meaning.experiments import experiment_name, record_of
from weatherfm.data_pipeline.formats.pieces import Reader, Slots, are_era5t
from weatherfm.earth.variables import Variable

_HOURS_OF_DAY = {"mnth"}
"""Streams of monthly means of one hour of the day, whose sums are over some hours; others' are over a day."""


@dataclass
class Rows:
    """Columns of slots, in parts of one header each."""

    parts: list[tuple[np.ndarray, ...]] = field(default_factory=list)

    def add(self, index: GribIndex, number: int, variable: Variable, monthly: bool, rate_hours: float = 0.0) -> None:
        """All fields of an index under one of its headers; a sum counts at its end, a month at its start.

        Of mean rates, `rate_hours` says over which.
        """
        header = index.headers[number]
        where = np.flatnonzero(index.kind == number)
        times, hours = index.dates[where] + np.timedelta64(round(header.lead * 3600), "s"), header.lead
        if monthly:
            times, hours = _month(header, index.dates[where]), 0.0
        experiment, span = experiment_name(header.experiment), rate_hours or _span(header, variable, monthly)
        same = ((hours, "f8"), (header.member, "i8"), (experiment, "U16"), (span, "f8"))
        leads, members, names, spans = (np.full(len(where), value, kind) for value, kind in same)
        self.parts.append((times, leads, members, where, names, spans))

    def slots(self, channel: str, index_of: GribIndex, reader: Reader) -> Slots:
        """Each time, lead time, member and span once: of ERA5 the final field before the preliminary one.

        Args:
            channel: what the fields hold.
            index_of: of the file.
            reader: of its fields, which compares those that stand there twice: equal ones are one.

        Raises:
            InputError: two fields of the same time that differ (without the file's name).
        """
        columns = [parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in zip(*self.parts, strict=True)]
        times, leads, members, index, names, spans = columns
        preliminary = are_era5t(names.tolist())
        slots = Slots(times.astype("datetime64[s]"), leads, members, index, preliminary, spans, names)
        if len(self.parts) == 1 and (times[1:] > times[:-1]).all():  # nothing can stand there twice
            return slots
        records = np.array([record_of(name) for name in names.tolist()], names.dtype)
        keys = times, leads, members, records, np.nan_to_num(spans, nan=-1.0)
        order = np.lexsort((index, names, *reversed(keys)))
        same = np.ones(max(len(order) - 1, 0), bool)
        for key in keys:
            same &= key[order][1:] == key[order][:-1]
        twice = same & (names[order][1:] == names[order][:-1])
        refuse_different_copies(channel, slots, order, np.flatnonzero(twice), index_of, reader)
        return slots.keep(order[np.concatenate([[True], ~same])])


def _month(header: Header, dates: np.ndarray) -> np.ndarray:
    """First day of the month that a monthly mean is of."""
    if header.verifying_month:
        year, month = divmod(header.verifying_month, 100)
        return np.full(len(dates), np.datetime64(f"{year:04d}-{month:02d}", "M")).astype("datetime64[s]")
    return dates


def _span(header: Header, variable: Variable, monthly: bool) -> float:
    """Hours that a sum is over, NaN for other fields; a monthly mean of daily sums is over a day."""
    if not variable.accumulated:
        return float("nan")
    if monthly:
        return float("nan") if header.stream in _HOURS_OF_DAY else 24.0
    return header.span if header.step_type == "accum" else float("nan")
