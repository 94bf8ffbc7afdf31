"""Sums of accumulated channels over the window a store wants, made of the shorter sums that files hold.

As in ERA5, a sum is labelled with its end: 06 UTC over 6 h is the sum of the hourly fields labelled 01 to 06 UTC.
Packing may leave precipitation slightly below zero; such values are summed as they are.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weatherfm.data_pipeline.config import DataConfig
from weatherfm.data_pipeline.formats.pieces import Piece, Slots
from weatherfm.data_pipeline.time_axis import name_times
from weatherfm.errors import InputError
from weatherfm.variables import parse_channel

_log = logging.getLogger(__name__)
_SPARSE = 1000  # more than any rank of a name


@dataclass(frozen=True)
class Window:
    """What the values of one accumulated channel are sums over."""

    hours: float | None
    """In the store; None where a single time does not tell."""
    source_hours: float | None
    """In the files."""
    first: np.datetime64
    """End of the first sum that any file holds."""

    @property
    def terms(self) -> int:
        """Fields of the files in one of the store."""
        return 1 if self.hours is None or self.source_hours is None else round(self.hours / self.source_hours)

    @property
    def span(self) -> np.timedelta64:
        """Of the sum in the store; zero where unknown."""
        return _seconds(self.hours or 0)

    def to_dict(self) -> dict[str, float | None]:
        """Provenance; whole hours as integers."""
        spans = {"window_hours": self.hours, "source_hours": self.source_hours}
        return {name: int(span) if span is not None and span == int(span) else span for name, span in spans.items()}

    def rows(self, times: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """([end, term] position in ascending `times` of each part of each sum, [end] bool: none is missing)."""
        back = np.arange(self.terms - 1, -1, -1) * _seconds(self.source_hours or 0)
        wanted = ends[:, None] - back  # [end, term]
        rows = np.minimum(np.searchsorted(times, wanted), len(times) - 1)
        return rows, (times[rows] == wanted).all(axis=1)

    def begins_early(self, ends: np.ndarray) -> np.ndarray:
        """[end] bool: sums that begin before the first one in the files."""
        early: np.ndarray = ends < self._first_end
        return early

    @property
    def first_day(self) -> np.datetime64:
        """The first whole day (from 00 UTC on) that the files can fill."""
        return (self._first_end + np.timedelta64(86399, "s")).astype("datetime64[D]")

    @property
    def _first_end(self) -> np.datetime64:
        """Of the first sum that does not begin before the files do."""
        return self.first + (self.terms - 1) * _seconds(self.source_hours or 0)


def told_hours(piece: Piece) -> np.ndarray:
    """[slot] hours that each field of an accumulated channel is summed over; NaN where the file does not say."""
    if piece.slots.accumulated is not None:
        return piece.slots.accumulated
    return np.full(len(piece.slots.times), _hours_in(piece.name))


def rank_of_sum(name: str, rank: int, slots: Slots) -> int:
    """Rank of an accumulated field's name: one that tells its span comes before one whose times lie further apart.

    WeatherBench2 keeps hourly `toa_incident_solar_radiation` every 6 h, beside `toa_incident_solar_radiation_6hr`:
    the spacing of the former would mislead.
    """
    spacing = _spacing(slots.times)
    sparse = np.isnan(_hours_in(name)) and spacing is not None and spacing > 1
    return rank + _SPARSE if sparse else rank


def find_window(
    channel: str, data: DataConfig, times: np.ndarray, leads: np.ndarray, hours: np.ndarray, paths: Sequence[str]
) -> Window | None:
    """The window of a channel whose files hold sums over `hours` [row] that end at `times` [row]; None for others.

    A file that does not tell the span of its sums is taken to have one after the other, as ERA5: the span is the
    most common spacing of its times. The window is `data.accumulation`, else `data.step` where the files' sums are
    shorter, else theirs.

    Raises:
        InputError: sums over several spans, or a window that they cannot fill.
    """
    if not parse_channel(channel).variable.accumulated:
        return None
    own = _own_hours(channel, times, leads, hours, paths)
    if own is not None and len(set(leads[np.isnan(hours) & ~np.isnan(leads)].tolist())) > 1:
        _log.warning(
            "%s: %s has several lead times and does not say what it is summed over; taken as sums over %gh one after "
            "the other, as in ERA5, not since the start of the forecast", paths[0], channel, own,
        )  # fmt: skip
    return Window(_wanted_hours(channel, data, own, paths[0]), own, times.min())


def check_sums(channel: str, window: Window, ends: np.ndarray, complete: np.ndarray, data: DataConfig) -> None:
    """Refuse a channel without any complete sum, and sums of a period that begin before the files do.

    Args:
        channel: its name.
        window: what it is summed over.
        ends: [time] datetime64[s] that the config asks for.
        complete: [time] bool: all terms are there.
        data: the settings; with `allow_gaps`, or without a period, early sums are not refused.
    """
    asked, held = f"{window.hours:g}h", f"{window.source_hours:g}h"
    if not complete.any():
        raise InputError(
            f"no {asked} sum of {channel} is complete: it needs {window.terms} sums over {held}, {held} apart, and the "
            f"files lack some of each; add the files with every {held}, or keep the sums as they are with "
            f"data.accumulation={held}"
        )
    early = ends[window.begins_early(ends)]
    if data.period is not None and len(early) and not data.allow_gaps:
        raise InputError(
            f"the {asked} sums of {channel} at {name_times(early)} begin before the files do (their first {held} sum "
            f"ends {window.first.astype('datetime64[h]')}); add the files before, or start data.period a window "
            f"later ({window.first_day}); without data.period these times are left out"
        )
    if lacking := int((~complete).sum()) - len(early):
        holes = ends[~complete & ~np.isin(ends, early)]
        _log.warning("%d %s sums of %s are not complete: %s", lacking, asked, channel, name_times(holes))


def _own_hours(
    channel: str, times: np.ndarray, leads: np.ndarray, hours: np.ndarray, paths: Sequence[str]
) -> float | None:
    spans = set(hours[~np.isnan(hours)].tolist())
    if (spacing := _spacing(times[np.isnan(hours)])) is not None:
        spans.add(spacing)
    if len(spans) <= 1:
        return spans.pop() if spans else None
    ranges = {f"{lead - span:g}-{lead:g}h" for lead, span in zip(leads, hours, strict=True) if lead >= span}
    told = f"steps {_some(ranges)}" if ranges else _some({f"{span:g}h" for span in spans})
    lead = f"{max(set(leads[~np.isnan(leads)].tolist()), default=6):g}h"
    raise InputError(
        f"{paths[0]}{' and others' if len(paths) > 1 else ''}: {channel} is summed over different spans ({told}), "
        f"as since the start of a forecast; choose one with source.lead_time={lead}, or leave the others out "
        "(source.exclude)"
    )


def _wanted_hours(channel: str, data: DataConfig, own: float | None, path: str) -> float | None:
    if own is None:
        if data.accumulation is not None:
            raise InputError(
                f"{path}: {channel} has a single time and does not say what it is summed over, so no sum over "
                f"{data.accumulation}h can be made; add files or leave data.accumulation out"
            )
        return None
    if data.accumulation is None:
        if data.step is None or data.step <= own:
            return own
        window, setting = data.step, f"data.step {data.step}h"
    else:
        window, setting = data.accumulation, f"data.accumulation {data.accumulation}h"
    if window < own:
        raise InputError(
            f"{setting} is shorter than the {own:g}h that {channel} is summed over in {path}; "
            f"set data.accumulation={math.ceil(own)}h or add files with shorter sums"
        )
    if abs(window / own - round(window / own)) > 1e-6:
        raise InputError(
            f"{setting} is not a multiple of the {own:g}h that {channel} is summed over in {path}; "
            f"set data.accumulation to one, e.g. {own * max(1, round(window / own)):g}h"
        )
    return float(window)


def _hours_in(name: str) -> float:
    """Span that a name such as `total_precipitation_6hr` or earth2studio's `tp06` tells; NaN for others."""
    told = re.search(r"_?(\d+)h(r|rs|ours?)?$|^[a-z]+(\d\d)$", name.lower())
    return float(told[1] or told[3]) if told else float("nan")


def _spacing(times: np.ndarray) -> float | None:
    """Most common hours between neighbours; None for a single time."""
    steps, counts = np.unique(np.diff(np.unique(times)), return_counts=True)
    return float(steps[np.argmax(counts)] / np.timedelta64(3600, "s")) if len(steps) else None


def _seconds(hours: float) -> np.timedelta64:
    return np.timedelta64(round(hours * 3600), "s")


def _some(names: set[str]) -> str:
    ordered = sorted(names, key=lambda name: [float(number) for number in re.findall(r"[\d.]+", name)])
    return ", ".join(ordered[:6]) + (", ..." if len(ordered) > 6 else "")
