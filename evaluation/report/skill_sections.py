"""Which figures of skill stand on the page: curves with intervals, and profiles by lead time and height."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import xarray as xr

from weatherfm.earth.variables import parse_channel
from weatherfm.evaluation.figures.case_curves import FEWEST, case_figure
from weatherfm.evaluation.figures.plots import Plot, PlotGroup
from weatherfm.evaluation.figures.profiles import profile_figure, variables_on_levels
from weatherfm.evaluation.figures.skill_curves import hardest_baseline, has_intervals, rmse_skill_figure
from weatherfm.evaluation.results.by_case import case_rmse
from weatherfm.evaluation.results.key_figures import headline_lead
from weatherfm.evaluation.results.lookup import baselines_of, models_of
from weatherfm.evaluation.results.score_card import skill_limits
from weatherfm.evaluation.results.words import in_words, name_in_words, variable_in_words

_MOST_PROFILES = 24


def rmse_skill_groups(scores: xr.Dataset, channels: Sequence[str]) -> list[PlotGroup]:
    """Skill of all models against the hardest baseline, and of the others against the first; none without intervals."""
    first, *others = models_of(scores)
    against = {channel: hardest_baseline(scores, channel) for channel in channels} if baselines_of(scores) else {}
    note = "Shaded: 95 % intervals of the test on paired cases. Where one holds 0, the difference may be chance."
    hardest = [
        _curve(scores, channel, name) for channel, name in against.items() if has_intervals(scores, channel, name)
    ]
    groups = [PlotGroup("RMSE skill against the hardest baseline (higher is better)", note, tuple(hardest))]
    if others:
        plots = [_curve(scores, channel, first) for channel in channels if has_intervals(scores, channel, first)]
        groups.append(PlotGroup(f"RMSE skill against {in_words(first)} (higher is better)", note, tuple(plots)))
    return groups


def profile_groups(scores: xr.Dataset) -> list[PlotGroup]:
    """Profiles of the first model against the hardest baseline and of every other against the first.

    Of variables on three pressure levels or more; at most 24 in all.
    """
    first, *others = models_of(scores)
    against_baselines, against_models = skill_limits(scores)
    plots = []
    for channels in variables_on_levels(scores):
        if baselines_of(scores):
            middle = channels[len(channels) // 2]
            hardest = hardest_baseline(scores, middle)
            plots.append(_profile(scores, channels, first, hardest, against_baselines))
        plots += [_profile(scores, channels, model, first, against_models) for model in others]
    note = (
        "RMSE skill by lead time and pressure, the hardest baseline being that of the middle level. Green is better, "
        "brown worse, white no different; a dot: not significant."
    )
    if len(plots) > _MOST_PROFILES:
        note += f" The first {_MOST_PROFILES} of {len(plots)}."
    return [PlotGroup("Skill by height", note, tuple(plots[:_MOST_PROFILES]))]


def case_groups(scores: xr.Dataset, channels: Sequence[str]) -> list[PlotGroup]:
    """RMSE of every case in order of time; none of few cases, or where the scores hold none."""
    first, lead = models_of(scores)[0], headline_lead(scores)
    if scores.sizes["init_time"] < FEWEST:
        return []
    plots = [
        Plot(partial(case_figure, scores, channel, lead), f"RMSE of {name_in_words(channel)} of every case")
        for channel in channels
        if case_rmse(scores, first, channel, lead) is not None
    ]
    note = "Beside the baseline that is hardest to beat. Where all lines rise together, the weather was hard to tell."
    return [PlotGroup("RMSE of every case", note, tuple(plots), folded=True)]


def _curve(scores: xr.Dataset, channel: str, reference: str) -> Plot:
    text = f"RMSE skill of {name_in_words(channel)} against {in_words(reference)} by lead time, with intervals"
    return Plot(partial(rmse_skill_figure, scores, channel, reference), text)


def _profile(scores: xr.Dataset, channels: Sequence[str], model: str, reference: str, limit: float) -> Plot:
    words = variable_in_words(parse_channel(channels[0]))
    text = f"RMSE skill of {words} by lead time and pressure: {in_words(model)} against {in_words(reference)}"
    return Plot(partial(profile_figure, scores, channels, model, reference, limit), text)
