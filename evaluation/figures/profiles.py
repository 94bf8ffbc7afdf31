"""Skill of one variable by lead time and height: a coloured cell a lead time and pressure level."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from weatherfm.earth.variables import parse_channel
from weatherfm.evaluation.figures.curves import lead_unit
from weatherfm.evaluation.figures.pictures import INK, style
from weatherfm.evaluation.results.key_figures import SIGNIFICANT
from weatherfm.evaluation.results.lookup import lead_hours, main_region
from weatherfm.evaluation.results.score_card import skill_with_test
from weatherfm.evaluation.results.skill_colours import COLOURS, REACH
from weatherfm.evaluation.results.words import in_words, variable_in_words

FEWEST_LEVELS = 3
"""Below that a profile says no more than curves do."""

_CLOSEST = 0.06
"""Share of the axis between two labels, at least."""


def variables_on_levels(scores: xr.Dataset) -> list[list[str]]:
    """Channels of each variable on three pressure levels or more, lowest pressure first."""
    by_variable: dict[str, list[str]] = {}
    for name in map(str, scores["channel"].values):
        channel = parse_channel(name)
        if channel.level is not None and channel.level_units == "hPa":
            by_variable.setdefault(channel.variable.short, []).append(name)
    sets = [sorted(names, key=lambda name: parse_channel(name).level or 0) for names in by_variable.values()]
    return [names for names in sets if len(names) >= FEWEST_LEVELS]


def profile_figure(
    scores: xr.Dataset, channels: Sequence[str], model: str, reference: str, limit: float, region: str | None = None
) -> Figure:
    """RMSE skill in per cent of a model against a reference: lead time to the right, pressure logarithmic, down.

    Args:
        scores: as `evaluate` gives them.
        channels: one variable on pressure levels, as of `variables_on_levels`.
        model: whose skill.
        reference: a forecast.
        limit: skill at which the colours end; beyond it they go on as arrows of the colour bar.
        region: without it, the main one.

    Dots are differences that are not significant.
    """
    found = skill_with_test(scores, model, reference)
    place = {"region": region or main_region(scores), "channel": list(channels)}
    value, p_value = (
        array.sel(place).transpose("channel", "lead_time").values for array in (found.value, found.p_value)
    )
    levels = np.array([parse_channel(name).level or np.nan for name in channels], float)
    leads = np.arange(value.shape[1])
    whole = matplotlib.colormaps[COLOURS]
    colours = ListedColormap(whole(np.linspace(0.5 - REACH, 0.5 + REACH, 25)))
    with style():
        figure = Figure(figsize=(4.5, 3.3), layout="constrained")
        axes = figure.add_subplot()
        drawn = axes.pcolormesh(
            np.arange(len(leads) + 1) - 0.5, _edges(levels), value, cmap=colours, vmin=-limit, vmax=limit
        )
        row, column = np.nonzero(p_value >= SIGNIFICANT)
        axes.plot(leads[column], levels[row], linestyle="none", marker=".", markersize=3, color=INK)
        axes.set_yscale("log")
        axes.invert_yaxis()
        axes.set_yticks(levels, _labels(levels))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.grid(visible=False)
        factor, unit = lead_unit(scores)
        step = -(-len(leads) // 10)
        axes.set_xticks(leads[::step], [f"{hours / factor:g}" for hours in lead_hours(scores)[::step]])
        axes.set_xlabel(f"Lead time [{unit}]")
        axes.set_ylabel("Pressure [hPa]")
        words = variable_in_words(parse_channel(channels[0]))
        axes.set_title(f"{words[0].upper()}{words[1:]}: {in_words(model)}")
        bar = figure.colorbar(drawn, extend="both" if limit < 100 else "min", ticks=np.linspace(-limit, limit, 5))
        bar.set_label(f"RMSE skill against {in_words(reference)} [%]", fontsize=8)
    return figure


def _labels(levels: np.ndarray) -> list[str]:
    """From the ground up, without those that would stand on the one below."""
    texts, last = [], np.inf
    least = _CLOSEST * np.log(levels[-1] / levels[0])
    for level in levels[::-1]:
        fits = np.log(last / level) >= least
        texts.append(f"{level:g}" if fits else "")
        last = level if fits else last
    return texts[::-1]


def _edges(levels: np.ndarray) -> np.ndarray:
    """[level + 1] pressures half way, in their logarithm, between neighbours."""
    logs = np.log(levels)
    middle = (logs[1:] + logs[:-1]) / 2
    edges: np.ndarray = np.exp(np.concatenate([[2 * logs[0] - middle[0]], middle, [2 * logs[-1] - middle[-1]]]))
    return edges
