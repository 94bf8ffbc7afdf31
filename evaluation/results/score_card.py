"""The score card: skill against a reference by channel and lead time, as blocks of coloured cells for a page.

A cell whose difference is significant is filled and carries a triangle; one whose difference is not is pale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

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
from weatherfm.evaluation.results.skill_colours import LIMITS, Cell, digits_for, legend, limit_for, shade_of
from weatherfm.evaluation.results.words import (
    in_words,
    metric_in_words,
    name_in_words,
    number,
    percent,
    region_in_words,
)

BETTER, WORSE = "▲", "▼"
_MOST_COLUMNS = 10


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
    scale: tuple[Cell, ...]
    """Legend of its colours."""


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
    scores: xr.Dataset,
    model: str,
    reference: str,
    region: str,
    metric: str = "rmse",
    titles: bool = True,
    limit: float | None = None,
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
        limit: skill in percent at which its colours end; without it, what suits its own numbers.
    """
    hours = lead_hours(scores)
    shown = shown_leads(hours)
    found = skill_with_test(scores, model, reference, metric)
    arrays = (found.value, found.p_value, found.low, found.high)
    picked = [hours.index(lead) for lead in shown]
    here = [array.sel(region=region).isel(lead_time=picked).transpose("channel", "lead_time") for array in arrays]
    tables = [array.values for array in here]
    limit = limit_for(tables[0]) if limit is None else limit
    days = shown[-1] > 144 and all(lead % 24 == 0 for lead in shown)
    columns = tuple(f"{lead // 24} d" if days else f"{lead} h" for lead in shown)
    row_of = {str(name): i for i, name in enumerate(scores["channel"].values)}

    def cells_of(channel: str) -> tuple[Cell, ...]:
        row = row_of[channel]
        what = f"{metric_in_words(metric)} {{}} {in_words(reference)}"
        cells = []
        for i, column in enumerate(columns):
            value, p_value, low, high = (float(table[row, i]) for table in tables)
            sentence = f"{channel} at {column}: {what}" if titles else ""
            cells.append(make_cell(value, p_value, low, high, sentence, limit))
        return tuple(cells)

    blocks = []
    for title, channels in blocks_of(list(row_of)):
        rows = tuple((_row_label(name, channels), cells_of(name)) for name in channels)
        blocks.append(Block(title, columns, rows))
    named = metric_in_words(metric), in_words(reference), region_in_words(region)
    return Card(*named, tuple(blocks), legend(limit))


def skill_limits(scores: xr.Dataset) -> tuple[float, float]:
    """Ends (percent) of the colours of all cards against baselines, and of all against models.

    Models of one family differ by a few per cent where baselines are beaten by half: each has a scale of its own.
    """
    found: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for model in models_of(scores):
        for metric, name in references_of(scores, model):
            found[name in models_of(scores)].append(skill(scores, model, name, metric).values)
    baselines, models = (limit_for(np.stack(values)) if values else LIMITS[-1] for values in found)
    return baselines, models


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


def make_cell(value: float, p_value: float, low: float, high: float, sentence: str, limit: float) -> Cell:
    """A cell of skill in percent.

    Args:
        value: skill.
        p_value: of no difference; NaN where it was not tested.
        low: lower end of the 95 % interval, percent.
        high: its upper end.
        sentence: the title, with `{}` where the amount belongs; or nothing.
        limit: skill at which its colour is deepest.
    """
    digits = digits_for(limit)
    text = percent(value, digits).removesuffix(" %")
    if not isfinite(value):
        return Cell(text, shade_of(value, limit, None), sentence.replace("{} ", "undefined against ", 1))
    sure = p_value < SIGNIFICANT if isfinite(p_value) else None
    mark = "" if not sure else BETTER if value > 0 else WORSE
    amount = f"{abs(value):.1f} % {'below' if value >= 0 else 'above'}"
    title = sentence.replace("{}", amount, 1)
    if title and sure is not None:
        chance = "p < 0.001" if p_value < 1e-3 else f"p = {number(p_value)}"
        ends = f"{percent(low, digits)} to {percent(high, digits)}"
        title += f"; {f'skill {ends} with 95 % confidence' if isfinite(low) else 'no interval'}, {chance}"
    return Cell(mark + text, shade_of(value, limit, sure), title)


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


def mark_legend(scores: xr.Dataset) -> list[tuple[Cell, str]]:
    """(cell, what it means) of the three kinds of cells; none where no difference was tested."""
    if "rmse_p_value" not in scores or not np.isfinite(scores["rmse_p_value"]).any():
        return []
    example: Sequence[tuple[float, float, str]] = (
        (25, 0, "better, significantly"),
        (-25, 0, "worse, significantly"),
        (25, 1, "not significant"),
    )
    return [(make_cell(value, p_value, 0, 0, "", LIMITS[4]), words) for value, p_value, words in example]


def _title(channel: str) -> str:
    words = name_in_words(channel).rsplit(" at ", 1)[0]
    return f"{words[0].upper()}{words[1:]} ({parse_channel(channel).variable.short})"


def _row_label(channel: str, block: list[str]) -> str:
    """The level in a block of one variable, else the channel."""
    variables = {parse_channel(name).variable.short for name in block}
    return f"{parse_channel(channel).level} hPa" if len(variables) == 1 < len(block) else channel
