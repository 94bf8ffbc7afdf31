"""SEEPS, the stable equitable error in probability space of precipitation.

Rodwell, Richardson, Hewson and Haiden (2010), doi:10.1002/qj.656. A place and month has a probability p1 of being dry;
of the wet cases the climatologically lower two thirds are light (p2 = 2 p3), the upper third heavy (p3 = (1 - p1) / 3).
The error of a case (their eq. 15; rows: forecast dry, light, heavy; columns: truth) is

                |  0                      1 / (1 - p1)   1 / p3 + 1 / (1 - p1) |
    1/2 times   |  1 / p1                 0              1 / p3                |
                |  1 / p1 + 1 / (1 - p3)  1 / (1 - p3)   0                     |

which is one error for the wrong side of dry and one for the wrong side of heavy, added up. 0 is perfect; a forecast of
always the same category, or of random ones, has 1 in the long run. Places where p1 is not within 0.1 .. 0.85, hardly
ever dry or hardly ever wet, are left out, as there. The mean is over the area and cases of the other places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from weatherfm.evaluation.metrics.spatial_means import spatial_means

LEAST_DRY, MOST_DRY = 0.1, 0.85
"""Probability of dry weather within which a place is scored (Rodwell et al. 2010)."""
_VALUES = 2**14
"""Values worked on together."""


@dataclass(frozen=True, eq=False)
class SeepsClimatology:
    """Precipitation over `accumulation_hours`, for every month (January first) and grid point."""

    dry_probability: np.ndarray
    """[month, lat, lon] float64 share of dry cases; NaN where there were too few wet ones to learn from."""
    heavy_threshold: np.ndarray
    """[month, lat, lon] float32 m: more than this is heavy; NaN as above."""
    dry_threshold: float
    """m: up to this it is dry."""
    accumulation_hours: int

    def scored(self) -> np.ndarray:
        """[month, lat, lon] bool: where SEEPS is defined."""
        return (self.dry_probability >= LEAST_DRY) & (self.dry_probability <= MOST_DRY)


def seeps_means(
    forecast: np.ndarray, truth: np.ndarray, months: np.ndarray, climatology: SeepsClimatology, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Sums over the scored points of every case.

    A value that is not finite at a scored point makes the sums of its case NaN: check before.

    Args:
        forecast: [B, H, W] precipitation in m, over the same hours as the climatology.
        truth: at the valid time.
        months: [B] 1 .. 12 of the valid time.
        climatology: of the training days.
        weights: [R, X], rows sum to 1.

    Returns:
        `seeps_sum` and `seeps_weight` [B, R] float64: weighted errors, and the share of the region that is scored.
    """
    fields = [np.asarray(field).reshape(len(forecast), -1) for field in (forecast, truth)]
    shape = (len(forecast), len(weights))
    means = {"seeps_sum": np.zeros(shape), "seeps_weight": np.zeros(shape)}
    for month in np.unique(months):
        cases = np.flatnonzero(months == month)
        dry_share = climatology.dry_probability[month - 1].ravel()
        heavy_from = climatology.heavy_threshold[month - 1].ravel()
        scored = (dry_share >= LEAST_DRY) & (dry_share <= MOST_DRY)
        means["seeps_weight"][cases] = weights[:, scored].sum(1)
        for points in _pieces(np.flatnonzero(scored)):
            some = weights[:, points]
            for part in _pieces(cases, max(1, _VALUES // len(points))):
                given, true = (field[part[:, None], points] for field in fields)
                errors = _errors(given, true, dry_share[points], climatology.dry_threshold, heavy_from[points])
                means["seeps_sum"][part] += spatial_means(errors, some)
    return means


def seeps_metrics(mean: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`seeps` of sums or means over cases (any dims); NaN where no point was scored."""
    above, below = mean["seeps_sum"], mean["seeps_weight"]
    return {"seeps": np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)}


def _errors(
    forecast: np.ndarray, truth: np.ndarray, dry_share: np.ndarray, dry_until: float, heavy_from: np.ndarray
) -> np.ndarray:
    """[B, points] float64; a value on a threshold belongs to the category below it."""
    p1 = dry_share.astype(np.float64)
    p3 = (1 - p1) / 3
    wet, truth_wet = forecast > dry_until, truth > dry_until
    heavy, truth_heavy = forecast > heavy_from, truth > heavy_from
    errors = np.where(wet == truth_wet, 0.0, np.where(truth_wet, 0.5 / (1 - p1), 0.5 / p1))
    errors += np.where(heavy == truth_heavy, 0.0, np.where(truth_heavy, 0.5 / p3, 0.5 / (1 - p3)))
    errors[~(np.isfinite(forecast) & np.isfinite(truth))] = np.nan  # comparisons with NaN are false and would be dry
    return errors


def _pieces(positions: np.ndarray, size: int = _VALUES) -> Iterator[np.ndarray]:
    for start in range(0, len(positions), size):
        yield positions[start : start + size]
