"""Whether an ensemble's spread is honest: spread beside error, rank histograms; and its mean beside its members."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from weatherfm.evaluation.figures.curves import draw_curves, finish, note_level, panel
from weatherfm.evaluation.figures.line_looks import line_look
from weatherfm.evaluation.figures.pictures import GREY, style
from weatherfm.evaluation.results.key_figures import headline_lead
from weatherfm.evaluation.results.lookup import ensembles_of, lead_hours, main_region, overall
from weatherfm.evaluation.results.words import in_words, name_in_words, pretty_units


def spread_skill_figure(scores: xr.Dataset, channel: str, region: str | None = None) -> Figure:
    """RMSE of the ensemble mean (solid) and spread (dotted, hollow) of every ensemble model against lead time.

    The spread is corrected for the number of members, so that of a reliable ensemble both lines coincide.
    """
    scores = overall(scores)
    place = {"region": region or main_region(scores), "channel": channel}
    error = scores["rmse"].sel(place).sel(forecast=list(ensembles_of(scores)))
    spread = scores["spread_skill_ratio"].sel(place) * error
    figure, axes = panel()
    with style():
        _draw_pairs(axes, scores, error, "error of the mean", spread, "spread")
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"RMSE and spread [{_units(error)}]")
        finish(axes, scores, _title(channel))
    return figure


def member_error_figure(scores: xr.Dataset, channel: str, region: str | None = None) -> Figure:
    """RMSE of the ensemble mean (solid) and of a single member (dotted, hollow) against lead time."""
    scores = overall(scores)
    figure, axes = panel()
    with style():
        mean, member = _mean_and_member(scores, "rmse", channel, region)
        _draw_pairs(axes, scores, mean, "mean", member, "a member")
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"RMSE [{_units(mean)}]")
        finish(axes, scores, _title(channel))
    return figure


def member_activity_figure(scores: xr.Dataset, channel: str, region: str | None = None) -> Figure:
    """Activity over the truth's of the ensemble mean (solid) and of a single member (dotted, hollow)."""
    scores = overall(scores)
    figure, axes = panel()
    with style():
        mean, member = _mean_and_member(scores, "activity_ratio", channel, region)
        _draw_pairs(axes, scores, mean, "mean", member, "a member")
        axes.set_ylim(0, max(1.2, 1.08 * float(member.max(skipna=True))))
        note_level(axes, 1.0, "1: as lively as the truth", below=False)
        axes.set_ylabel("Activity, forecast ÷ truth [1]")
        finish(axes, scores, _title(channel))
    return figure


def _mean_and_member(
    scores: xr.Dataset, metric: str, channel: str, region: str | None
) -> tuple[xr.DataArray, xr.DataArray]:
    place = {"region": region or main_region(scores), "channel": channel}
    mean, member = (
        scores[name].sel(place).sel(forecast=list(ensembles_of(scores))) for name in (metric, f"member_{metric}")
    )
    return mean, member


def _draw_pairs(
    axes: Axes, scores: xr.Dataset, solid: xr.DataArray, of_solid: str, dotted: xr.DataArray, of_dotted: str
) -> None:
    """Two lines of one colour an ensemble."""
    draw_curves(axes, scores, solid)
    count = len(axes.get_lines())
    draw_curves(axes, scores, dotted, linestyle=":", linewidth=1.8, markerfacecolor="white")
    for i, line in enumerate(axes.get_lines()):
        line.set_label(f"{line.get_label()}: {of_solid if i < count else of_dotted}")


def _title(channel: str) -> str:
    return f"{channel}: {name_in_words(channel)}"


def _units(values: xr.DataArray) -> str:
    return pretty_units(str(values["units"].values))


def rank_histogram_figure(
    scores: xr.Dataset, channel: str, lead_hours_shown: int | None = None, region: str | None = None
) -> Figure:
    """Share of cases in which the truth has each rank among the members, as a multiple of an even share.

    Flat is reliable, a U too narrow, a dome too wide, a slope a bias. `lead_hours_shown` is one of the scored lead
    times; without it, that of the headline.
    """
    lead = headline_lead(scores) if lead_hours_shown is None else lead_hours_shown
    at = lead_hours(scores).index(lead)
    shares = scores["rank_histogram"].sel(region=region or main_region(scores), channel=channel).isel(lead_time=at)
    figure, axes = panel()
    with style():
        for name, members in ensembles_of(scores).items():
            values = shares.sel(forecast=name).values[: members + 1] * (members + 1)
            look = line_look(name, scores)
            axes.stairs(
                values,
                np.arange(members + 2) - 0.5,
                color=look["color"],
                linewidth=1.8,
                label=f"{in_words(name)}, {members} members",
            )
        axes.axhline(1, color=GREY, linewidth=0.8, linestyle=":")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("Rank of the truth among the members [1]")
        axes.set_ylabel("Share, 1 is even [1]")
        axes.set_title(f"{channel}: {name_in_words(channel)}, {lead} h")
        axes.legend(fontsize=8, loc="best")
    return figure
