"""At which scales a forecast has too little or too much of the weather's energy, in words."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import xarray as xr

from weatherfm.evaluation.results.key_figures import headline_lead, key_leads
from weatherfm.evaluation.results.lookup import means_of, models_of
from weatherfm.evaluation.results.scales import (
    MOST,
    ScaleRun,
    effective_resolution,
    kind_of_spectra,
    scales_of,
)
from weatherfm.evaluation.results.words import in_words, number, pretty_units


def scale_sentences(scores: xr.Dataset, channel: str) -> list[str]:
    """A sentence or some a forecast at the headline's lead time: what is blurred, what is noise, what is right."""
    lead = headline_lead(scores)
    where = ""
    if kind_of_spectra(scores) == "zonal":
        where = f" ({str(scores['band'].values[0]).replace('_', ' ')})"
    units = pretty_units(str(scores["units"].sel(channel=channel).values))
    found = {name: scales_of(scores, name, channel, lead) for name in (*models_of(scores), *means_of(scores))}
    return [
        f"{in_words(name)}, {channel} at {lead} h{where}: {runs_in_words(runs, units)}"
        for name, runs in found.items()
        if runs
    ]


def runs_in_words(runs: Sequence[ScaleRun], units: str = "1") -> str:
    """`waves of 2 000 to 1 300 km have up to 36 times the weather's energy: noise. ..`."""
    off = [_of_run(run) for run in runs if run.verdict in ("blurred", "noisy")]
    judged = [run for run in runs if run.verdict != "unknown"]
    if not judged:
        return "the truth resolves no scale: there is no verdict."
    parts = off or [f"all scales down to {_km(judged[-1].shortest)} have between half and twice the weather’s energy"]
    finest = effective_resolution(list(runs))
    last = f"Effective resolution: {_km(finest)}." if isfinite(finest) else "It has no effective resolution."
    said = f"{'; '.join(parts)}. {last}"
    return said + (_beyond_the_truth(runs[-1], units) if runs[-1].verdict == "unknown" else "")


def resolution_table(scores: xr.Dataset, channels: Sequence[str]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """(forecasts, rows of (channel and lead time, effective resolution of each)); no rows without spectra."""
    names = [*models_of(scores), *means_of(scores)]
    rows = []
    for channel in channels:
        for lead in key_leads(scores):
            runs = [scales_of(scores, name, channel, lead) for name in names]
            if any(runs):
                rows.append((f"{channel}, {lead} h", [_resolution_in_words(one) for one in runs]))
    return [in_words(name) for name in names], rows


def _resolution_in_words(runs: list[ScaleRun]) -> str:
    """With a sign where the truth ends it: the forecast's may be finer."""
    if not runs:
        return "–"
    finest = effective_resolution(runs)
    if not isfinite(finest):
        return "none"
    judged = [run for run in runs if run.verdict != "unknown"]
    return f"{'≤ ' if judged[-1].shortest == finest else ''}{_km(finest)}"


def _beyond_the_truth(run: ScaleRun, units: str) -> str:
    """Waves that the truth has not: their size in the forecast, and no ratio."""
    own, true = (f"{number(size)} {units}".removesuffix(" 1") for size in run.sizes)
    said = f" The truth ends at {_km(run.longest)}, with {true} (root mean square) in shorter waves; the forecast"
    return f"{said} has {own}{': noise' if run.sizes[0] > MOST**0.5 * run.sizes[1] else ''}."


def _of_run(run: ScaleRun) -> str:
    one = f"{run.longest:.2g}" == f"{run.shortest:.2g}"
    waves = f"waves of {_km(run.longest)}" if one else f"waves of {_number(run.longest)} to {_km(run.shortest)}"
    if run.verdict == "noisy":
        return f"{waves} have up to {number(run.ratio)} times the weather’s energy: noise, no detail"
    return f"{waves} have as little as {number(run.ratio)} of the weather’s energy: blurred"


def _km(wavelength: float) -> str:
    return f"{_number(wavelength)} km"


def _number(wavelength: float) -> str:
    return f"{float(f'{wavelength:.2g}'):,.0f}".replace(",", "\u202f")
