"""Every statistic of one forecast at one lead time: which families of metrics apply, called in one place."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from weatherfm.evaluation.metrics.deterministic import deterministic_means
from weatherfm.evaluation.metrics.ensemble import ensemble_means
from weatherfm.evaluation.metrics.events import Event, event_means
from weatherfm.evaluation.metrics.gaussian import Gaussian, gaussian_event_means, gaussian_means
from weatherfm.evaluation.metrics.seeps import SeepsClimatology, seeps_means
from weatherfm.evaluation.metrics.spectra import Coefficients, SpectraTransforms, spectra_means

STATISTIC_DIMS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            *("error", "absolute_error", "squared_error"),
            *("forecast_anomaly_squared", "truth_anomaly_squared", "anomaly_product"),
            *("forecast_mean_anomaly_squared", "truth_mean_anomaly_squared", "mean_anomaly_product"),
            *("crps_skill", "crps_spread", "ensemble_variance", "ensemble_mean_squared_error"),
        ),
        ("region", "channel"),
    ),
    "rank_counts": ("region", "channel", "rank"),
    **dict.fromkeys(("brier", "brier_climatology"), ("region", "event")),
    **dict.fromkeys(("seeps_sum", "seeps_weight"), ("region",)),
    **dict.fromkeys(("zonal_forecast", "zonal_truth", "zonal_error"), ("channel", "band", "wavenumber")),
    **dict.fromkeys(("spherical_forecast", "spherical_truth", "spherical_error"), ("channel", "total_wavenumber")),
}
"""Dims of every statistic's means after the case's."""


@dataclass(frozen=True)
class Wanted:
    """What is scored beside the deterministic metrics, for one group of channels; travels to other processes."""

    channels: tuple[str, ...]
    weights: np.ndarray
    """[R, X], rows sum to 1; 0 at points of the channels' mask, NaN where a region has no other."""
    events: tuple[Event, ...] = ()
    spectra: SpectraTransforms | None = None
    seeps: SeepsClimatology | None = None
    without_spectra: frozenset[str] = field(default_factory=frozenset)
    """Forecasts whose spectra tell nothing."""
    masked: bool = False
    """The channels have a mask: fields with holes have no spectra."""

    @property
    def precipitation(self) -> int | None:
        """Position of `tp`, where SEEPS is wanted."""
        return self.channels.index("tp") if self.seeps is not None else None


def case_means(
    name: str,
    fields: np.ndarray | Gaussian,
    truth: np.ndarray,
    climatology: np.ndarray,
    months: np.ndarray,
    wanted: Wanted,
    waves: Coefficients | None = None,
) -> dict[str, np.ndarray]:
    """Statistic -> [B, ...] of one forecast.

    Args:
        name: of the forecast.
        fields: [B, C, H, W], or [B, M, C, H, W] of an ensemble, or a distribution: their mean has the deterministic
            metrics.
        truth: [B, C, H, W], as climatology, at the valid time.
        climatology: normal state.
        months: [B] 1 .. 12, of the valid time.
        wanted: what is asked for.
        waves: the truth's, of which spectra are made where they are wanted; without it, there are none.
    """
    single = mean_field(fields)
    means = deterministic_means(single, truth, wanted.weights, climatology)
    means |= _of_the_spread(fields, truth, wanted)
    if wanted.seeps is not None and (at := wanted.precipitation) is not None:
        means |= seeps_means(single[:, at], truth[:, at], months, wanted.seeps, wanted.weights)
    shown = wanted.spectra if waves is not None and name not in wanted.without_spectra else None
    if shown is not None and waves is not None and not isinstance(fields, Gaussian):
        spectra = _spectra(fields, waves, shown)
        means |= {name: np.full_like(s, np.nan) for name, s in spectra.items()} if wanted.masked else spectra
    return means


def mean_field(fields: np.ndarray | Gaussian) -> np.ndarray:
    """[B, C, H, W]: the forecast itself, the mean of the members in double precision, or that of the distribution."""
    if isinstance(fields, Gaussian):
        return fields.mean
    mean: np.ndarray = fields.mean(1, dtype=np.float64) if fields.ndim == 5 else fields
    return mean


def _of_the_spread(fields: np.ndarray | Gaussian, truth: np.ndarray, wanted: Wanted) -> dict[str, np.ndarray]:
    """What asks for more than the mean: CRPS and the like, and probabilities of events."""
    events = wanted.events, wanted.channels, wanted.weights
    if isinstance(fields, Gaussian):
        means = gaussian_means(fields, truth, wanted.weights)
        return means | (gaussian_event_means(fields, truth, *events) if wanted.events else {})
    means = ensemble_means(fields, truth, wanted.weights) if fields.ndim == 5 else {}
    return means | (event_means(fields, truth, *events) if wanted.events else {})


def _spectra(fields: np.ndarray, truth: Coefficients, transforms: SpectraTransforms) -> dict[str, np.ndarray]:
    """Of an ensemble, the mean over its members' spectra: the spectrum of its mean would be that of a blurred field."""
    if fields.ndim == 4:
        return spectra_means(fields, truth, transforms)
    members = [spectra_means(fields[:, m], truth, transforms) for m in range(fields.shape[1])]
    return {name: np.mean([member[name] for member in members], axis=0) for name in members[0]}
