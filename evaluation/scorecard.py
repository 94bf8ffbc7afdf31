"""The score card: skill against a baseline by channel and lead time, as blocks of coloured cells for a page."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import matplotlib
import numpy as np
import xarray as xr

from weatherfm.evaluation.display import name_in_words
from weatherfm.evaluation.key_figures import percent, region_in_words, skill
from weatherfm.evaluation.scores import lead_hours
from weatherfm.variables import parse_channel

COLOURS = "BrBG"
"""Diverging, white in the middle, told apart with any kind of colour vision: brown is worse, green better."""
LIMIT = 60.0
"""Skill in percent at which the colour is deepest."""
_MOST_COLUMNS = 10


@dataclass(frozen=True)
class Cell:
    """One number on its colour."""

    text: str
    background: str
    ink: str
    title: str
    """What the number is, in words."""


@dataclass(frozen=True)
class Block:
    """Channels of one variable by level, or single fields: rows of cells, a column a lead time."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    """(label, cells)."""


@dataclass(frozen=True)
class Card:
    """Skill against one baseline in one region."""

    baseline: str
    region: str
    blocks: tuple[Block, ...]


def score_card(scores: xr.Dataset, model: str, baseline: str, region: str) -> Card:
    """The card of a model against a baseline.

    Variables with several levels have a block each, highest level first; all other channels share one.
    With more than ten lead times whole days are shown, then every so many, so that a card has at most ten columns.
    """
    values = skill(scores, model, baseline).sel(region=region)
    hours = lead_hours(scores)
    shown = shown_leads(hours)
    table = values.isel(lead_time=[hours.index(lead) for lead in shown]).transpose("channel", "lead_time").values
    row_of = dict(zip(map(str, scores["channel"].values), table, strict=True))
    days = shown[-1] > 144 and all(lead % 24 == 0 for lead in shown)
    columns = tuple(f"{lead // 24} d" if days else f"{lead} h" for lead in shown)

    def cells_of(channel: str) -> tuple[Cell, ...]:
        pairs = zip(row_of[channel], columns, strict=True)
        return tuple(_cell(value, channel, lead, baseline) for value, lead in pairs)

    blocks = []
    for title, channels in blocks_of(list(row_of)):
        rows = tuple((_row_label(name, channels), cells_of(name)) for name in channels)
        blocks.append(Block(title, columns, rows))
    return Card(baseline, region_in_words(region), tuple(blocks))


def shown_leads(hours: list[int]) -> list[int]:
    """At most ten of the lead times: whole days if there are too many, then every so many of them."""
    if len(hours) > _MOST_COLUMNS:
        hours = [lead for lead in hours if lead % 24 == 0] or hours
    return hours[:: -(-len(hours) // _MOST_COLUMNS)]


def blocks_of(channels: list[str]) -> list[tuple[str, list[str]]]:
    """(title, channels): variables with several levels each, by falling height; then the single fields together."""
    by_variable: dict[str, list[str]] = {}
    for name in channels:
        by_variable.setdefault(parse_channel(name).variable.era5, []).append(name)
    several = {variable: names for variable, names in by_variable.items() if len(names) > 1}
    single = [name for names in by_variable.values() if len(names) == 1 for name in names]
    blocks = [
        (_title(names[0]), sorted(names, key=lambda name: parse_channel(name).level or 0)) for names in several.values()
    ]
    title = "Single fields" if blocks else "Channels"
    return ([(title, single)] if single else []) + blocks


def colour_of(value: float) -> tuple[str, str]:
    """Background and ink of a skill in percent; grey where there is none."""
    if not isfinite(value):
        return "#eceff1", "#546069"
    place = 0.5 + 0.42 * float(np.clip(value / LIMIT, -1, 1))  # the outermost colours are too dark for numbers
    red, green, blue, _ = matplotlib.colormaps[COLOURS](place)
    light = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    return matplotlib.colors.to_hex((red, green, blue)), "#10181f" if light > 0.22 else "#ffffff"


def legend() -> list[Cell]:
    """Colours from worst to best with their numbers."""
    cells = []
    for value in (-60, -40, -20, 0, 20, 40, 60):
        text = {-60: "≤ −60 %", 60: "≥ 60 %"}.get(value, percent(value))
        cells.append(Cell(text, *colour_of(value), title=""))
    return cells


def _title(channel: str) -> str:
    words = name_in_words(channel).rsplit(" at ", 1)[0]
    return f"{words[0].upper()}{words[1:]} ({parse_channel(channel).variable.short})"


def _row_label(channel: str, block: list[str]) -> str:
    """The level in a block of one variable, else the channel."""
    variables = {parse_channel(name).variable.short for name in block}
    return f"{parse_channel(channel).level} hPa" if len(variables) == 1 < len(block) else channel


def _cell(value: float, channel: str, lead: str, baseline: str) -> Cell:
    side = "below" if value >= 0 else "above"
    amount = f"{abs(value):.1f} % {side} {baseline}" if isfinite(value) else f"undefined, {baseline} has no error"
    text = percent(value).removesuffix(" %") if isfinite(value) else "–"
    return Cell(text, *colour_of(value), title=f"{channel} at {lead}: RMSE {amount}")
