"""Curves of scores against lead time."""

from __future__ import annotations

from string import ascii_lowercase
from typing import cast

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

from weatherfm.evaluation.figures.line_looks import line_look
from weatherfm.evaluation.figures.pictures import GREY, style
from weatherfm.evaluation.results.lookup import (
    activity_ratios,
    baselines_of,
    lead_hours,
    main_region,
    means_of,
    models_of,
    overall,
    probabilistic_baselines_of,
)
from weatherfm.evaluation.results.published_scores import published_for
from weatherfm.evaluation.results.words import in_words, name_in_words, pretty_units

_USEFUL_ACC = 0.6
"""Anomaly correlation down to which a forecast is by custom called useful."""

LEAST_SKILL = 5
"""Per cent that an axis of skill reaches on either side of nothing: less is not worth a picture of its own."""
_MOST_INSIDE = 6
"""Names in a legend inside the axes: more hide the curves, and stand below."""


def rmse_figure(scores: xr.Dataset, channel: str, region: str | None = None) -> Figure:
    """RMSE of every forecast against lead time; the axis starts at zero.

    Published scores that may be set beside these are hollow grey circles; their letters are those of
    `published_letters`.
    """
    scores, region = overall(scores), region or main_region(scores)
    figure, axes = panel()
    with style():
        draw_curves(axes, scores, _single(scores, scores["rmse"].sel(region=region, channel=channel)))
        if region == "global":
            _draw_published(axes, scores, channel)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"RMSE [{units_of(scores, channel)}]")
        finish(axes, scores, _title(channel))
    return figure


def acc_figure(scores: xr.Dataset, channel: str, region: str | None = None) -> Figure:
    """Anomaly correlation of every forecast against lead time; climatology has none."""
    scores = overall(scores)
    values = scores["acc"].sel(region=region or main_region(scores), channel=channel)
    figure, axes = panel()
    with style():
        draw_curves(axes, scores, _single(scores, values))
        low = min(0.0, float(values.min(skipna=True)))
        axes.set_ylim(max(low - 0.05, -1) if low < 0 else 0, 1.02)
        note_level(axes, _USEFUL_ACC, "0.6: useful by custom", below=True)
        axes.set_ylabel("Anomaly correlation [1]")
        finish(axes, scores, _title(channel))
    return figure


def crps_figure(scores: xr.Dataset, channel: str, region: str | None = None) -> Figure:
    """CRPS against lead time: fair of ensembles, the mean absolute error of single forecasts, which is theirs."""
    scores = overall(scores)
    values = _comparable_crps(scores.sel(region=region or main_region(scores), channel=channel))
    figure, axes = panel()
    with style():
        draw_curves(axes, scores, values)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"Fair CRPS [{units_of(scores, channel)}]")
        finish(axes, scores, _title(channel))
    return figure


def activity_figure(scores: xr.Dataset, channel: str, region: str | None = None) -> Figure:
    """Activity of the forecast over the truth's against lead time: below 1 a forecast is smoother than the weather."""
    scores = overall(scores)
    values = activity_ratios(scores).sel(region=region or main_region(scores), channel=channel)
    figure, axes = panel()
    with style():
        draw_curves(axes, scores, _single(scores, values))
        axes.set_ylim(0, max(1.2, 1.08 * float(values.max(skipna=True))))
        note_level(axes, 1.0, "1: as lively as the truth", below=False)
        axes.set_ylabel("Activity, forecast ÷ truth [1]")
        finish(axes, scores, _title(channel))
    return figure


def bias_figure(scores: xr.Dataset, channel: str, region: str | None = None) -> Figure:
    """Mean of forecast minus truth against lead time."""
    scores = overall(scores)
    figure, axes = panel()
    with style():
        values = scores["bias"].sel(region=region or main_region(scores), channel=channel)
        draw_curves(axes, scores, _single(scores, values))
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set_ylabel(f"Bias [{units_of(scores, channel)}]")
        finish(axes, scores, _title(channel))
    return figure


def wind_figure(scores: xr.Dataset, wind: str, region: str | None = None) -> Figure:
    """RMSE of the wind vector (`wind850`) against lead time."""
    title = f"{wind}: wind vector at {_height(wind)}"
    return _other_figure(scores, "wind_vector_rmse", {"wind": wind}, "Vector RMSE [m s⁻¹]", title, region)


def brier_figure(scores: xr.Dataset, event: str, region: str | None = None) -> Figure:
    """Brier score of an event (`t2m > 273.15`) against lead time; 0 is perfect."""
    units = pretty_units(str(scores["units"].sel(channel=event.split()[0]).values))
    return _other_figure(scores, "brier", {"event": event}, "Brier score [1]", f"{event} {units}", region)


def brier_skill_figure(scores: xr.Dataset, event: str, region: str | None = None) -> Figure:
    """Brier skill of every forecast of an event against its frequency on training days; 0 is as good as that."""
    scores = overall(scores)
    values = 100 * scores["brier_skill"].sel(region=region or main_region(scores), event=event)
    units = pretty_units(str(scores["units"].sel(channel=event.split()[0]).values))
    figure, axes = panel()
    with style():
        draw_curves(axes, scores, values)
        low = float(values.sel(forecast=models_of(scores)).min(skipna=True))
        axes.set_ylim(min(-LEAST_SKILL, 1.1 * low) if np.isfinite(low) else -LEAST_SKILL, 100)
        note_level(axes, 0.0, "0: as good as its frequency", below=True)
        axes.set_ylabel("Brier skill [%]")
        finish(axes, scores, f"{event} {units}")
    return figure


def seeps_figure(scores: xr.Dataset, region: str | None = None) -> Figure:
    """SEEPS of precipitation against lead time; 0 is perfect, 1 without skill."""
    return _other_figure(scores, "seeps", {}, "SEEPS [1]", "tp: precipitation, dry, light or heavy", region)


def has(scores: xr.Dataset, variable: str, **where: str) -> bool:
    """Whether the main region has a finite value of a variable."""
    if variable not in scores:
        return False
    return bool(np.isfinite(overall(scores)[variable].sel({"region": main_region(scores), **where})).any())


def published_letters(scores: xr.Dataset) -> dict[str, str]:
    """Name of each forecast in `published_for(scores)` -> its letter on curves of RMSE."""
    names = dict.fromkeys(point.name for point in published_for(scores))
    return dict(zip(names, ascii_lowercase, strict=False))


def draw_curves(axes: Axes, scores: xr.Dataset, values: xr.DataArray, **changes: object) -> None:
    """One line a forecast that has a value; `values` dims (forecast, lead_time), in any order."""
    leads = np.asarray(lead_hours(scores)) / lead_unit(scores)[0]
    for name in map(str, values["forecast"].values):
        line = values.sel(forecast=name).values
        if np.isfinite(line).any():
            size = 4.5 if len(leads) < 16 else 0
            axes.plot(
                leads, line, **({"label": in_words(name), "markersize": size} | line_look(name, scores) | changes)
            )


def finish(axes: Axes, scores: xr.Dataset, title: str) -> None:
    """Axis of lead time, title and legend."""
    factor, unit = lead_unit(scores)
    longest = lead_hours(scores)[-1] / factor
    axes.set_xlim(0, longest * 1.04)
    axes.set_xlabel(f"Lead time [{unit}]")
    whole_days = unit == "h" and longest >= 24
    axes.xaxis.set_major_locator(MultipleLocator(24) if whole_days else MaxNLocator(integer=True))
    axes.set_title(title)
    show_legend(axes)


def note_level(axes: Axes, level: float, text: str, below: bool) -> None:
    """A thin line at a level, and what it means."""
    axes.axhline(level, color=GREY, linewidth=0.8, linestyle=":")
    axes.annotate(text, (0, level), xycoords=("axes fraction", "data"), xytext=(4, -3 if below else 3),
                  textcoords="offset points", va="top" if below else "bottom", fontsize=7.5, color=GREY,
                  zorder=4, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8})  # fmt: skip


def panel() -> tuple[Figure, Axes]:
    """A figure of the size of a curve, with its axes."""
    with style():
        figure = Figure(figsize=(4.5, 3.1), layout="constrained")
        return figure, figure.add_subplot()


def _other_figure(
    scores: xr.Dataset, variable: str, where: dict[str, str], label: str, title: str, region: str | None
) -> Figure:
    scores = overall(scores)
    figure, axes = panel()
    with style():
        values = scores[variable].sel({"region": region or main_region(scores), **where})
        draw_curves(axes, scores, values if variable == "brier" else _single(scores, values))
        axes.set_ylim(bottom=0)
        axes.set_ylabel(label)
        finish(axes, scores, title)
    return figure


def _draw_published(axes: Axes, scores: xr.Dataset, channel: str) -> None:
    """Hollow grey circles with letters, without a line: nobody may take them for scores on these cases."""
    letters: dict[tuple[float, float], str] = {}
    for point in [point for point in published_for(scores) if point.channel == channel]:
        place = (point.lead_hours / lead_unit(scores)[0], point.rmse)
        letters[place] = letters.get(place, "") + published_letters(scores)[point.name]
    if not letters:
        return
    axes.plot(*zip(*letters, strict=True), linestyle="none", marker="o", markerfacecolor="none", markersize=5.5,
              markeredgecolor="0.45", label="published elsewhere")  # fmt: skip
    for place, text in letters.items():
        axes.annotate(text, place, xytext=(5, 0), textcoords="offset points", va="center", fontsize=7, color="0.35")


def _comparable_crps(here: xr.Dataset) -> xr.DataArray:
    """The fair CRPS of ensembles of any size; of a single forecast the mean absolute error, which is its CRPS."""
    return here["crps_fair"].where(here["members"] != 1, here["crps"])


def _single(scores: xr.Dataset, values: xr.DataArray) -> xr.DataArray:
    """Without the baselines that are ensembles, whose mean is nearly climatology, and without a mean beside its own."""
    own = set(baselines_of(scores))
    ensembles = [name for name in probabilistic_baselines_of(scores) if name not in own]
    return values.drop_sel(forecast=[*ensembles, *means_of(scores)])


def show_legend(axes: Axes) -> None:
    """Where it hides least; of many names below the axes, in a figure that is as much taller."""
    handles, names = axes.get_legend_handles_labels()
    if len(names) <= _MOST_INSIDE:
        axes.legend(fontsize=8, handlelength=2.4, loc="best")
        return
    figure = cast("Figure", axes.get_figure())
    columns = 3 if max(map(len, names)) <= 20 else 2
    figure.set_figheight(figure.get_figheight() + 0.1 + 0.17 * -(-len(names) // columns))
    figure.legend(handles, names, fontsize=7.5, handlelength=2.4, loc="outside lower center", ncols=columns)


def _title(channel: str) -> str:
    return f"{channel}: {name_in_words(channel)}"


def units_of(scores: xr.Dataset, channel: str) -> str:
    """Of a channel's errors, with raised exponents."""
    return pretty_units(str(scores["units"].sel(channel=channel).values))


def _height(wind: str) -> str:
    number = wind.removeprefix("wind")
    return f"{number.removesuffix('m')} m" if number.endswith("m") else f"{number} hPa"


def lead_unit(scores: xr.Dataset) -> tuple[int, str]:
    """(hours a unit, name): days for long forecasts."""
    return (24, "days") if lead_hours(scores)[-1] > 144 else (1, "h")
