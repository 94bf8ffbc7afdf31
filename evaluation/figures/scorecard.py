"""The score card as one figure, for notebooks and papers."""

from __future__ import annotations

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from weatherfm.evaluation.figures.pictures import style
from weatherfm.evaluation.report.key_figures import SIGNIFICANT, in_words, main_region, percent, region_in_words
from weatherfm.evaluation.report.scorecard import BETTER, COLOURS, LIMIT, WORSE, blocks_of, shown_leads, skill_with_test
from weatherfm.evaluation.scores import lead_hours

_MOST_NUMBERS = 400
"""Cells up to which each carries its number."""


def scorecard_figure(
    scores: xr.Dataset, model: str, baseline: str, region: str | None = None, metric: str = "rmse"
) -> Figure:
    """Heat map of skill in percent, channel by lead time; triangles mark significant differences.

    Args:
        scores: as `evaluate` gives them.
        model: whose card it is.
        baseline: the forecast it is held against, a baseline or another model.
        region: without it, the globe or the whole area.
        metric: `rmse` or `crps`.
    """
    region = region or main_region(scores)
    hours = lead_hours(scores)
    shown = shown_leads(hours)
    channels = [name for _, names in blocks_of([str(name) for name in scores["channel"].values]) for name in names]
    found = skill_with_test(scores, model, baseline, metric)
    values, p_values = (
        array.sel(region=region, channel=channels)
        .isel(lead_time=[hours.index(lead) for lead in shown])
        .transpose("channel", "lead_time")
        .values
        for array in (found.value, found.p_value)
    )
    with style():
        figure = Figure(figsize=(2.2 + 0.62 * len(shown), 1.3 + 0.24 * len(channels)), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(False)
        colours = matplotlib.colormaps[COLOURS](np.linspace(0.08, 0.92, 256))  # as deep as the page's, not deeper
        drawn = axes.pcolormesh(
            values, cmap=matplotlib.colors.ListedColormap(colours), vmin=-LIMIT, vmax=LIMIT, edgecolors="white"
        )
        axes.set_xticks(np.arange(len(shown)) + 0.5, [f"{lead} h" for lead in shown])
        axes.set_yticks(np.arange(len(channels)) + 0.5, channels)
        axes.invert_yaxis()
        axes.tick_params(length=0)
        for (row, column), value in np.ndenumerate(values):
            sure = bool(p_values[row, column] < SIGNIFICANT)
            text = _text(value, sure, values.size <= _MOST_NUMBERS)
            axes.text(
                column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7.5,
                color="white" if abs(value) > 0.75 * LIMIT else "black",
                fontweight="bold" if sure else "normal", alpha=1 if sure or np.isnan(p_values[row, column]) else 0.6,
            )  # fmt: skip
        axes.set_title(f"{model} against {in_words(baseline)}, {region_in_words(region)}")
        bar = figure.colorbar(drawn, extend="both", shrink=0.6)
        bar.set_label(f"{metric.upper()} below the baseline’s [%]; {BETTER}{WORSE} significant", fontsize=8)
    return figure


def _text(value: float, sure: bool, with_number: bool) -> str:
    mark = "" if not sure else BETTER if value > 0 else WORSE
    return mark + (percent(value).removesuffix(" %") if with_number else "")
