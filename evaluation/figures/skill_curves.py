"""Curves of skill against lead time, with the 95 % intervals of the test shaded where the scores hold them."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from weatherfm.evaluation.figures.curves import LEAST_SKILL, draw_curves, finish, lead_unit, note_level, panel
from weatherfm.evaluation.figures.line_looks import line_look
from weatherfm.evaluation.figures.pictures import style
from weatherfm.evaluation.results.lookup import (
    baselines_of,
    ensembles_of,
    lead_hours,
    main_region,
    models_of,
    overall,
    probabilistic_baselines_of,
)
from weatherfm.evaluation.results.words import in_words, name_in_words

_OPACITY, _ALL = 0.18, 0.5
"""Of the shading of one, and of all together: where intervals overlap the lines are seen."""

_LOWEST = -100.0
"""Per cent down to which intervals widen the axis; curves do without end."""


def crps_skill_figure(scores: xr.Dataset, channel: str, reference: str, region: str | None = None) -> Figure:
    """Fair CRPS skill score, 1 - CRPS / CRPS of the reference, in per cent against lead time.

    Of ensembles, and of baselines that are distributions. Single forecasts would decide the axis: their CRPS is much
    larger.
    """
    distributions = [name for name in baselines_of(scores) if name in probabilistic_baselines_of(scores)]
    names = [name for name in (*ensembles_of(scores), *distributions) if name != reference]
    return _skill_figure(scores, "crps_fair", channel, reference, names, region)


def rmse_skill_figure(
    scores: xr.Dataset, channel: str, reference: str | None = None, region: str | None = None
) -> Figure:
    """RMSE skill of every model, 1 - RMSE / RMSE of the reference, in per cent against lead time.

    `reference` is a forecast; without it, the baseline that is hardest to beat, see `hardest_baseline`.
    """
    reference = reference or hardest_baseline(scores, channel, region)
    names = [name for name in models_of(scores) if name != reference]
    return _skill_figure(scores, "rmse", channel, reference, names, region)


def has_intervals(scores: xr.Dataset, channel: str, reference: str, metric: str = "rmse") -> bool:
    """Whether the skill of any model against a reference has an interval in the main region."""
    name = f"{metric}_skill_low"
    if name not in scores or reference not in scores["reference"].values:
        return False
    place = {"region": main_region(scores), "channel": channel, "reference": reference}
    return bool(np.isfinite(scores[name].sel(place).sel(forecast=models_of(scores))).any())


def hardest_baseline(scores: xr.Dataset, channel: str, region: str | None = None) -> str:
    """The single-valued baseline of least RMSE over all lead times (geometric mean)."""
    here = overall(scores)["rmse"].sel(region=region or main_region(scores), channel=channel)
    names = baselines_of(scores)
    errors = here.sel(forecast=names).transpose("forecast", "lead_time").values
    means = np.log(errors, where=errors > 0, out=np.full(errors.shape, np.inf)).mean(1)
    return names[int(np.argmin(means))]


def _skill_figure(
    scores: xr.Dataset, metric: str, channel: str, reference: str, names: list[str], region: str | None
) -> Figure:
    scores, place = overall(scores), {"region": region or main_region(scores), "channel": channel}
    values = scores[metric].sel(place)
    skill = 100 * (1 - values / values.sel(forecast=reference, drop=True)).sel(forecast=names)
    figure, axes = panel()
    with style():
        pair, opacity = place | {"reference": reference}, min(_OPACITY, _ALL / max(1, len(names)))
        ends = [end for name in names for end in _shade(axes, scores, metric, pair, name, opacity)]
        draw_curves(axes, scores, skill)
        shown = np.concatenate([skill.values.ravel(), *(np.maximum(end, _LOWEST) for end in ends)])
        low, high = float(np.nanmin(shown, initial=0)), float(np.nanmax(shown, initial=0))
        axes.set_ylim(min(-LEAST_SKILL, 1.1 * low), min(100, max(LEAST_SKILL, 1.1 * high)))
        note_level(axes, 0.0, f"0: as good as {in_words(reference)}", below=True)
        axes.set_ylabel({"rmse": "RMSE skill [%]", "crps_fair": "Fair CRPS skill [%]"}[metric])
        finish(axes, scores, f"{channel}: {name_in_words(channel)}")
    return figure


def _shade(
    axes: Axes, scores: xr.Dataset, metric: str, place: dict[str, str], name: str, opacity: float
) -> list[np.ndarray]:
    """Shade the interval of one forecast; its ends in per cent, none where it has none."""
    if f"{metric}_skill_low" not in scores or place["reference"] not in scores["reference"].values:
        return []
    pair = place | {"forecast": name}
    low, high = (100 * scores[f"{metric}_skill_{end}"].sel(pair).values for end in ("low", "high"))
    if not np.isfinite(low).any():
        return []
    leads = np.asarray(lead_hours(scores)) / lead_unit(scores)[0]
    axes.fill_between(leads, low, high, color=line_look(name, scores)["color"], alpha=opacity, linewidth=0)
    if len(leads) == 1:  # no area between the ends of one
        axes.vlines(leads, low, high, color=line_look(name, scores)["color"], alpha=0.5)
    return [low, high]
