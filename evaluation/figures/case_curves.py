"""Errors of single cases in order of time: which weather was hard, and whether all models found it so."""

from __future__ import annotations

import xarray as xr
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from weatherfm.evaluation.figures.curves import panel, show_legend, units_of
from weatherfm.evaluation.figures.line_looks import line_look
from weatherfm.evaluation.figures.pictures import style
from weatherfm.evaluation.figures.skill_curves import hardest_baseline
from weatherfm.evaluation.results.by_case import case_rmse
from weatherfm.evaluation.results.lookup import baselines_of, models_of
from weatherfm.evaluation.results.words import in_words, name_in_words

FEWEST = 5
"""Cases below which a line says no more than the score cards do."""


def case_figure(scores: xr.Dataset, channel: str, lead_time: int, region: str | None = None) -> Figure:
    """RMSE of every case of the models, and of the hardest baseline, against initial time; `lead_time` in hours."""
    hardest = [hardest_baseline(scores, channel, region)] if baselines_of(scores) else []
    figure, axes = panel()
    with style():
        for name in [*models_of(scores), *hardest]:
            errors = case_rmse(scores, name, channel, lead_time, region)
            if errors is not None:
                look = line_look(name, scores) | {"marker": "", "linewidth": 1.2}
                axes.plot(scores["init_time"].values, errors, label=in_words(name), **look)
        places = AutoDateLocator(maxticks=7)
        axes.xaxis.set_major_locator(places)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(places))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("Initial time")
        axes.set_ylabel(f"RMSE [{units_of(scores, channel)}]")
        axes.set_title(f"{channel} at {lead_time} h: {name_in_words(channel)}")
        show_legend(axes)
    return figure
