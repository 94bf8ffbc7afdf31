"""Skill by region and by time of the year, for the channels shown first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
import xarray as xr

from weatherfm.evaluation.results.case_counts import cases_of, distinct_periods, with_count
from weatherfm.evaluation.results.key_figures import headline_lead, key_leads, skill
from weatherfm.evaluation.results.lookup import lead_hours, main_region, models_of, overall
from weatherfm.evaluation.results.score_card import make_cell, own_baselines, skill_with_test
from weatherfm.evaluation.results.skill_colours import Cell, legend, limit_for
from weatherfm.evaluation.results.words import in_words, number, pretty_units, region_in_words
from weatherfm.evaluation.scoring.periods import ALL


@dataclass(frozen=True)
class GroupTable:
    """Skill against the hardest baseline: a row a region or a period, a column a channel and lead time."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    """(label, cells)."""
    scale: tuple[Cell, ...]
    """Legend of its colours."""


def limit_of_tables(scores: xr.Dataset) -> float:
    """Skill in percent at which the colours of all these tables end: what suits skill against the hardest baselines."""
    least = [
        np.fmin.reduce([skill(scores, model, name).values for name in own_baselines(scores, model)])
        for model in models_of(scores)
    ]
    return limit_for(np.stack(least))


def region_table(scores: xr.Dataset, model: str, channels: Sequence[str], limit: float) -> GroupTable:
    """By region, over all cases; differences are marked where they were tested; `limit` as of `score_card`."""
    baselines = own_baselines(scores, model)
    here = overall(scores)
    tested = {name: skill_with_test(scores, model, name) for name in baselines}
    count = [scores.sizes["init_time"]]

    def cell(region: str, channel: str, lead: int, at: int) -> Cell:
        place = {"region": region, "channel": channel}
        errors = here["rmse"].sel(place).isel(lead_time=at)
        hardest = _hardest(errors, baselines)
        found = tested[hardest]
        arrays = (found.value, found.p_value, found.low, found.high)
        where = with_count(f"{channel} at {lead} h in {region_in_words(region)}", scores, count)
        sentence = f"{where}: RMSE {_error(errors, model)}, {{}} {in_words(hardest)}"
        value, p_value, low, high = (float(array.sel(place).isel(lead_time=at)) for array in arrays)
        return make_cell(value, p_value, low, high, sentence, limit)

    regions = [(str(name), region_in_words(str(name))) for name in scores["region"].values]
    return _table(scores, with_count("By region", scores, count), regions, channels, cell, limit)


def period_table(scores: xr.Dataset, model: str, channels: Sequence[str], limit: float) -> GroupTable | None:
    """By season or month of the valid time in the main region, with the number of cases.

    Periods of the same cases are one row. None where there is but one.
    """
    leads = [lead for lead, _ in _leads(scores)]
    periods = distinct_periods(scores, leads)
    if len(periods) < 2:
        return None
    here = scores.sel(region=main_region(scores))
    baselines = own_baselines(scores, model)
    nothing = float("nan")

    def cell(period: str, channel: str, lead: int, at: int) -> Cell:
        errors = here["rmse"].sel(period=period, channel=channel).isel(lead_time=at)
        hardest = _hardest(errors, baselines)
        reference = float(errors.sel(forecast=hardest))
        value = 100 * (1 - float(errors.sel(forecast=model)) / reference) if reference > 0 else nothing
        when = f"{channel} at {lead} h, {_period_in_words((period,))}"
        when = with_count(when, scores, [int(cases_of(scores, period, lead).sum())])
        sentence = f"{when}: RMSE {_error(errors, model)}, {{}} {in_words(hardest)}"
        return make_cell(value, nothing, nothing, nothing, sentence, limit)

    labels = []
    for names in periods:
        counts = [int(cases_of(scores, names[0], lead).sum()) for lead in leads]
        labels.append((names[0], with_count(_period_in_words(names), scores, counts)))
    return _table(scores, "By time of the year", labels, channels, cell, limit)


def all_in_one_period(scores: xr.Dataset) -> str:
    """`SON` where all cases at the lead times of these tables are valid in it, else nothing."""
    with_all = distinct_periods(scores, [lead for lead, _ in _leads(scores)])[0]
    return with_all[-1] if len(with_all) > 1 else ""


def _table(
    scores: xr.Dataset,
    title: str,
    groups: Sequence[tuple[str, str]],
    channels: Sequence[str],
    cell: Callable[[str, str, int, int], Cell],
    limit: float,
) -> GroupTable:
    """`groups` are (name, label); `cell` is of (name, channel, hours, position of the lead time)."""
    columns = [(channel, lead, at) for channel in channels for lead, at in _leads(scores)]
    rows = [(label, tuple(cell(name, *column) for column in columns)) for name, label in groups]
    return GroupTable(
        title, tuple(f"{channel} {lead}\u00a0h" for channel, lead, _ in columns), tuple(rows), legend(limit)
    )


def _leads(scores: xr.Dataset) -> Iterator[tuple[int, int]]:
    """(hours, position) of the headline's and the longest of the key lead times."""
    hours = lead_hours(scores)
    for lead in dict.fromkeys((headline_lead(scores), key_leads(scores)[-1])):
        yield lead, hours.index(lead)


def _hardest(errors: xr.DataArray, baselines: Sequence[str]) -> str:
    """The baseline of least error; the first where none has one."""
    found = {name: float(errors.sel(forecast=name)) for name in baselines}
    with_error = {name: error for name, error in found.items() if isfinite(error) and error > 0}
    return min(with_error, key=with_error.__getitem__) if with_error else baselines[0]


def _error(errors: xr.DataArray, model: str) -> str:
    return f"{number(float(errors.sel(forecast=model)))} {pretty_units(str(errors['units'].values))}".removesuffix(" 1")


def _period_in_words(names: Sequence[str]) -> str:
    """`all cases`, `SON`; `all cases (SON)` of periods that are the same."""
    words = ["all cases" if name == ALL else name for name in names]
    return words[0] + (f" ({', '.join(words[1:])})" if len(words) > 1 else "")
