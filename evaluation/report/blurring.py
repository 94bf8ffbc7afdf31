"""Which scales a forecast blurs, in one sentence."""

from __future__ import annotations

import numpy as np
import xarray as xr

from weatherfm.earth.grid import Grid
from weatherfm.evaluation.metrics.spectra import energy_ratio
from weatherfm.evaluation.metrics.spherical_spectra import spherical_wavelengths
from weatherfm.evaluation.metrics.zonal_spectra import zonal_wavelengths
from weatherfm.evaluation.results.key_figures import headline_lead
from weatherfm.evaluation.results.lookup import lead_hours, means_of, models_of
from weatherfm.evaluation.results.words import in_words

KEPT = 0.5
"""Share of the truth's energy below which a scale is called blurred."""


def blurring_sentences(scores: xr.Dataset, channel: str) -> list[str]:
    """A sentence a forecast at the headline's lead time: down to which wavelength it has half of the truth's energy."""
    kind = next((kind for kind in ("spherical", "zonal") if f"{kind}_spectrum" in scores), None)
    if kind is None:
        return []
    lead = headline_lead(scores)
    here = scores.sel(channel=channel).isel(lead_time=lead_hours(scores).index(lead))
    if kind == "spherical":
        wavelengths, where = spherical_wavelengths(scores["total_wavenumber"].values), ""
    else:
        band = str(scores["band"].values[0])
        here = here.sel(band=band)
        grid = Grid(scores["latitude"].values, scores["longitude"].values)
        wavelengths, where = zonal_wavelengths(grid, band), f" ({band.replace('_', ' ')})"
    truth = here[f"{kind}_spectrum_truth"].values
    sentences = []
    for model in (*models_of(scores), *means_of(scores)):
        power = here[f"{kind}_spectrum"].sel(forecast=model).values
        if np.isfinite(power).any():
            ratio = energy_ratio(power, truth)
            sentences.append(
                f"{in_words(model)}, {channel} at {lead} h{where}: {_sentence(ratio[1:], wavelengths[1:])}"
            )
    return sentences


def blurred_below(ratio: np.ndarray, wavelengths: np.ndarray) -> float | None:
    """The wavelength (km) below which a forecast has less than half of the truth's energy; None where it has nowhere.

    Args:
        ratio: [wavenumber] energy of forecast over truth, long waves first.
        wavelengths: [wavenumber] km.
    """
    poor = ~(ratio >= KEPT) & np.isfinite(ratio)
    return float(wavelengths[int(np.argmax(poor))]) if poor.any() else None


def _sentence(ratio: np.ndarray, wavelengths: np.ndarray) -> str:
    limit = blurred_below(ratio, wavelengths)
    if limit is None:
        return f"no scale down to {_km(wavelengths[-1])} has less than half of the weather’s energy."
    return f"waves of {_km(limit)} and shorter have less than half of the weather’s energy: they are blurred."


def _km(wavelength: float) -> str:
    return f"{float(f'{wavelength:.2g}'):,.0f} km".replace(",", "\u202f")
