"""Which figures and cards stand on the page, by what the scores hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from weatherfm.evaluation.figures.curves import (
    acc_figure,
    activity_figure,
    bias_figure,
    brier_figure,
    brier_skill_figure,
    crps_figure,
    has,
    rmse_figure,
    seeps_figure,
    wind_figure,
)
from weatherfm.evaluation.figures.ensemble_curves import (
    member_activity_figure,
    member_error_figure,
    rank_histogram_figure,
    spread_skill_figure,
)
from weatherfm.evaluation.figures.plots import Plot, PlotGroup
from weatherfm.evaluation.figures.skill_curves import crps_skill_figure
from weatherfm.evaluation.figures.spectra_curves import energy_ratio_figure, spectrum_figure
from weatherfm.evaluation.report.skill_sections import rmse_skill_groups
from weatherfm.evaluation.results.key_figures import headline_lead, key_leads
from weatherfm.evaluation.results.lookup import ensembles_of, models_of, probabilistic_baselines_of
from weatherfm.evaluation.results.score_card import Card, references_of, score_card, skill_limits
from weatherfm.evaluation.results.words import in_words, metric_in_words, name_in_words

_MOST_TITLES = 6000
"""Cells up to which those of the other regions say in words what they are."""
_SPECTRA_CHANNELS = 4


@dataclass(frozen=True)
class CardGroup:
    """All cards of a model in one region."""

    model: str
    cards: tuple[Card, ...]


def card_groups(scores: xr.Dataset, regions: Sequence[str], titles: bool = True) -> list[CardGroup]:
    """A group a region and model, with a card a reference; models without any have none."""
    models, limits = models_of(scores), skill_limits(scores)
    groups = []
    for region in regions:
        for model in models:
            cards = [
                score_card(scores, model, name, region, metric, titles, limits[name in models])
                for metric, name in references_of(scores, model)
            ]
            groups += [CardGroup(model, tuple(cards))] if cards else []
    return groups


def fits_titles(scores: xr.Dataset, regions: Sequence[str]) -> bool:
    """Whether the cells of these regions are few enough for a title each."""
    references = sum(len(references_of(scores, model)) for model in models_of(scores))
    return references * len(regions) * scores.sizes["channel"] * min(10, scores.sizes["lead_time"]) <= _MOST_TITLES


def curve_groups(scores: xr.Dataset, channels: Sequence[str]) -> list[PlotGroup]:
    """Curves against lead time; of what the scores hold, and of channels that have it."""
    groups = [
        _by_channel(scores, channels, "rmse", rmse_figure, "RMSE (lower is better)", "RMSE"),
        _by_channel(
            scores, channels, "acc", acc_figure, "Anomaly correlation (higher is better)", "Anomaly correlation"
        ),
    ]
    groups += rmse_skill_groups(scores, channels)
    if ensembles_of(scores):
        groups += _crps_groups(scores, channels)
    groups += [
        _by_label(scores, "wind_vector_rmse", "wind", wind_figure, "Wind vector (lower is better)"),
        _by_label(scores, "brier", "event", brier_figure, "Events: Brier score (lower is better)"),
        _by_label(scores, "brier_skill", "event", brier_skill_figure, "Events: skill against their frequency"),
    ]
    if has(scores, "seeps"):
        plot = Plot(partial(seeps_figure, scores), "SEEPS of precipitation against lead time")
        groups.append(PlotGroup("Precipitation: SEEPS (lower is better)", "", (plot,)))
    note = "A ratio below 1 means a forecast smoother than the weather: it hedges, and its extremes are too rare."
    groups += [
        _by_channel(scores, channels, "activity_ratio", activity_figure, "Activity", "Activity ratio", note, True),
        _by_channel(scores, channels, "bias", bias_figure, "Bias", "Bias", "", True),
    ]
    return groups


def _crps_groups(scores: xr.Dataset, channels: Sequence[str]) -> list[PlotGroup]:
    """CRPS, and its skill against each probabilistic baseline."""
    note = (
        "Of an ensemble the fair CRPS, corrected for its number of members, by which ensembles of different sizes are "
        "compared; of a single forecast, as the mean of an ensemble, its MAE, which is its CRPS."
    )
    groups = [_by_channel(scores, channels, "crps", crps_figure, "Fair CRPS (lower is better)", "CRPS", note)]
    for name in probabilistic_baselines_of(scores):
        title = f"CRPS skill against {in_words(name)} (higher is better)"
        note = (
            f"The share of the CRPS of {in_words(name)} that a forecast does without; 100 % is perfect. Shaded: 95 % "
            "intervals, where differences were tested."
        )
        figure = partial(crps_skill_figure, reference=name)
        groups.append(
            _by_channel(scores, channels, "crps", figure, title, f"CRPS skill against {in_words(name)}", note)
        )
    return groups


def ensemble_groups(scores: xr.Dataset, channels: Sequence[str]) -> list[PlotGroup]:
    """Spread beside error and rank histograms; none without an ensemble among the models."""
    if not ensembles_of(scores):
        return []
    spread = "Of a reliable ensemble the spread (dotted) lies on the error of its mean (solid); below it is too sure."
    ranks = (
        "How often the truth has each rank among the members; 1 is as often as any other. Flat is reliable; high ends "
        "mean too little spread, a high middle too much, a slope a bias."
    )
    gain = (
        "Averaging takes out of the error what the members disagree on: RMSE of the mean (solid), of a member (dotted)."
    )
    cost = (
        "And out of the forecast: members (dotted) should be as lively as the weather, their mean (solid) is smoother."
    )
    return [
        _by_channel(scores, channels, "spread_skill_ratio", spread_skill_figure, "Spread and error", "Spread", spread),
        PlotGroup("Rank histograms", ranks, tuple(_rank_histograms(scores, channels))),
        _by_channel(scores, channels, "member_rmse", member_error_figure, "What the mean gains", "Member RMSE", gain),
        _by_channel(
            scores, channels, "member_activity_ratio", member_activity_figure, "What the mean loses", "Activity", cost
        ),
    ]


def _rank_histograms(scores: xr.Dataset, channels: Sequence[str]) -> list[Plot]:
    """At the headline's and the longest of the key lead times."""
    leads = dict.fromkeys((headline_lead(scores), key_leads(scores)[-1]))
    return [
        Plot(
            partial(rank_histogram_figure, scores, channel, lead),
            f"Rank histogram of {name_in_words(channel)} at {lead} h",
        )
        for channel in channels
        if has(scores, "rank_histogram", channel=channel)
        for lead in leads
    ]


def spectra_groups(scores: xr.Dataset, channels: Sequence[str]) -> list[PlotGroup]:
    """Energy ratio at a short and a long lead time, and spectra, of the first four channels."""
    kind = next((kind for kind in ("spherical", "zonal") if _holds(scores, f"{kind}_spectrum")), None)
    if kind is None:
        return []
    whole = [channel for channel in channels if _holds(scores.sel(channel=[channel]), f"{kind}_spectrum")]
    holes = [channel for channel in channels if channel not in whole]
    note = f"None of {', '.join(holes)}: fields with holes have no spectra." if holes else ""
    shown, first = whole[:_SPECTRA_CHANNELS], headline_lead(scores)
    leads = list(dict.fromkeys((first, key_leads(scores)[-1])))

    def plot(
        draw: Callable[..., Figure], what: str, channel: str, lead: int, own: str, band: str | None = None
    ) -> Plot:
        where = "" if band is None else f", {band.replace('_', ' ')}"
        text = f"{what} of {name_in_words(channel)} by scale at {lead} h{where}"
        return Plot(partial(draw, scores, channel, lead, own, band), text)

    ratio = "Energy, forecast ÷ truth"
    ratios = [plot(energy_ratio_figure, ratio, channel, lead, kind) for channel in shown for lead in leads]
    powers = [plot(spectrum_figure, "Power", channel, first, kind) for channel in shown]
    groups = [
        PlotGroup("Energy by scale, forecast ÷ truth", note, tuple(ratios)),
        PlotGroup("Spectra", "", tuple(powers), True),
    ]
    if whole and _holds(scores, "zonal_spectrum"):
        bands = [str(band) for band in scores["band"].values]
        zonal = [plot(energy_ratio_figure, ratio, whole[0], first, "zonal", band) for band in bands]
        groups.append(PlotGroup(f"{whole[0]} by latitude band", "", tuple(zonal), True))
    return groups


def definitions(scores: xr.Dataset) -> dict[str, str]:
    """Term -> what it is, of every variable of the scores."""
    return {
        metric_in_words(str(name)): str(array.attrs.get("long_name", "")) for name, array in scores.data_vars.items()
    }


def _holds(scores: xr.Dataset, variable: str) -> bool:
    return variable in scores and bool(np.isfinite(scores[variable].sel(forecast=models_of(scores)[0])).any())


def _by_channel(
    scores: xr.Dataset,
    channels: Sequence[str],
    variable: str,
    figure: Callable[[xr.Dataset, str], Figure],
    title: str,
    what: str,
    note: str = "",
    folded: bool = False,
) -> PlotGroup:
    plots = [
        Plot(partial(figure, scores, channel), f"{what} of {name_in_words(channel)} against lead time")
        for channel in channels
        if has(scores, variable, channel=channel)
    ]
    return PlotGroup(title, note, tuple(plots), folded)


def _by_label(
    scores: xr.Dataset, variable: str, dim: str, figure: Callable[[xr.Dataset, str], Figure], title: str
) -> PlotGroup:
    labels = [str(label) for label in scores[dim].values] if variable in scores else []
    plots = [
        Plot(partial(figure, scores, label), f"{metric_in_words(variable)} of {label} against lead time")
        for label in labels
        if has(scores, variable, **{dim: label})
    ]
    return PlotGroup(title, "", tuple(plots))
