"""A strip that shows which times a store covers, what they are for, and where something is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.dates as dates
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from weatherfm.evaluation.figures.pictures import GREY, INK, style

_COLOURS = {
    "data": "#56B4E9",
    "train": "#0072B2",
    "validation": "#E69F00",
    "test": "#009E73",
    "missing": "#000000",
    "preliminary": "#CC79A7",
    "error": "#D55E00",
}
"""Of Okabe and Ito (2008), told apart by those who do not see all colours; rows carry their names as well."""
_HEIGHT = 0.62
_LEAST_WIDTH = 1 / 500
"""Of the strip: what a single missing step is drawn at least, so that it is seen."""

Bar = tuple[float, float]
"""(start, width) in days."""


def coverage_figure(coverage: Mapping[str, Any], problems: Sequence[Mapping[str, Any]]) -> Figure:
    """Rows: the times there, the periods, missing steps, preliminary ones, errors; of the last three those with any.

    Args:
        coverage: `VerifyReport.coverage`.
        problems: as in the JSON of `weatherfm verify`.
    """
    step = coverage["step_hours"] / 24
    start, end = _day(coverage["start"]), _day(coverage["end"]) + step
    missing = _bars(coverage["missing"], step)
    rows: list[tuple[str, list[Bar], str]] = [("data", _holes_left(start, end, missing), _COLOURS["data"])]
    for name, period in coverage["periods"].items():
        rows.append((name, _inside(period, start, end), _COLOURS[name]))
    wrong = [run for problem in problems if problem["severity"] == "error" for run in problem["times"]]
    extra = {"missing": missing, "preliminary": _bars(coverage["preliminary"], step), "error": _bars(wrong, step)}
    rows += [(name, bars, _COLOURS[name]) for name, bars in extra.items() if bars]
    with style():
        figure = Figure(figsize=(9.2, 0.75 + 0.27 * len(rows)), layout="constrained")
        _draw(figure.add_subplot(), rows, (start, end))
    return figure


def _inside(period: str, start: float, end: float) -> list[Bar]:
    """Of each piece of a period, `first day/last day`, with commas between them, what lies in the record."""
    days = [[_day(text) for text in piece.split("/")] for piece in period.split(", ")]
    spans = [(max(first, start), min(last + 1, end)) for first, last in days]
    return [(low, high - low) for low, high in spans if high > low]


def _draw(axes: Axes, rows: Sequence[tuple[str, list[Bar], str]], span: tuple[float, float]) -> None:
    least = _LEAST_WIDTH * (span[1] - span[0])
    for i, (_, bars, colour) in enumerate(rows):
        wide = [(begin, max(width, least)) for begin, width in bars]
        axes.broken_barh(wide, (i - _HEIGHT / 2, _HEIGHT), facecolors=colour)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(*span)
    axes.xaxis_date()
    locator = dates.AutoDateLocator(maxticks=10)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_color(GREY)


def _holes_left(start: float, end: float, holes: Iterable[Bar]) -> list[Bar]:
    """What of start..end the holes (ascending) leave."""
    left, at = [], start
    for begin, width in holes:
        left.append((at, begin - at))
        at = begin + width
    return [(begin, width) for begin, width in [*left, (at, end - at)] if width > 0]


def _bars(runs: Iterable[Mapping[str, Any]], step: float) -> list[Bar]:
    return [(_day(run["start"]), _day(run["end"]) - _day(run["start"]) + step) for run in runs]


def _day(text: str) -> float:
    """Matplotlib's day number of an ISO date and time."""
    return float(dates.date2num(np.datetime64(text)))
