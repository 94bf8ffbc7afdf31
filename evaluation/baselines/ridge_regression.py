"""Ridge regression on the principal components of today's state, with Gaussian errors (numpy only).

The anomaly at lead time L is a linear function of the leading principal components x of the anomalies at the initial
time, and at earlier ones if wanted; at every point and channel b = (X'X + n k I)^-1 X'y over n training days (Hoerl and
Kennard 1970, Technometrics 12, 55), with one k a channel and lead time: the same as ridge regression on the fields
themselves, as far as they are made of these components. Errors are normal, with a standard deviation of each point.

The training days are cut into successive blocks, and every block is forecast from the fit to the others: the k of
least squared error is taken, and the standard deviation is of these errors. Generalised cross-validation and residuals
corrected for the degrees of freedom would take neighbouring days for independent, which they are not, and find too
small a k and too small errors. What errors on held-out days do not know is that climatology and components are of the
same days, for which they are a little too small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.evaluation.baselines.persistence_and_climatology import normals_at, states_at
from weatherfm.evaluation.baselines.ridge_memory import BLOCKS, channels_together
from weatherfm.evaluation.baselines.ridge_predictors import Predictors
from weatherfm.evaluation.metrics.gaussian import Gaussian

_PENALTIES = 10.0 ** np.arange(-7, 0.01, 0.5)
"""k, as a share of the total variance: components of less variance hardly count."""
_READ_BYTES = 16 * 2**20
"""Of fields read at a time."""


@dataclass(frozen=True, eq=False)
class RidgeRegression:
    """Fitted on training days, with the predictors of the cases to score; picklable."""

    lead_times: tuple[int, ...]
    """Hours."""
    init_times: np.ndarray
    """[case] datetime64[s], ascending."""
    predictors: np.ndarray
    """[case, predictor] float32."""
    coefficients: np.ndarray
    """[lead_time, predictor, channel, lat, lon] float32 in physical units."""
    std: np.ndarray
    """[lead_time, channel, lat, lon] float32: of errors on days that were held out."""
    penalties: np.ndarray
    """[lead_time, channel]: the k that was chosen."""
    starts: int
    """Start times that it was fitted on."""

    def forecast(self, init_times: np.ndarray, normal_valid: np.ndarray, lead_index: int) -> Gaussian:
        """The forecast of cases [B].

        Args:
            init_times: [B], some of `init_times`.
            normal_valid: climatology at the valid times [B, channel, lat, lon].
            lead_index: position in `lead_times`.
        """
        now = self.predictors[np.searchsorted(self.init_times, init_times)]
        flat = now @ self.coefficients[lead_index].reshape(now.shape[1], -1)
        return Gaussian(normal_valid + flat.reshape(normal_valid.shape), self.std[lead_index])


def fit_ridge_regression(
    store: Store,
    channels: Sequence[str],
    predictors: Predictors,
    progress: Callable[[int], object] = lambda starts: None,
) -> RidgeRegression:
    """Fit every channel, grid point and lead time on the training days.

    Args:
        store: states and climatology.
        channels: short names of what is forecast, some of those that the predictors are of.
        predictors: of the start times in the training days, and of the cases.
        progress: told the number of start times done with every block.

    Raises:
        InputError: a value that is not finite.
    """
    lead_times, width = predictors.lead_times, predictors.train.shape[1]
    shape = (len(channels), *store.grid.shape)
    coefficients = np.empty((len(lead_times), width, *shape), np.float32)
    std = np.empty((len(lead_times), *shape), np.float32)
    penalties = np.empty((len(lead_times), len(channels)))
    together = channels_together(len(channels), int(np.prod(store.grid.shape)), width)
    for lead, hours in enumerate(lead_times):
        for part in [slice(first, first + together) for first in range(0, len(channels), together)]:
            sums = _sums(store, channels[part], predictors, hours, progress)
            k, errors = _chosen_penalties(sums, store.grid.area_weights.ravel())
            penalties[lead, part] = _PENALTIES[k]
            found = _solved(sums, _PENALTIES[k]).reshape(width, -1, *store.grid.shape)
            coefficients[lead][:, part] = found
            std[lead, part] = np.sqrt(errors / len(predictors.starts)).reshape(-1, *store.grid.shape)
    return RidgeRegression(
        lead_times,
        predictors.init_times,
        predictors.now.astype(np.float32),
        coefficients,
        std,
        penalties,
        len(predictors.starts),
    )


def steps_of(predictors: Predictors, channels: int, points: int) -> int:
    """What `progress` of `fit_ridge_regression` is told in all."""
    pieces = -(-channels // channels_together(channels, points, predictors.train.shape[1]))
    return len(predictors.starts) * len(predictors.lead_times) * pieces


@dataclass(frozen=True, eq=False)
class _Sums:
    """Over each of K blocks of n start times, of some channels."""

    count: np.ndarray
    """[K]."""
    xx: np.ndarray
    """[K, P, P] float64."""
    xy: np.ndarray
    """[K, P, channel, X] float64."""
    yy: np.ndarray
    """[K, channel, X] float64."""


def _sums(
    store: Store, channels: Sequence[str], predictors: Predictors, hours: int, progress: Callable[[int], object]
) -> _Sums:
    """Of successive blocks of start times; every field is read once."""
    size, points, width = len(channels), int(np.prod(store.grid.shape)), predictors.train.shape[1]
    blocks = np.array_split(np.arange(len(predictors.starts)), BLOCKS)
    xx, yy = np.zeros((BLOCKS, width, width)), np.zeros((BLOCKS, size * points))
    xy = np.zeros((BLOCKS, width, size * points))
    step = max(1, _READ_BYTES // (4 * size * points))
    for k, block in enumerate(blocks):
        xx[k] = predictors.train[block].T @ predictors.train[block]
        for first in range(0, len(block), step):
            some = block[first : first + step]
            valid = predictors.starts[some] + np.timedelta64(hours, "h")
            y = (states_at(store, channels, valid) - normals_at(store, channels, valid)).reshape(len(some), -1)
            y = y.astype(np.float64)
            xy[k] += predictors.train[some].T @ y
            yy[k] += np.square(y).sum(0)
            progress(len(some))
    count = np.array([len(block) for block in blocks])
    return _Sums(count, xx, xy.reshape(BLOCKS, width, size, points), yy.reshape(BLOCKS, size, points))


def _chosen_penalties(sums: _Sums, area: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(position of each channel's penalty [channel], squared errors on held-out days with it [channel, X])."""
    errors = np.zeros((len(_PENALTIES), *sums.yy.shape[1:]))
    xx, xy, count = sums.xx.sum(0), sums.xy.sum(0).reshape(len(sums.xx[0]), -1), sums.count.sum()
    for k in range(len(sums.xx)):
        held = sums.xy[k].reshape(xy.shape)
        variance, axes = np.linalg.eigh(xx - sums.xx[k])
        fitted, cross = axes.T @ (xy - held), axes.T @ held  # in the eigenvectors of the other blocks
        inner = axes.T @ sums.xx[k] @ axes
        for i, penalty in enumerate(_PENALTIES):
            b = fitted / (np.maximum(variance, 0) + penalty * (count - sums.count[k]))[:, None]
            change = ((inner @ b - 2 * cross) * b).sum(0)  # of the squared error, by forecasting
            errors[i] += (sums.yy[k].ravel() + change).reshape(errors.shape[1:])
    chosen = (errors @ area).argmin(0)
    least = np.take_along_axis(errors, chosen[None, :, None], axis=0)[0]
    return chosen, np.maximum(least, 0)


def _solved(sums: _Sums, penalties: np.ndarray) -> np.ndarray:
    """[P, channel, X] coefficients from all blocks, with the penalty [channel] of each channel."""
    variance, axes = np.linalg.eigh(sums.xx.sum(0))
    shrunk = np.maximum(variance, 0)[:, None] + penalties * sums.count.sum()  # [P, channel]
    xy = sums.xy.sum(0)
    rotated = (axes.T @ xy.reshape(len(axes), -1)).reshape(xy.shape) / shrunk[:, :, None]
    return (axes @ rotated.reshape(len(axes), -1)).reshape(xy.shape)
