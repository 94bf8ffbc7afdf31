"""What a page says first: skill against the baselines, the headline sentence and the table of key figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import xarray as xr

from weatherfm.evaluation.results.lookup import (
    baselines_of,
    ensembles_of,
    lead_hours,
    main_region,
    models_of,
    overall,
    probabilistic_baselines_of,
)
from weatherfm.evaluation.results.words import (
    fixed,
    in_words,
    listed,
    metric_in_words,
    name_in_words,
    number,
    percent,
    pretty_units,
    region_in_words,
)
from weatherfm.evaluation.significance.p_values import FEWEST

SIGNIFICANT = 0.05
"""Below this p-value a difference is called significant."""
_PREFERRED_LEADS = (24, 72, 120, 240)


@dataclass(frozen=True)
class KeyRow:
    """One line of the table: scores of one channel at one lead time, as text."""

    channel: str
    words: str
    units: str
    lead: str
    forecast: str
    rmse: str
    baselines: tuple[tuple[str, str], ...]
    """(RMSE, skill) of each single-valued baseline scored."""
    acc: str
    mae: str
    bias: str
    activity: str
    """Ratio of the forecast's activity to the truth's; of an ensemble, of its members'."""
    crps: str
    """Fair CRPS of ensembles."""
    crps_skills: tuple[str, ...]
    """Of fair CRPS against each probabilistic baseline."""
    spread: str
    """Spread-skill ratio of ensembles."""


def too_few_to_say(scores: xr.Dataset) -> str:
    """That the cases are too few for a test, in words; nothing where they are not, or where none was wanted."""
    cases = scores.sizes["init_time"]
    if cases >= FEWEST or "rmse_p_value" not in scores or scores["rmse_p_value"].notnull().any():
        return ""
    return f"{cases} case{'s are' if cases > 1 else ' is'} too few to say whether that is chance ({FEWEST} would do)"


def key_leads(scores: xr.Dataset, most: int = 4) -> list[int]:
    """The lead times (hours) worth a line: 1, 3, 5 and 10 days where scored, else some spread evenly."""
    hours = lead_hours(scores)
    preferred = [lead for lead in _PREFERRED_LEADS if lead in hours]
    if len(hours) <= most or not preferred:
        step = max(1, -(-len(hours) // most))
        return hours[::step]
    return preferred[:most]


def headline_lead(scores: xr.Dataset) -> int:
    """The lead time (hours) of the headline: one day where scored, else the first."""
    hours = lead_hours(scores)
    return 24 if 24 in hours else hours[0]


def skill(scores: xr.Dataset, model: str, reference: str, metric: str = "rmse") -> xr.DataArray:
    """Percentage by which the model's error is below the reference's, dims (region, lead_time, channel).

    0 is as bad as the reference, 100 perfect, negative worse; NaN where the reference has no error. The metric is
    `rmse` or `crps_fair`, or another that is better when lower.
    """
    values = overall(scores)[metric]
    own, other = (values.sel(forecast=name, drop=True) for name in (model, reference))
    return 100 * (1 - own / other.where(other > 0))


def headline(scores: xr.Dataset, channel: str) -> list[str]:
    """Plain sentences: one channel's error against the baselines, an ensemble's CRPS, how many channels beat all."""
    scores = overall(scores)
    model, region, lead = models_of(scores)[0], main_region(scores), headline_lead(scores)
    here = scores.sel(region=region).isel(lead_time=lead_hours(scores).index(lead))
    rmse = here["rmse"].sel(channel=channel)
    units = pretty_units(str(rmse["units"].values))
    parts = []
    for baseline in baselines_of(scores):
        reference = float(rmse.sel(forecast=baseline))
        if reference > 0:
            share = _share(float(rmse.sel(forecast=model)), reference)
            parts.append(f"{_side(share)} {in_words(baseline)} ({number(reference)})")
    where = "" if region in ("global", "area") else f" in the {region_in_words(region)}"
    whose = "the model’s" if model == "model" else f"{model}’s"
    own = f"{number(float(rmse.sel(forecast=model)))} {units}".removesuffix(" 1")
    first = f"At {lead} h {whose} {channel} RMSE{where} is {own}" + (f": {listed(parts)}" if parts else "")
    return [
        f"{first}.",
        *_of_the_ensemble(scores, here.sel(channel=channel), model),
        *_beaten(scores, model, here, lead),
        *(_beaten(scores, model, here, lead, "crps_fair") if model in ensembles_of(scores) else []),
    ]


def _of_the_ensemble(scores: xr.Dataset, here: xr.Dataset, model: str) -> list[str]:
    """A sentence about the CRPS of an ensemble, where there is something to hold it against."""
    names = probabilistic_baselines_of(scores)
    if model not in ensembles_of(scores) or not names:
        return []
    crps = {name: float(here["crps_fair"].sel(forecast=name)) for name in (model, *names)}
    parts = [f"{_side(_share(crps[model], crps[name]))} {in_words(name)} ({number(crps[name])})" for name in names]
    return [f"Its fair CRPS, as of an ensemble without end, is {number(crps[model])}: {listed(parts)}."]


def key_rows(scores: xr.Dataset, channels: Sequence[str]) -> list[KeyRow]:
    """Lines of the table of key figures in the main region: every model, channel and key lead time."""
    scores = overall(scores)
    region, hours = main_region(scores), lead_hours(scores)
    rows = []
    for channel in channels:
        for lead in key_leads(scores):
            here = scores.sel(region=region, channel=channel).isel(lead_time=hours.index(lead))
            rows += [_key_row(scores, here, channel, lead, model) for model in models_of(scores)]
    return rows


def _key_row(scores: xr.Dataset, here: xr.Dataset, channel: str, lead: int, model: str) -> KeyRow:
    def value(metric: str, name: str = model) -> float:
        return float(here[metric].sel(forecast=name)) if metric in here else float("nan")

    own = value("rmse")
    crps = [value("crps_fair", name) for name in probabilistic_baselines_of(scores)]
    skills = [percent(_share(value("crps_fair"), reference)) for reference in crps]
    baselines = []
    for name in baselines_of(scores):
        reference = value("rmse", name)
        baselines.append((number(reference), percent(_share(own, reference))))
    return KeyRow(
        channel,
        name_in_words(channel),
        pretty_units(str(here["units"].values)),
        f"{lead} h",
        model,
        number(own),
        tuple(baselines),
        fixed(value("acc"), 3),
        number(value("mae")),
        number(value("bias")),
        number(value("member_activity_ratio") if isfinite(value("member_activity_ratio")) else value("activity_ratio")),
        number(value("crps_fair")),
        tuple(skills),
        number(value("spread_skill_ratio")),
    )


def _beaten(scores: xr.Dataset, model: str, here: xr.Dataset, lead: int, metric: str = "rmse") -> list[str]:
    """On how many channels every baseline is beaten: by RMSE those with a forecast, by fair CRPS those with chances."""
    names = baselines_of(scores) if metric == "rmse" else probabilistic_baselines_of(scores)
    count = scores.sizes["channel"]
    if not names or count < 2:
        return []
    own = here[metric].sel(forecast=model, drop=True)
    better = (own < here[metric].sel(forecast=names)).all("forecast")
    n_better = int(better.values.sum())
    share = f"all {count}" if n_better == count else f"{n_better} of {count}"
    sure = _n_sure(here, model, names, better, f"{metric}_p_value")
    proven = "" if sure is None or not n_better else f", on {'each' if sure == count else sure} of them significantly"
    if few := too_few_to_say(scores):
        proven = f"; {few}"
    what = metric_in_words(metric) if metric == "rmse" else "fair CRPS"
    return [f"In {what} it beats {listed([in_words(name) for name in names])} on {share} channels at {lead} h{proven}."]


def _n_sure(here: xr.Dataset, model: str, names: Sequence[str], better: xr.DataArray, tested: str) -> int | None:
    """How many channels beat every baseline significantly; None where that was not tested."""
    if tested not in here:
        return None
    p_values = here[tested].sel(forecast=model, reference=list(names))
    if not isfinite(float(p_values.min())):
        return None
    return int((better & (p_values < SIGNIFICANT).all("reference")).values.sum())


def _share(own: float, reference: float) -> float:
    """Percentage by which an error is below the reference's."""
    return 100 * (1 - own / reference) if reference > 0 else float("nan")


def _side(share: float) -> str:
    if abs(share) < 0.5:
        return "level with"
    return f"{abs(share):.0f} % {'below' if share > 0 else 'above'}"
