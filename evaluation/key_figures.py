"""What a page says first: skill against the baselines, the headline sentence and the table of key figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10

import xarray as xr

from weatherfm.evaluation.baselines import BASELINES
from weatherfm.evaluation.display import name_in_words, pretty_units
from weatherfm.evaluation.scores import lead_hours

_PREFERRED_LEADS = (24, 72, 120, 240)
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
    """(RMSE, skill) of each baseline scored."""
    acc: str
    mae: str
    bias: str


def models_of(scores: xr.Dataset) -> list[str]:
    """Forecasts that are no baseline; the first is the one the page is about."""
    return [str(name) for name in scores["forecast"].values if name not in BASELINES]


def baselines_of(scores: xr.Dataset) -> list[str]:
    """Baselines that were scored."""
    return [name for name in BASELINES if name in scores["forecast"].values]


def main_region(scores: xr.Dataset) -> str:
    """The whole globe or area where scored, else the first region."""
    regions = [str(name) for name in scores["region"].values]
    return next((name for name in ("global", "area") if name in regions), regions[0])


def region_in_words(region: str) -> str:
    """`northern_extratropics` is `northern extratropics`."""
    return "whole area" if region == "area" else region.replace("_", " ")


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


def skill(scores: xr.Dataset, model: str, baseline: str) -> xr.DataArray:
    """Percentage by which the model's RMSE is below the baseline's, dims (region, lead_time, channel).

    0 is as bad as the baseline, 100 perfect, negative worse; NaN where the baseline has no error.
    """
    reference = scores["rmse"].sel(forecast=baseline, drop=True)
    own = scores["rmse"].sel(forecast=model, drop=True)
    return 100 * (1 - own / reference.where(reference > 0))


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
    """Two plain sentences: the error of one channel against the baselines, and how many channels beat both."""
    model, region, lead = models_of(scores)[0], main_region(scores), headline_lead(scores)
    here = scores.sel(region=region).isel(lead_time=lead_hours(scores).index(lead))
    rmse = here["rmse"].sel(channel=channel)
    units = pretty_units(str(rmse["units"].values))
    parts = []
    for baseline in baselines_of(scores):
        reference = float(rmse.sel(forecast=baseline))
        if reference > 0:
            share = 100 * (1 - float(rmse.sel(forecast=model)) / reference)
            parts.append(f"{_side(share)} {baseline} ({number(reference)})")
    where = "" if region in ("global", "area") else f" in the {region_in_words(region)}"
    whose = "the model’s" if model == "model" else f"{model}’s"
    own = f"{number(float(rmse.sel(forecast=model)))} {units}".removesuffix(" 1")
    first = f"At {lead} h {whose} {channel} RMSE{where} is {own}" + (": " + " and ".join(parts) if parts else "")
    return [f"{first}.", *_beaten(scores, model, here, lead)]


def key_rows(scores: xr.Dataset, channels: Sequence[str]) -> list[KeyRow]:
    """Lines of the table of key figures in the main region: every model, channel and key lead time."""
    region, hours = main_region(scores), lead_hours(scores)
    rows = []
    for channel in channels:
        for lead in key_leads(scores):
            here = scores.sel(region=region, channel=channel).isel(lead_time=hours.index(lead))
            rows += [_key_row(scores, here, channel, lead, model) for model in models_of(scores)]
    return rows


def _key_row(scores: xr.Dataset, here: xr.Dataset, channel: str, lead: int, model: str) -> KeyRow:
    def value(metric: str, name: str = model) -> float:
        return float(here[metric].sel(forecast=name))

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
    )


def _beaten(scores: xr.Dataset, model: str, here: xr.Dataset, lead: int) -> list[str]:
    names = baselines_of(scores)
    count = scores.sizes["channel"]
    if not names or count < 2:
        return []
    own = here["rmse"].sel(forecast=model, drop=True)
    better = (own < here["rmse"].sel(forecast=names)).all("forecast").values.sum()
    share = f"all {count}" if better == count else f"{better} of {count}"
    return [f"In RMSE it beats {' and '.join(names)} on {share} channels at {lead} h."]


def _side(share: float) -> str:
    if abs(share) < 0.5:
        return "level with"
    return f"{abs(share):.0f} % {'below' if share > 0 else 'above'}"


def _signed(value: float, form: str) -> str:
    """With a true minus sign, and none before a zero."""
    text = f"{value:{form}}"
    return text.replace("-", "−" if any(digit in text for digit in "123456789") else "")
