"""Sums of accumulated channels over the window a store wants, made of the sums that files hold.

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

from weatherfm.data_pipeline.fields.time_axis import name_times, spacing
from weatherfm.data_pipeline.formats.choice.tables import Table
from weatherfm.data_pipeline.formats.pieces import Piece
from weatherfm.data_pipeline.formats.sums.sums_from_sums import HeldSums, Terms
from weatherfm.data_pipeline.formats.sums.unsaid_spans import SumRows, settle_hours
from weatherfm.data_pipeline.source_config import FilesSource
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Window:
    """What the values of one accumulated channel are sums over."""

    hours: float
    """In the store."""
    source_hours: float | None
    """In the files; None where their sums span different times, as those since a start do."""
    first: np.datetime64
    """End of the first sum that any file holds."""
    manner: str | None = None
    """`since_midnight` or `since_start`, where the files' sums are of that kind."""
    lag: float = 0.0
    """Hours by which a sum ends after the time it stands at, among means (`sums/labels.py`)."""

    @property
    def whole(self) -> bool:
        """The files hold the very sums that the store wants."""
        return self.hours == self.source_hours

    @property
    def span(self) -> np.timedelta64:
        """Of the sum in the store."""
        return np.timedelta64(round(self.hours * 3600), "s")

    def to_dict(self) -> dict[str, float | str | None]:
        """Provenance; whole hours as integers."""
        spans = {"window_hours": self.hours, "source_hours": self.source_hours}
        spans |= {"ends_hours_after": self.lag} if self.lag else {}
        told: dict[str, float | str | None] = {
            name: int(span) if span is not None and span == int(span) else span for name, span in spans.items()
        }
        return told if self.manner is None else {**told, "source_sums": self.manner}

    def terms(self, table: Table, ends: np.ndarray) -> Terms:
        """Rows of `table` whose sum is the window before each of `ends`."""
        held = HeldSums.of(table.times, table.hours, table.leads, table.chosen)
        first = int(self.first.astype("datetime64[s]").astype(np.int64))
        return held.terms(ends, round(self.hours * 3600), first)

    @property
    def first_day(self) -> np.datetime64:
        """The first whole day (from 00 UTC on) that the files can fill."""
        begin = self.first - np.timedelta64(round((self.source_hours or 0) * 3600), "s")
        return (begin + self.span + np.timedelta64(86399, "s")).astype("datetime64[D]")


def find_window(table: Table, pieces: Sequence[Piece], data: DataConfig, source: FilesSource) -> Window | None:
    """The window of an accumulated channel, None for others; writes the span of each of its fields into `table`.

    The window is `data.accumulation`, else `data.step` where the files' sums are shorter, else theirs.

    Raises:
        InputError: a span that nobody says and that cannot be told safely, or a window that the sums cannot fill.
    """
    if not table.accumulated:
        return None
    rows = SumRows(table.channel, table.times, table.leads, table.hours, table.piece, table.slot)
    table.hours, manner = settle_hours(rows, pieces, source)
    table.keep(table.hours > 0)
    path = pieces[table.piece[0]].path
    spans = np.unique(table.hours)
    own = float(spans[0]) if len(spans) == 1 else None
    wanted = _wanted_hours(table, data, own, path)
    return Window(wanted, own, table.times.min(), manner, pieces[table.piece[0]].lag)


def check_sums(channel: str, window: Window, ends: np.ndarray, terms: Terms, data: DataConfig) -> None:
    """Refuse a channel without any complete sum, and sums of a period that begin before the files do.

    Args:
        channel: its name.
        window: what it is summed over.
        ends: [time] datetime64[s] that the config asks for.
        terms: what each is the sum of.
        data: the settings; with `allow_gaps`, or without a period, early sums are not refused.
    """
    asked = f"{window.hours:g}h"
    if not terms.complete.any():
        raise InputError(_none_complete(channel, window, asked))
    early = ends[terms.early]
    if data.period is not None and len(early) and not data.allow_gaps:
        held = "" if window.source_hours is None else f"{window.source_hours:g}h "
        raise InputError(
            f"the {asked} sums of {channel} at {name_times(early)} begin before the files do (their first {held}sum "
            f"ends {window.first.astype('datetime64[h]')}); add the files before, or start data.period a window "
            f"later ({window.first_day}); without data.period these times are left out"
        )
    if (lacking := ~terms.complete & ~terms.early).any():
        _log.warning("%d %s sums of %s are not complete: %s", lacking.sum(), asked, channel, name_times(ends[lacking]))


def _none_complete(channel: str, window: Window, asked: str) -> str:
    if window.source_hours is None:
        return (
            f"no {asked} sum of {channel} can be made: the files lack some sums of each (those that end where it ends "
            "and where it begins); add the files between, or choose another data.accumulation"
        )
    held = f"{window.source_hours:g}h"
    return (
        f"no {asked} sum of {channel} is complete: it needs {round(window.hours / window.source_hours)} sums over "
        f"{held}, {held} apart, and the files lack some of each; add the files with every {held}, or keep the sums as "
        f"they are with data.accumulation={held}"
    )


def _wanted_hours(table: Table, data: DataConfig, own: float | None, path: str) -> float:
    window, setting = (data.accumulation, "data.accumulation") if data.accumulation else (data.step, "data.step")
    if own is None:
        return _wanted_of_several(table, data, path) if data.accumulation is None else float(data.accumulation)
    if window is None or (setting == "data.step" and window <= own):
        return own
    if window < own:
        raise InputError(
            f"{setting} {window}h is shorter than the {own:g}h that {table.channel} is summed over in {path}; "
            f"set data.accumulation={math.ceil(own)}h or add files with shorter sums"
        )
    if abs(window / own - round(window / own)) > 1e-6:
        raise InputError(
            f"{setting} {window}h is not a multiple of the {own:g}h that {table.channel} is summed over in {path}; "
            f"set data.accumulation to one, e.g. {own * max(1, round(window / own)):g}h"
        )
    return float(window)


def _wanted_of_several(table: Table, data: DataConfig, path: str) -> float:
    """Without `data.accumulation`, of sums over different spans: the step, or the time from one to the next."""
    spans = np.unique(table.hours[table.chosen])
    if data.step is None and len(spans) == 1:
        return float(spans[0])  # of the lead time that was chosen
    apart = spacing(table.times)
    if data.step is None and apart is None:
        told = _some({f"{end - span:g}-{end:g}h" for end, span in zip(table.leads, table.hours, strict=True)})
        raise InputError(
            f"{path}: {table.channel} is summed over different spans ({told}) at a single time; say which is wanted: "
            f"data.accumulation={spans[0]:g}h"
        )
    if data.step is not None and data.step >= spans[0]:
        return float(data.step)
    return float(spans[0]) if apart is None else apart


def _some(names: set[str]) -> str:
    ordered = sorted(names, key=lambda name: [float(number) for number in re.findall(r"[\d.]+", name)])
    return ", ".join(ordered[:6]) + (", ..." if len(ordered) > 6 else "")
