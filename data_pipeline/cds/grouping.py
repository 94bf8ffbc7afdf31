"""From the fields that are wanted to few requests: one a data set and month, where that fits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weatherfm.data_pipeline.cds.box import Box
from weatherfm.data_pipeline.cds.requests import PRESSURE_LEVELS, SINGLE_LEVELS, Request, field_bytes, product_of
from weatherfm.data_pipeline.cds.wanted import FIRST_DAY, FIRST_SUM, Wanted
from weatherfm.earth.variables import Channel, parse_channel

MOST_FIELDS = 60_000
"""In one request. The store's form refuses more with "Request too large. Cost 64512 over 60000 limit" (2025, GRIB;
ATMOS-BUD issue 7); its API has taken 120,000 hourly fields (ECMWF forum, topic 1639). Where it takes fewer, it says so
and the queue halves what is asked."""
MOST_BYTES = 50 * 10**9
"""In one answer: ECMWF's public Web API set this limit on a file (2015); a longer download seldom ends undisturbed."""

_SPARE = 1.5
"""Fields in a request, over those wanted, that are accepted to have one request instead of several."""
_HOUR = np.timedelta64(3600, "s")


def requests_for(wanted: Wanted, box: Box) -> list[Request]:
    """Requests whose answers hold everything wanted, in the order of their months.

    What has the same hours in a month is asked together, all variables of a data set at all their levels. Where few
    levels are shared, a request would bring much that nobody wants: then one goes out for each set of levels.
    """
    groups: dict[tuple[str, str, bytes], list[Channel]] = {}
    months = {id(hours): _by_month(hours) for hours in wanted.values()}  # most channels share theirs
    for name, hours in wanted.items():
        channel = parse_channel(name)
        dataset = PRESSURE_LEVELS if channel.variable.on_levels else SINGLE_LEVELS
        for month, packed in months[id(hours)]:
            groups.setdefault((month, dataset, packed), []).append(channel)
    most = min(MOST_FIELDS, MOST_BYTES // field_bytes(box))
    found = []
    for (month, dataset, packed), channels in groups.items():
        for days, hours_of_day in _rectangles(np.frombuffer(packed, "datetime64[s]"), channels):
            for variables, levels in _blocks(channels):
                whole = Request(dataset, variables, levels, month, days, hours_of_day, box)
                found += whole.cut(most)
    return sorted(found, key=lambda one: (one.month, one.dataset, one.variables, one.levels, one.days, one.hours))


def _by_month(hours: np.ndarray) -> list[tuple[str, bytes]]:
    """(month, its part of ascending `hours`)."""
    months, first = np.unique(hours.astype("datetime64[M]"), return_index=True)
    return [(str(month), part.tobytes()) for month, part in zip(months, np.split(hours, first[1:]), strict=True)]


def _blocks(channels: Sequence[Channel]) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
    """(variables, levels) that together hold the channels."""
    levels_of: dict[str, set[int]] = {}
    for channel in channels:
        levels_of.setdefault(channel.variable.short, set()).update([] if channel.level is None else [channel.level])
    together = set().union(*levels_of.values())
    if len(levels_of) * len(together) <= _SPARE * len(channels):
        return [(tuple(sorted(levels_of)), tuple(sorted(together)))]
    found: dict[tuple[int, ...], list[str]] = {}
    for short, levels in levels_of.items():
        found.setdefault(tuple(sorted(levels)), []).append(short)
    return [(tuple(sorted(shorts)), levels) for levels, shorts in found.items()]


def _rectangles(times: np.ndarray, channels: Sequence[Channel]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(days, hours) of a month whose products together hold `times` [time] of that month, and nothing before ERA5."""
    days, hours = _day_and_hour(times)
    month = str(times[0].astype("datetime64[M]"))
    all_days, all_hours = tuple(np.unique(days).tolist()), tuple(np.unique(hours).tolist())
    sums = any(channel.variable.accumulated for channel in channels)
    first = FIRST_SUM if sums else FIRST_DAY.astype("datetime64[s]")
    fits = len(all_days) * len(all_hours) <= _SPARE * len(times)
    if fits and product_of(month, all_days, all_hours)[0] >= first:
        return [(all_days, all_hours)]
    found: dict[tuple[int, ...], list[int]] = {}
    for day in all_days:
        found.setdefault(tuple(hours[days == day].tolist()), []).append(day)
    return [(tuple(some), of_day) for of_day, some in found.items()]


def _day_and_hour(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """([time] day of the month from 1, [time] hour of the day)."""
    days = times.astype("datetime64[D]")
    first = days.astype("datetime64[M]").astype("datetime64[D]")
    return (days - first).astype(int) + 1, (times - days) // _HOUR
