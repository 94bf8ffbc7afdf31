"""Maps of an ensemble: the members' mean and spread, the members side by side, and the chance of an event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.evaluation.figures.maps.case import EnsembleCase, load_ensemble_case
from weatherfm.evaluation.figures.maps.panels import Levels, levels_of, panel_figure, title_of
from weatherfm.evaluation.figures.maps.sheet import Look, Sheet
from weatherfm.evaluation.figures.maps.units_and_colours import display_of, quantity_in_words, round_values
from weatherfm.evaluation.figures.pictures import Picture, png_picture, style
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.metrics.events import Event
from weatherfm.evaluation.results.words import pretty_units

_MOST_STAMPS = 16
"""Small maps of one sheet, the truth among them."""
_COLUMNS = 4
_CHANCES = np.array([5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100.0])
"""Per cent; what is less likely stays white."""
_DPI, _STAMPS_DPI = 110, 95


@dataclass(frozen=True)
class MemberMaps:
    """What the page shows of one forecast of an ensemble."""

    title: str
    panels: tuple[tuple[Picture, ...], ...]
    """Mean, spread and truth; then of each event its chance, and where it happened."""
    stamps: Picture


def member_maps(
    file: ForecastFile,
    store: Store,
    channel: str,
    lead_time: int,
    init_time: np.datetime64,
    events: Sequence[Event] = (),
    levels: Levels | None = None,
) -> MemberMaps:
    """The maps of one initial and lead time (hours).

    Args:
        file: an ensemble.
        store: the truth.
        channel: short name.
        lead_time: hours.
        init_time: of the file.
        events: each of any channel of the forecast.
        levels: of mean, truth and members; without it, those that suit them.

    Raises:
        InputError: as of `load_ensemble_case`.
    """
    case = load_ensemble_case(file, store, channel, lead_time, init_time)
    title = title_of(case.mean)
    mean, truth = panel_figure(case.mean, "forecast", levels), panel_figure(case.mean, "truth", levels)
    panels: list[tuple[Picture, ...]] = [
        (
            png_picture(mean, f"Map of the members' mean, {title}", _DPI),
            png_picture(spread_figure(case), f"Map of the members' spread, {title}", _DPI),
            png_picture(truth, f"Map of the truth, {title}", _DPI),
        )
    ]
    for event in events:
        own = case if event.channel == channel else load_ensemble_case(file, store, event.channel, lead_time, init_time)
        text = f"{event}, {title_of(own.mean)}"
        chance, happened = chance_figure(own, event), occurrence_figure(own, event)
        panels.append(
            (
                png_picture(chance, f"Map of the chance of {text}", _DPI),
                png_picture(happened, f"Map of where it happened: {text}", _DPI),
            )
        )
    stamps = png_picture(stamps_figure(case, levels), f"Maps of the members, {title}", _STAMPS_DPI)
    return MemberMaps(title, tuple(panels), stamps)


def spread_figure(case: EnsembleCase) -> Figure:
    """Standard deviation of the members, from zero."""
    display = display_of(case.mean.channel)
    spread = abs(display.scale) * case.spread
    largest = float(np.nanpercentile(spread, 99)) if np.isfinite(spread).any() else 0.0
    levels = round_values(0, largest if largest > 0 else 1.0, 10)
    with style():
        sheet = Sheet(case.mean, columns=1, map_width=3.7)
        drawn = sheet.draw(0, spread, Look(levels, "YlGnBu"), f"Spread of {len(case.members)} members")
        label = f"spread of {quantity_in_words(case.mean.channel)} [{display.error_units}]"
        sheet.colour_bar(drawn, label, 0, 0, levels[:: 1 if len(levels) <= 9 else 2])
    return sheet.figure


def stamps_figure(case: EnsembleCase, levels: Levels | None = None) -> Figure:
    """The truth and up to fifteen members, small, with one scale of colours."""
    display, count = display_of(case.mean.channel), len(case.members)
    shown = case.members[: _MOST_STAMPS - 1]
    look = Look((levels or levels_of([case.mean])).field, display.colours, display.contours)
    with style():
        sheet = Sheet(case.mean, _COLUMNS, -(-(len(shown) + 1) // _COLUMNS), map_width=1.8, labels=False)
        drawn = sheet.draw(0, display.field(case.mean.truth), look, "Truth", 8.5)
        sheet.figure.axes[0].spines["geo"].set(edgecolor="black", linewidth=2)
        for i, member in enumerate(shown, start=1):
            sheet.draw(i, display.field(member), look, f"Member {i}" if i > 1 else f"Member 1 of {count}", 8.5)
        label = f"{quantity_in_words(case.mean.channel)} [{display.units}]"
        sheet.colour_bar(drawn, label, 0, _COLUMNS - 1, look.levels[:: 1 if len(look.levels) <= 9 else 2])
    return sheet.figure


def chance_figure(case: EnsembleCase, event: Event) -> Figure:
    """Share of members in which the event happens, in per cent; a line around where it happened."""
    happens = np.where(np.isfinite(case.members), event.happens(case.members), np.nan)
    with style():
        sheet = Sheet(case.mean, columns=1, map_width=3.7)
        look = Look(_CHANCES, "YlOrRd", beyond=False)
        drawn = sheet.draw(0, 100 * happens.mean(0), look, f"Chance of {_in_words(event)}")
        _around_what_happened(sheet, case, event)
        sheet.colour_bar(drawn, f"share of {len(case.members)} members [%]; line: it happened", 0, 0, _CHANCES[2::2])
    return sheet.figure


def occurrence_figure(case: EnsembleCase, event: Event) -> Figure:
    """Where the event happened, coloured; how much of the area that is stands below."""
    display, truth = display_of(event.channel), case.mean.truth
    shown, threshold = display.field(truth), float(display.field(np.array(event.threshold)))
    ends = (threshold, np.nanmax(shown)) if event.operator == ">" else (np.nanmin(shown), threshold)
    margin = 1e-6 * max(1.0, abs(threshold))
    levels = np.array([ends[0], max(ends[1], ends[0] + margin)])
    share = case.mean.grid.area_weights * np.isfinite(truth)
    amount = float((share * event.happens(truth)).sum() / share.sum())
    with style():
        sheet = Sheet(case.mean, columns=1, map_width=3.7)
        title = "It happened" + (" (simulated)" if case.mean.simulated else "")
        drawn = sheet.draw(0, shown, Look(levels, "YlOrRd_r", beyond=False), title)
        _around_what_happened(sheet, case, event)
        sheet.colour_bar(drawn, f"where {_in_words(event)}: {100 * amount:.0f} % of the area", 0, 0, np.array([]))
    return sheet.figure


def _around_what_happened(sheet: Sheet, case: EnsembleCase, event: Event) -> None:
    if 0 < np.count_nonzero(event.happens(case.mean.truth)) < case.mean.truth.size:
        sheet.outline(0, case.mean.truth, event.threshold, "black")


def _in_words(event: Event) -> str:
    """The event in the units shown: `t850 > 10 °C`."""
    display = display_of(event.channel)
    threshold = float(display.field(np.array(event.threshold)))
    return f"{event.channel} {event.operator} {threshold:.4g} {pretty_units(display.units)}"
