"""Curves of RMSE and anomaly correlation against lead time."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

from weatherfm.evaluation.baselines import BASELINES
from weatherfm.evaluation.display import name_in_words, pretty_units
from weatherfm.evaluation.key_figures import main_region, models_of
from weatherfm.evaluation.pictures import GREY, style
from weatherfm.evaluation.scores import lead_hours

_MODEL_COLOURS = ("#0072B2", "#CC79A7", "#009E73", "#56B4E9", "#8C564B")  # after Okabe and Ito
_BASELINE_LOOK: dict[str, dict[str, Any]] = {
    "persistence": {"color": "#D55E00", "linestyle": (0, (5, 2)), "marker": "s"},
    "climatology": {"color": "#4D4D4D", "linestyle": (0, (1.5, 1.5)), "marker": "^"},
}
_USEFUL_ACC = 0.6
"""Anomaly correlation down to which a forecast is by custom called useful."""


def rmse_figure(scores: xr.Dataset, channel: str, region: str | None = None) -> Figure:
    """RMSE of every forecast against lead time; the axis starts at zero."""
    figure, axes = _panel()
    with style():
        _draw(axes, scores, "rmse", channel, region or main_region(scores))
        axes.set_ylim(bottom=0)
        units = pretty_units(str(scores["units"].sel(channel=channel).values))
        axes.set_ylabel(f"RMSE [{units}]")
        _finish(axes, scores, f"{channel}: {name_in_words(channel)}")
    return figure


def acc_figure(scores: xr.Dataset, channel: str, region: str | None = None) -> Figure:
    """Anomaly correlation of every forecast against lead time; climatology has none."""
    figure, axes = _panel()
    with style():
        _draw(axes, scores, "acc", channel, region or main_region(scores))
        low = min(0.0, float(scores["acc"].sel(channel=channel, region=region or main_region(scores)).min(skipna=True)))
        axes.set_ylim(max(low - 0.05, -1) if low < 0 else 0, 1.02)
        axes.axhline(_USEFUL_ACC, color=GREY, linewidth=0.8, linestyle=":")
        axes.annotate("0.6: useful by custom", (0, _USEFUL_ACC), xycoords=("axes fraction", "data"),
                      xytext=(4, -3), textcoords="offset points", va="top", fontsize=7.5, color=GREY)  # fmt: skip
        axes.set_ylabel("Anomaly correlation [1]")
        _finish(axes, scores, f"{channel}: {name_in_words(channel)}")
    return figure


def _panel() -> tuple[Figure, Axes]:
    with style():
        figure = Figure(figsize=(4.5, 3.1), layout="constrained")
        return figure, figure.add_subplot()


def _draw(axes: Axes, scores: xr.Dataset, metric: str, channel: str, region: str) -> None:
    factor = _lead_unit(scores)[0]
    leads = np.asarray(lead_hours(scores)) / factor
    for name in map(str, scores["forecast"].values):
        values = scores[metric].sel(forecast=name, region=region, channel=channel).values
        if np.isfinite(values).any():
            axes.plot(leads, values, label=name, **_look(name, scores), markersize=4.5 if len(leads) < 16 else 0)


def _look(name: str, scores: xr.Dataset) -> dict[str, Any]:
    if name in BASELINES:
        return {**_BASELINE_LOOK[name], "linewidth": 1.5}
    colour = _MODEL_COLOURS[models_of(scores).index(name) % len(_MODEL_COLOURS)]
    return {"color": colour, "marker": "o", "linewidth": 2.4, "zorder": 3}


def _finish(axes: Axes, scores: xr.Dataset, title: str) -> None:
    factor, unit = _lead_unit(scores)
    longest = lead_hours(scores)[-1] / factor
    axes.set_xlim(0, longest * 1.04)
    axes.set_xlabel(f"Lead time [{unit}]")
    whole_days = unit == "h" and longest >= 24
    axes.xaxis.set_major_locator(MultipleLocator(24) if whole_days else MaxNLocator(integer=True))
    axes.set_title(title)
    axes.legend(fontsize=8.5, handlelength=2.4, loc="best")


def _lead_unit(scores: xr.Dataset) -> tuple[int, str]:
    """(hours a unit, name): days for long forecasts."""
    return (24, "days") if lead_hours(scores)[-1] > 144 else (1, "h")
