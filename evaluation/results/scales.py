"""At which scales a forecast has the weather's energy, too little of it or too much, and where the truth has none.

The verdict on a scale is that of the forecast's power over the truth's, both summed over neighbouring wavenumbers (one
on either side, a fifth of the wavenumber where that is more), so that one odd wavenumber does not decide.

**Effective resolution** is the wavelength down to which the ratio stays within [1/2, 2], from the longest waves on: in
the sense of Skamarock (2004, Monthly Weather Review 132, 3019), where a model's spectrum leaves that of the atmosphere.
The factor of two is a choice; leaving upwards, by noise, counts as leaving downwards, by blurring, does.

Legend: K wavenumber.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from math import ceil, floor
from typing import Literal

import numpy as np
import xarray as xr

from weatherfm.earth.grid import Grid
from weatherfm.evaluation.metrics.spherical_spectra import spherical_wavelengths
from weatherfm.evaluation.metrics.zonal_spectra import zonal_wavelengths
from weatherfm.evaluation.results.lookup import lead_hours

LEAST, MOST = 0.5, 2.0
"""Forecast's over truth's power between which a scale counts as kept."""
_STEEPEST = 14
"""Power of the wavenumber with which the truth's may fall: weather's falls by 3 to 5, damped models' by some 10; by
more only where fields end, as those of a spectral model at its truncation."""
_FIRST_FALL = 8
"""Wavenumber below which the shape of the mean flow decides."""
_ROUNDING = 2.0**-48
"""Share of the mean square that float32 fields have in rounding: less power in one wavenumber is none."""

Verdict = Literal["kept", "blurred", "noisy", "unknown"]


@dataclass(frozen=True)
class ScaleRun:
    """Neighbouring wavenumbers with one verdict."""

    verdict: Verdict
    """`unknown`: beyond what the truth resolves."""
    longest: float
    """km."""
    shortest: float
    """km."""
    ratio: float
    """Power, forecast over truth, farthest from 1; NaN where unknown."""
    sizes: tuple[float, float]
    """Root mean square of these waves in the forecast and in the truth, units of the channel."""


def resolved(truth: np.ndarray) -> np.ndarray:
    """[K] bool: where the truth itself has waves; `truth` [K] its power from wavenumber 0 on.

    Not where its power is that of rounding, nor from the first wavenumber l on behind which it falls more steeply than
    weather's does: from the geometric mean of 0.7 .. 0.9 l to that of l .. 1.2 l.
    """
    known: np.ndarray = truth > _ROUNDING * truth.sum()
    there = np.flatnonzero(known)
    logs, waves = np.log(np.where(known, truth, 1.0)), np.log(np.maximum(np.arange(len(truth)), 1))
    for wave in there[there >= _FIRST_FALL]:
        before = there[(there >= floor(0.7 * wave)) & (there < ceil(0.9 * wave))]
        behind = there[(there >= wave) & (there <= 1.2 * wave)]
        if not len(before):
            continue
        fall = logs[before].mean() - logs[behind].mean()
        if fall > _STEEPEST * (waves[behind].mean() - waves[before].mean()):
            known[wave:] = False
            break
    return known


def near_ratio(power: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """[K] forecast's over truth's power around each wavenumber that the truth resolves; NaN at 0 and elsewhere."""
    known = resolved(truth)
    known[0] = False
    own, other = (np.concatenate([[0.0], np.cumsum(np.where(known, x, 0.0))]) for x in (power, truth))
    waves = np.arange(len(truth))
    reach = np.maximum(1, np.rint(waves / 5).astype(int))
    first, last = np.maximum(waves - reach, 1), np.minimum(waves + reach + 1, len(truth))
    ratio = np.full(len(truth), np.nan)
    np.divide(own[last] - own[first], other[last] - other[first], out=ratio, where=known)
    return ratio


def scale_runs(power: np.ndarray, truth: np.ndarray, wavelengths: np.ndarray) -> list[ScaleRun]:
    """Verdicts from the longest waves to the shortest.

    Args:
        power: [K] of the forecast, from wavenumber 0 on.
        truth: [K] of the truth.
        wavelengths: [K] km, infinite at 0.
    """
    ratio = near_ratio(power, truth)
    runs = []
    for verdict, group in groupby(range(1, len(ratio)), lambda k: _verdict(float(ratio[k]))):
        waves = list(group)
        inside = ratio[waves]
        farthest = inside[np.abs(np.log(np.maximum(inside, 1e-300))).argmax()] if verdict != "unknown" else np.nan
        sizes = float(np.sqrt(power[waves].sum())), float(np.sqrt(truth[waves].sum()))
        ends = float(wavelengths[waves[0]]), float(wavelengths[waves[-1]])
        runs.append(ScaleRun(verdict, *ends, float(farthest), sizes))
    return runs


def effective_resolution(runs: list[ScaleRun]) -> float:
    """km; NaN where the longest waves already have too little or too much power.

    A truth that resolves no more ends it: then the forecast's may be finer. Odd wavenumbers that it lacks do not.
    """
    judged = [run for run in runs if run.verdict != "unknown"]
    kept = []
    for run in judged:
        if run.verdict != "kept":
            break
        kept.append(run.shortest)
    return kept[-1] if kept else float("nan")


def scales_of(scores: xr.Dataset, forecast: str, channel: str, hours: int) -> list[ScaleRun]:
    """Of one forecast at one lead time (hours): of spherical spectra, else of the first band's zonal ones.

    Empty where the scores hold none of it.
    """
    kind = kind_of_spectra(scores)
    if kind is None:
        return []
    here = scores.sel(channel=channel).isel(lead_time=lead_hours(scores).index(hours))
    if kind == "spherical":
        wavelengths = spherical_wavelengths(scores["total_wavenumber"].values)
    else:
        band = str(scores["band"].values[0])
        here = here.sel(band=band)
        wavelengths = zonal_wavelengths(Grid(scores["latitude"].values, scores["longitude"].values), band)
    power = here[f"{kind}_spectrum"].sel(forecast=forecast).values
    truth = here[f"{kind}_spectrum_truth"].values
    if not (np.isfinite(power).any() and np.isfinite(truth).any()):
        return []
    return scale_runs(power, truth, wavelengths)


def kind_of_spectra(scores: xr.Dataset) -> Literal["spherical", "zonal"] | None:
    """Which spectra the scores hold; spherical ones where they have both."""
    kinds: tuple[Literal["spherical", "zonal"], ...] = ("spherical", "zonal")
    return next((kind for kind in kinds if f"{kind}_spectrum" in scores), None)


def _verdict(ratio: float) -> Verdict:
    if np.isnan(ratio):
        return "unknown"
    if ratio < LEAST:
        return "blurred"
    return "noisy" if ratio > MOST else "kept"
