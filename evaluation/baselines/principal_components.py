"""Leading principal components of the anomalies of all channels together: today's weather in a few numbers (numpy).

Anomalies from the climatology are weighted by area and divided by their channel's root mean square: every channel has
the same share of the total variance, which is one. Of n fields of D values the eigenvectors of the smaller of the
matrices n x n (Sirovich 1987, Quarterly of Applied Mathematics 45, 561) and D x D are taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

_VALUES = 2**22
"""Values worked on together in double precision: 32 MB."""
_LEAST = 1e-10
"""Share of the largest variance below which a component is rounding."""


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """What a field of anomalies is multiplied with; picklable."""

    vectors: np.ndarray
    """[component, channel, lat, lon] float32, largest variance first."""
    variance: np.ndarray
    """[component] float64: mean square on the days that they were found on; of all there are it sums to one."""

    @property
    def share(self) -> float:
        """Of the total variance, on these days."""
        return float(self.variance.sum())

    def of(self, anomalies: np.ndarray) -> np.ndarray:
        """[n, component] float64 of anomalies [n, channel, lat, lon] in physical units."""
        flat = anomalies.reshape(len(anomalies), -1)
        return np.matmul(flat, self.vectors.reshape(len(self.vectors), -1).T).astype(np.float64)


def principal_components(anomalies: np.ndarray, area: np.ndarray, most: int) -> PrincipalComponents:
    """Find them.

    Args:
        anomalies: [n, channel, lat, lon] float32 in physical units, finite; overwritten.
        area: [lat, lon] weights of the grid cells, mean 1.
        most: components at most, 1 or more; fewer where there are no more, and one of zeros where nothing varies.
    """
    count = len(anomalies)
    squares = np.stack([(np.square(field, dtype=np.float64) * area).mean((1, 2)) for field in anomalies]).mean(0)
    size = np.sqrt(squares * anomalies[0].size)  # [channel]: the total variance is one
    scale = np.sqrt(area) / np.where(size > 0, size, 1)[:, None, None]
    anomalies *= scale.astype(np.float32)
    flat = anomalies.reshape(count, -1)
    snapshots = count <= flat.shape[1]
    matrix = _products(flat if snapshots else flat.T) / count
    largest = (max(0, len(matrix) - most), len(matrix) - 1)
    variance, axes = (found[..., ::-1] for found in eigh(matrix, subset_by_index=largest))
    if not variance[0] > 0:
        return PrincipalComponents(np.zeros((1, *anomalies.shape[1:]), np.float32), np.zeros(1))
    kept = variance > _LEAST * float(variance[0])
    variance, axes = variance[kept], axes[:, kept]
    if snapshots:
        axes = axes / np.sqrt(variance * count)
        vectors = np.stack([axis.astype(np.float32) @ flat for axis in axes.T])
    else:
        vectors = axes.T
    vectors = vectors.reshape(-1, *scale.shape) * scale
    return PrincipalComponents(vectors.astype(np.float32), variance)


def _products(rows: np.ndarray) -> np.ndarray:
    """[n, n] float64: of every two rows [n, D] their inner product, in pieces of columns."""
    total = np.zeros((len(rows), len(rows)))
    width = max(1, _VALUES // len(rows))
    for first in range(0, rows.shape[1], width):
        piece = rows[:, first : first + width].astype(np.float64)
        total += piece @ piece.T
    return total
