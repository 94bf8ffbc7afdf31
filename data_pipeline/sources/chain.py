"""Source `chain`: the same variables from one source after the other in time, on the grid of the first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta

import numpy as np

from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.joined_config import ChainPart, ChainSource
from weatherfm.data_pipeline.sources import open_source as open_any
from weatherfm.data_pipeline.sources.joining import Member, face, named, open_on, provenance, windows_of
from weatherfm.data_pipeline.store_config import DataConfig, Period
from weatherfm.errors import InputError


def open_source(data: DataConfig) -> SourceData:
    """All parts of `data.period` on the grid of the first; reads what the parts read on opening.

    Constant fields are those of the first part that has days in the period.

    Raises:
        InputError: a part that cannot give its days, a grid that does not cover the first one's, or sums over
            different spans.
        OutsideError: the network failed.
    """
    source = data.source
    assert isinstance(source, ChainSource)
    method = data.regrid.method if data.regrid else source.method
    opened: list[tuple[int, SourceData]] = []
    for number, own in _shares(data, source):
        with named(number):
            on_first = open_on(own, opened[0][1].grid, method) if opened else open_any(own)
        opened.append((number, on_first))
    if not opened:
        raise InputError(f"no part of the source has days in data.period {data.period}; choose other days")
    _refuse_other_sums([part for _, part in opened])
    inside = [_inside(part, source.parts, number) for number, part in opened]
    times = np.concatenate([part.state["time"].values[own] for (_, part), own in zip(opened, inside, strict=True)])
    members = list(_members(opened, inside, len(data.channels)))
    told = [{"kind": part.source.kind, "start": part.start and str(part.start)} for part in _parts(source, opened)]
    whole = face(members, opened[0][1].static, times, data.channels, provenance(members, told))
    return replace(whole, begins=tuple(np.cumsum([len(own) for own in inside])[:-1].tolist()))


def _shares(data: DataConfig, source: ChainSource) -> Iterator[tuple[int, DataConfig]]:
    """(number, settings as if it were alone) of each part that has days in the period; the first has the constant
    fields."""
    static = data.static
    for number, part in enumerate(source.parts):
        period, (start, end) = data.period, _days(source.parts, number)
        if period is not None:
            first, last = max(start, period.start), min(end, period.end)
            if first > last:
                continue
            period = Period(start=first, end=last)
        yield number, data.model_copy(update={"source": part.source, "period": period, "static": static})
        static = []


def _days(parts: Sequence[ChainPart], number: int) -> tuple[date, date]:
    """First and last day of a part."""
    start, after = parts[number].start, parts[number + 1].start if number + 1 < len(parts) else None
    return start or date.min, after - timedelta(days=1) if after else date.max


def _inside(part: SourceData, parts: Sequence[ChainPart], number: int) -> np.ndarray:
    """[n] positions on the part's time axis that lie on its days.

    Raises:
        InputError: there are none.
    """
    days = part.state["time"].values.astype("datetime64[D]")
    first, last = (np.datetime64(day) for day in _days(parts, number))
    found = np.flatnonzero((days >= first) & (days <= last))
    if not len(found):
        raise InputError(
            f"part {number} of the chain has no time on its days {first} to {last}: its source reaches from {days[0]} "
            f"to {days[-1]}; correct its start, or add its files"
        )
    return found


def _members(
    opened: Sequence[tuple[int, SourceData]], inside: Sequence[np.ndarray], n_channels: int
) -> Iterator[Member]:
    before, total = 0, sum(map(len, inside))
    for (number, part), own in zip(opened, inside, strict=True):
        times = np.full(total, -1)
        times[before : before + len(own)] = own
        before += len(own)
        yield Member(part, times, np.arange(n_channels), f"parts.{number}")


def _parts(source: ChainSource, opened: Sequence[tuple[int, SourceData]]) -> list[ChainPart]:
    return [source.parts[number] for number, _ in opened]


def _refuse_other_sums(parts: Sequence[SourceData]) -> None:
    """A channel is a sum over the same span from all parts, and days are made of as many times."""
    counts = [part.attributes["daily"]["times_a_day"] for part in parts if "daily" in part.attributes]
    if other := next((count for count in counts if count != counts[0]), None):
        raise InputError(
            f"days are made of {counts[0]} times in the first part of the chain and of {other} in another; set "
            "data.step to what all have, as 6h"
        )
    first = windows_of(parts[:1])
    for part in parts[1:]:
        for name, told in windows_of([part]).items():
            one, two = first.get(name, {}).get("window_hours"), told["window_hours"]
            if one != two:
                raise InputError(
                    f"{name} is a sum over {one:g}h in the first part of the chain and over {two:g}h in another; set "
                    "data.accumulation to what all can give"
                )
