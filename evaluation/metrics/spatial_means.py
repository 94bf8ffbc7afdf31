"""Weighted means over the points of regions, in pieces that stay in the processor's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

_COLUMNS = 2048
"""Grid points worked on together: their weights in all regions and a few rows of fields fit the cache."""
_VALUES = 2**17
"""Values of one field worked on together: with fewer, threads wait for each other between calls (half as fast)."""


def spatial_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[n, R]: weighted means of values [n, X] float64; each row of weights [R, X] sums to 1."""
    return values @ weights.T


def pointwise_means(
    statistics: Callable[[Sequence[np.ndarray], np.ndarray], None],
    names: Sequence[str],
    fields: Sequence[np.ndarray],
    weights: np.ndarray,
) -> dict[str, np.ndarray]:
    """Spatial means of statistics that need each point alone.

    Args:
        statistics: of a piece of every field [rows, points] writes all statistics [statistic, rows, points] float64.
        names: of the statistics, in its order.
        fields: [B, C, H, W] each.
        weights: [R, X], rows sum to 1.

    Returns:
        Statistic -> [B, R, C] float64.
    """
    cases, channels = fields[0].shape[:2]
    rows = [field.reshape(cases * channels, -1) for field in fields]
    means = np.zeros((len(names), cases * channels, len(weights)))
    buffer = np.empty(len(names) * _VALUES)
    for part, columns in _pieces(*rows[0].shape):
        shape = (len(names), part.stop - part.start, columns.stop - columns.start)
        values = buffer[: shape[0] * shape[1] * shape[2]].reshape(shape)
        statistics([row[part, columns] for row in rows], values)
        flat = values.reshape(-1, shape[2])
        means[:, part] += spatial_means(flat, weights[:, columns]).reshape(*shape[:2], -1)
    by_case = means.reshape(len(names), cases, channels, -1).swapaxes(2, 3)
    return dict(zip(names, by_case, strict=True))


def _pieces(n_rows: int, n_points: int) -> Iterator[tuple[slice, slice]]:
    """All rows of one run of points before the next run: weights are fetched once."""
    width = min(n_points, _COLUMNS)
    height = max(1, _VALUES // width)
    for column in range(0, n_points, width):
        for row in range(0, n_rows, height):
            yield slice(row, min(row + height, n_rows)), slice(column, min(column + width, n_points))
