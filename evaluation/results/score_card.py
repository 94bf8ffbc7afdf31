"""The score card: skill against a reference by channel and lead time, as blocks of coloured cells for a page.

A cell whose difference is significant is filled and carries a triangle; one whose difference is not is pale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import matplotlib
import numpy as np
import xarray as xr

from weatherfm.earth.variables import parse_channel
from weatherfm.evaluation.results.key_figures import SIGNIFICANT, skill
from weatherfm.evaluation.results.lookup import (
    baselines_of,
    ensembles_of,
    lead_hours,
    models_of,
    probabilistic_baselines_of,
)
from weatherfm.evaluation.results.words import (
    in_words,
    metric_in_words,
    name_in_words,
    number,
    percent,
    region_in_words,
)

COLOURS = "BrBG"
"""Diverging, white in the middle, told apart with any kind of colour vision: brown is worse, green better."""
LIMIT = 60.0
"""Skill in percent at which the colour is deepest."""
BETTER, WORSE = "▲", "▼"
_STEPS = 12
"""Shades on either side of the middle."""
_PALE = 0.78
"""Share of white in the colour of what is not significant."""
_MOST_COLUMNS = 10


@dataclass(frozen=True)
class Cell:
    """One number on its colour."""

    text: str
    shade: str
    """Class of the page's styles, see `shade_styles`."""
    title: str
    """What the number is, in words; empty where a page has too many."""


@dataclass(frozen=True)
class Block:
    """Channels of one variable by level, or single fields: rows of cells, a column a lead time."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    """(label, cells)."""


@dataclass(frozen=True)
class Card:
    """Skill against one reference in one region."""

    metric: str
    """Shown name: `RMSE`."""
    reference: str
    region: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, eq=False)
class Skill:
    """Skill in percent of a model against a reference, dims (region, lead_time, channel), and how sure it is.

    NaN where it was not tested.
    """

    value: xr.DataArray
    p_value: xr.DataArray
    low: xr.DataArray
    """Ends of the 95 % interval, percent."""
    high: xr.DataArray


def score_card(
    scores: xr.Dataset, model: str, reference: str, region: str, metric: str = "rmse", titles: bool = True
) -> Card:
    """The card of a model against a baseline or another model.

    Variables with several levels have a block each, highest level first; all other channels share one.
    With more than ten lead times whole days are shown, then every so many, so that a card has at most ten columns.

    Args:
        scores: as `evaluate` gives them.
        model: whose card it is.
        reference: the forecast it is held against.
        region: one of those scored.
        metric: `rmse` or `crps_fair`.
        titles: whether cells say in words what they are, with their interval.
    """
    hours = lead_hours(scores)
    shown = shown_leads(hours)
    found = skill_with_test(scores, model, reference, metric)
    arrays = (found.value, found.p_value, found.low, found.high)
    picked = [hours.index(lead) for lead in shown]
    here = [array.sel(region=region).isel(lead_time=picked).transpose("channel", "lead_time") for array in arrays]
    tables = [array.values for array in here]
    days = shown[-1] > 144 and all(lead % 24 == 0 for lead in shown)
    columns = tuple(f"{lead // 24} d" if days else f"{lead} h" for lead in shown)
    row_of = {str(name): i for i, name in enumerate(scores["channel"].values)}

    def cells_of(channel: str) -> tuple[Cell, ...]:
        row = row_of[channel]
        what = f"{metric_in_words(metric)} {{}} {in_words(reference)}"
        cells = []
        for i, column in enumerate(columns):
            value, p_value, low, high = (float(table[row, i]) for table in tables)
            cells.append(make_cell(value, p_value, low, high, f"{channel} at {column}: {what}" if titles else ""))
        return tuple(cells)

    blocks = []
    for title, channels in blocks_of(list(row_of)):
        rows = tuple((_row_label(name, channels), cells_of(name)) for name in channels)
        blocks.append(Block(title, columns, rows))
    return Card(metric_in_words(metric), in_words(reference), region_in_words(region), tuple(blocks))


def references_of(scores: xr.Dataset, model: str) -> list[tuple[str, str]]:
    """(metric, reference) of a model's cards.

    First, of an ensemble, the fair CRPS against baselines and earlier models that have a probability: it is fair to
    ensembles of other sizes. Then RMSE against the single-valued baselines and every model before it.
    """
    earlier = models_of(scores)[: models_of(scores).index(model)]
    pairs = [("rmse", name) for name in (*own_baselines(scores, model), *earlier)]
    if model in ensembles_of(scores):
        others = [name for name in earlier if name in ensembles_of(scores)]
        names = (*own_baselines(scores, model, ensembles=True), *others)
        pairs = [*(("crps_fair", name) for name in names), *pairs]
    return pairs


def own_baselines(scores: xr.Dataset, model: str, ensembles: bool = False) -> list[str]:
    """Baselines on the model's own cases: all, but in scores merged by force those its file has tested it against."""
    baselines = probabilistic_baselines_of(scores) if ensembles else baselines_of(scores)
    name = "crps_fair_p_value" if ensembles else "rmse_p_value"
    if "differences" not in scores.attrs or name not in scores:
        return baselines
    p_values = scores[name].sel(forecast=model)
    tested = [baseline for baseline in baselines if np.isfinite(p_values.sel(reference=baseline)).any()]
    return tested or baselines


def skill_with_test(scores: xr.Dataset, model: str, reference: str, metric: str = "rmse") -> Skill:
    """Skill with its p-value and interval, NaN where the scores hold none."""
    value = skill(scores, model, reference, metric)
    names = [f"{metric}_{what}" for what in ("p_value", "skill_low", "skill_high")]
    if not all(name in scores for name in names):
        nothing = xr.full_like(value, np.nan)
        return Skill(value, nothing, nothing, nothing)
    p_value, low, high = (
        scores[name].sel(forecast=model, reference=reference, drop=True).transpose(*value.dims) for name in names
    )
    return Skill(value, p_value, 100 * low, 100 * high)


def make_cell(value: float, p_value: float, low: float, high: float, sentence: str) -> Cell:
    """A cell of skill in percent.

    Args:
        value: skill.
        p_value: of no difference; NaN where it was not tested.
        low: lower end of the 95 % interval, percent.
        high: its upper end.
        sentence: the title, with `{}` where the amount belongs; or nothing.
    """
    text = percent(value).removesuffix(" %")
    if not isfinite(value):
        return Cell(text, shade_of(value, None), sentence.replace("{} ", "undefined against ", 1))
    sure = p_value < SIGNIFICANT if isfinite(p_value) else None
    mark = "" if not sure else BETTER if value > 0 else WORSE
    amount = f"{abs(value):.1f} % {'below' if value >= 0 else 'above'}"
    title = sentence.replace("{}", amount, 1)
    if title and sure is not None:
        chance = "p < 0.001" if p_value < 1e-3 else f"p = {number(p_value)}"
        span = f"skill {percent(low)} to {percent(high)} with 95 % confidence" if isfinite(low) else "no interval"
        title += f"; {span}, {chance}"
    return Cell(mark + text, shade_of(value, sure), title)


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


def colour_of(value: float, sure: bool | None = None) -> tuple[str, str]:
    """Background and ink of a skill in percent; grey where there is none, pale where it is known not to be sure."""
    if not isfinite(value):
        return "#eceff1", "#546069"
    place = 0.5 + 0.42 * float(np.clip(value / LIMIT, -1, 1))  # the outermost colours are too dark for numbers
    red, green, blue, _ = matplotlib.colormaps[COLOURS](place)
    if sure is False:
        red, green, blue = (_PALE + (1 - _PALE) * part for part in (red, green, blue))
        return matplotlib.colors.to_hex((red, green, blue)), "#4f5b65"
    light = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    return matplotlib.colors.to_hex((red, green, blue)), "#10181f" if light > 0.22 else "#ffffff"


def shade_of(value: float, sure: bool | None) -> str:
    """The class of a cell: `s0` (worst) to `s24`, `p` instead of `s` where pale, `n` where there is no number."""
    if not isfinite(value):
        return "n"
    return f"{'p' if sure is False else 's'}{_STEPS + round(float(np.clip(value / LIMIT, -1, 1)) * _STEPS)}"


def shade_styles() -> list[tuple[str, str, str]]:
    """(class, background, ink) of every class that `shade_of` gives."""
    values = [LIMIT * step / _STEPS for step in range(-_STEPS, _STEPS + 1)]
    pairs = [(value, sure) for sure in (None, False) for value in values] + [(float("nan"), None)]
    return [(shade_of(value, sure), *colour_of(value, sure)) for value, sure in pairs]


def legend() -> list[Cell]:
    """Colours from worst to best with their numbers."""
    cells = []
    for value in (-60, -40, -20, 0, 20, 40, 60):
        text = {-60: "≤ −60 %", 60: "≥ 60 %"}.get(value, percent(value))
        cells.append(Cell(text, shade_of(value, None), title=""))
    return cells


def mark_legend(scores: xr.Dataset) -> list[tuple[Cell, str]]:
    """(cell, what it means) of the three kinds of cells; none where no difference was tested."""
    if "rmse_p_value" not in scores or not np.isfinite(scores["rmse_p_value"]).any():
        return []
    example: Sequence[tuple[float, float, str]] = (
        (25, 0, "better, significantly"),
        (-25, 0, "worse, significantly"),
        (25, 1, "not significant"),
    )
    return [(make_cell(value, p_value, 0, 0, ""), words) for value, p_value, words in example]


def _title(channel: str) -> str:
    words = name_in_words(channel).rsplit(" at ", 1)[0]
    return f"{words[0].upper()}{words[1:]} ({parse_channel(channel).variable.short})"


def _row_label(channel: str, block: list[str]) -> str:
    """The level in a block of one variable, else the channel."""
    variables = {parse_channel(name).variable.short for name in block}
    return f"{parse_channel(channel).level} hPa" if len(variables) == 1 < len(block) else channel
