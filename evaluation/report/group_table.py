"""Skill by region and by time of the year, for the channels shown first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import xarray as xr

from weatherfm.evaluation.results.key_figures import headline_lead, key_leads
from weatherfm.evaluation.results.lookup import lead_hours, main_region, overall
from weatherfm.evaluation.results.score_card import Cell, make_cell, own_baselines, skill_with_test
from weatherfm.evaluation.results.words import in_words, number, pretty_units, region_in_words


@dataclass(frozen=True)
class GroupTable:
    """Skill against the hardest baseline: a row a channel and lead time, a column a region or a period."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    """(label, cells)."""


def region_table(scores: xr.Dataset, model: str, channels: Sequence[str]) -> GroupTable:
    """By region, over all cases; differences are marked where they were tested."""
    regions = [str(name) for name in scores["region"].values]
    baselines = own_baselines(scores, model)
    here = overall(scores)
    tested = {name: skill_with_test(scores, model, name) for name in baselines}

    def cell(channel: str, at: int, region: str) -> Cell:
        place = {"region": region, "channel": channel}
        errors = here["rmse"].sel(place).isel(lead_time=at)
        hardest = _hardest(errors, baselines)
        found = tested[hardest]
        arrays = (found.value, found.p_value, found.low, found.high)
        own = _error(errors, model)
        sentence = f"{channel} in {region_in_words(region)}: RMSE {own}, {{}} {in_words(hardest)}"
        value, p_value, low, high = (float(array.sel(place).isel(lead_time=at)) for array in arrays)
        return make_cell(value, p_value, low, high, sentence)

    rows = [
        (f"{channel}, {lead} h", tuple(cell(channel, at, region) for region in regions))
        for channel in channels
        for lead, at in _leads(scores)
    ]
    return GroupTable("By region", tuple(map(region_in_words, regions)), tuple(rows))


def period_table(scores: xr.Dataset, model: str, channels: Sequence[str]) -> GroupTable | None:
    """By season or month of the valid time in the main region; None where all cases were scored together only."""
    periods = [str(name) for name in scores["period"].values] if "period" in scores.dims else []
    if len(periods) < 2:
        return None
    here = scores.sel(region=main_region(scores))
    baselines = own_baselines(scores, model)
    nothing = float("nan")

    def cell(channel: str, at: int, period: str) -> Cell:
        errors = here["rmse"].sel(period=period, channel=channel).isel(lead_time=at)
        hardest = _hardest(errors, baselines)
        reference = float(errors.sel(forecast=hardest))
        value = 100 * (1 - float(errors.sel(forecast=model)) / reference) if reference > 0 else nothing
        sentence = f"{channel}, {_period_in_words(period)}: RMSE {_error(errors, model)}, {{}} {in_words(hardest)}"
        return make_cell(value, nothing, nothing, nothing, sentence)

    rows = [
        (f"{channel}, {lead} h", tuple(cell(channel, at, period) for period in periods))
        for channel in channels
        for lead, at in _leads(scores)
    ]
    return GroupTable("By time of the year", tuple(map(_period_in_words, periods)), tuple(rows))


def _leads(scores: xr.Dataset) -> list[tuple[int, int]]:
    """(hours, position) of the headline's and the longest of the key lead times."""
    hours = lead_hours(scores)
    wanted = dict.fromkeys((headline_lead(scores), key_leads(scores)[-1]))
    return [(lead, hours.index(lead)) for lead in wanted]


def _hardest(errors: xr.DataArray, baselines: Sequence[str]) -> str:
    """The baseline of least error; the first where none has one."""
    found = {name: float(errors.sel(forecast=name)) for name in baselines}
    with_error = {name: error for name, error in found.items() if isfinite(error) and error > 0}
    return min(with_error, key=with_error.__getitem__) if with_error else baselines[0]


def _error(errors: xr.DataArray, model: str) -> str:
    return f"{number(float(errors.sel(forecast=model)))} {pretty_units(str(errors['units'].values))}".removesuffix(" 1")


def _period_in_words(period: str) -> str:
    return "all cases" if period == "all" else period
