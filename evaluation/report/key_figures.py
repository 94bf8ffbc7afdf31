"""What a page says first: skill against the baselines, the headline sentence and the table of key figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10

import xarray as xr

from weatherfm.evaluation.figures.display import name_in_words, pretty_units
from weatherfm.evaluation.scores import lead_hours

SIGNIFICANT = 0.05
"""Below this p-value a difference is called significant."""
_PREFERRED_LEADS = (24, 72, 120, 240)
_PROPER = ("north", "europe", "america", "atlantic", "pacific", "east", "asia", "arctic", "antarctic", "alps")
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


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
    """Ratio of the forecast's activity to the truth's."""
    crps: str
    """Of ensembles."""
    spread: str
    """Spread-skill ratio of ensembles."""


def overall(scores: xr.Dataset) -> xr.Dataset:
    """Scores of all cases, whatever the time of the year: without the dim `period`."""
    return scores.sel(period="all", drop=True) if "period" in scores.dims else scores


def models_of(scores: xr.Dataset) -> list[str]:
    """Forecasts that are no baseline; the first is the one the page is about."""
    return _of_kind(scores, "model")


def baselines_of(scores: xr.Dataset, ensembles: bool = False) -> list[str]:
    """Baselines that were scored: those with one forecast, or those that are ensembles."""
    several = dict(zip(map(str, scores["forecast"].values), scores["members"].values > 1, strict=True))
    return [name for name in _of_kind(scores, "baseline") if several[name] == ensembles]


def ensembles_of(scores: xr.Dataset) -> dict[str, int]:
    """Models that are ensembles, with their number of members."""
    members = dict(zip(map(str, scores["forecast"].values), map(int, scores["members"].values), strict=True))
    return {name: members[name] for name in models_of(scores) if members[name] > 1}


def _of_kind(scores: xr.Dataset, kind: str) -> list[str]:
    pairs = zip(scores["forecast"].values, scores["kind"].values, strict=True)
    return [str(name) for name, own in pairs if own == kind]


def in_words(forecast: str) -> str:
    """A forecast's name for the page: `damped_persistence` is `damped persistence`."""
    return forecast.replace("_", " ")


def main_region(scores: xr.Dataset) -> str:
    """The whole globe or area where scored, else the first region."""
    regions = [str(name) for name in scores["region"].values]
    return next((name for name in ("global", "area") if name in regions), regions[0])


def region_in_words(region: str) -> str:
    """`northern_extratropics` is `northern extratropics`, `europe_land` is `Europe land`."""
    if region == "area":
        return "whole area"
    if region.startswith("ausnz"):
        region = region.replace("ausnz", "Australia and New Zealand")
    return " ".join(word.capitalize() if word in _PROPER else word for word in region.split("_"))


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
    `rmse` or `crps`, or another that is better when lower.
    """
    values = overall(scores)[metric]
    own, other = (values.sel(forecast=name, drop=True) for name in (model, reference))
    return 100 * (1 - own / other.where(other > 0))


def number(value: float) -> str:
    """Three significant digits: `1103`, `435`, `1.71`, `8.1 × 10⁻⁵`; a dash for NaN."""
    if not isfinite(value):
        return "–"
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3:
        mantissa, power = f"{value:.1e}".split("e")
        return f"{mantissa.replace('-', '−')} × 10{str(int(power)).translate(_SUPERSCRIPT)}"
    digits = max(0, 2 - floor(log10(size)))
    return _signed(value, f".{digits}f")


def percent(value: float) -> str:
    """`34 %`, `−12 %`; a dash for NaN."""
    return f"{_signed(value, '.0f')} %" if isfinite(value) else "–"


def headline(scores: xr.Dataset, channel: str) -> list[str]:
    """Two plain sentences: the error of one channel against the baselines, and how many channels beat them all."""
    scores = overall(scores)
    model, region, lead = models_of(scores)[0], main_region(scores), headline_lead(scores)
    here = scores.sel(region=region).isel(lead_time=lead_hours(scores).index(lead))
    rmse = here["rmse"].sel(channel=channel)
    units = pretty_units(str(rmse["units"].values))
    parts = []
    for baseline in baselines_of(scores):
        reference = float(rmse.sel(forecast=baseline))
        if reference > 0:
            share = 100 * (1 - float(rmse.sel(forecast=model)) / reference)
            parts.append(f"{_side(share)} {in_words(baseline)} ({number(reference)})")
    where = "" if region in ("global", "area") else f" in the {region_in_words(region)}"
    whose = "the model’s" if model == "model" else f"{model}’s"
    own = f"{number(float(rmse.sel(forecast=model)))} {units}".removesuffix(" 1")
    first = f"At {lead} h {whose} {channel} RMSE{where} is {own}" + (f": {listed(parts)}" if parts else "")
    return [f"{first}.", *_beaten(scores, model, here, lead)]


def listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


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
    baselines = []
    for name in baselines_of(scores):
        reference = value("rmse", name)
        share = 100 * (1 - own / reference) if reference > 0 else float("nan")
        baselines.append((number(reference), percent(share)))
    return KeyRow(
        channel,
        name_in_words(channel),
        pretty_units(str(here["units"].values)),
        f"{lead} h",
        model,
        number(own),
        tuple(baselines),
        f"{value('acc'):.3f}".replace("-", "−") if isfinite(value("acc")) else "–",
        number(value("mae")),
        number(value("bias")),
        number(value("activity_ratio")),
        number(value("crps_fair")),
        number(value("spread_skill_ratio")),
    )


def _beaten(scores: xr.Dataset, model: str, here: xr.Dataset, lead: int) -> list[str]:
    names = baselines_of(scores)
    count = scores.sizes["channel"]
    if not names or count < 2:
        return []
    own = here["rmse"].sel(forecast=model, drop=True)
    better = (own < here["rmse"].sel(forecast=names)).all("forecast")
    n_better = int(better.values.sum())
    share = f"all {count}" if n_better == count else f"{n_better} of {count}"
    sure = _n_sure(here, model, names, better)
    proven = "" if sure is None else f", on {'each' if sure == count else sure} of them significantly"
    return [f"In RMSE it beats {listed([in_words(name) for name in names])} on {share} channels at {lead} h{proven}."]


def _n_sure(here: xr.Dataset, model: str, names: Sequence[str], better: xr.DataArray) -> int | None:
    """How many channels beat every baseline significantly; None where that was not tested."""
    if "rmse_p_value" not in here:
        return None
    p_values = here["rmse_p_value"].sel(forecast=model, reference=list(names))
    if not isfinite(float(p_values.min())):
        return None
    return int((better & (p_values < SIGNIFICANT).all("reference")).values.sum())


def _side(share: float) -> str:
    if abs(share) < 0.5:
        return "level with"
    return f"{abs(share):.0f} % {'below' if share > 0 else 'above'}"


def _signed(value: float, form: str) -> str:
    """With a true minus sign, and none before a zero."""
    text = f"{value:{form}}"
    return text.replace("-", "−" if any(digit in text for digit in "123456789") else "")
