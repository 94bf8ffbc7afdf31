"""Damped persistence: the anomaly at the initial time fades to climatology as it did on training days (numpy only).

The least-squares forecast of an anomaly o' at lead time L from the anomaly f' at the same place is a_L f' with
a_L = sum(f' o') / sum(f' f'): the diagonal of the linear inverse model of Penland & Magorian (1993, J. Climate 6,
1067-1076); for stationary variance a_L is the autocorrelation at lag L (van den Dool 2007, Empirical Methods in
Short-Term Climate Prediction, chapter 8).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.errors import InputError
from weatherfm.evaluation.baselines.persistence_and_climatology import (
    FieldWindow,
    normals_at,
    states_at,
    training_starts,
    training_times,
)

_STARTS = 2000
"""Start times at most. What is uncertain in a_L adds about 1/n to the mean square error, n the independent ones."""
_FIELDS = 4000
"""Fields read at most, unless the fewest start times need more: sparse starts share none between lead times."""
_FEWEST = 10
"""Start times below which there is no fit."""
_BLOCK_BYTES = 4 * 2**20
"""Memory of one block of start times at one lead time; at least one time."""
_BLOCK_TIMES = 64
"""Start times of one block at most: its sums are in single precision."""


@dataclass(frozen=True, eq=False)
class DampedPersistence:
    """Fitted on training days; picklable."""

    lead_times: tuple[int, ...]
    """Hours."""
    coefficients: np.ndarray
    """[lead_time, channel, lat, lon] float32 in [0, 1]: the share of the anomaly that is left."""
    starts: int
    """Start times that it was fitted on."""

    def forecast(self, anomaly_now: np.ndarray, normal_valid: np.ndarray, lead_index: int) -> np.ndarray:
        """Fields [B, channel, lat, lon] float32.

        Args:
            anomaly_now: state less climatology at the initial times [B, channel, lat, lon].
            normal_valid: climatology at the valid times [B, channel, lat, lon].
            lead_index: position in `lead_times`.
        """
        fields = np.multiply(anomaly_now, self.coefficients[lead_index], dtype=np.float32)
        fields += normal_valid
        return fields


def can_fit(store: Store, lead_times: Sequence[int]) -> bool:
    """True where training days hold enough pairs at `lead_times` (hours); reads no fields."""
    return len(training_starts(training_times(store), lead_times)) >= _FEWEST


def fit_damped_persistence(
    store: Store,
    channels: Sequence[str],
    lead_times: Sequence[int],
    progress: Callable[[int], object] = lambda starts: None,
) -> DampedPersistence:
    """Fit every channel, grid point and lead time on the training days, in one pass that reads each field once.

    Start times are those from which every lead time ends within the training days, evenly thinned. Coefficients are
    held to [0, 1]: variance that stays as it is allows none above 1 (Cauchy-Schwarz), and below 0 the anomaly would not
    persist but swing back; at the lead times where that happens the sign is mostly chance. A point that does not
    vary gets 0.

    The climatology is of the same days, so anomalies are slightly too small on them and coefficients too: of z500 over
    Europe with a window of 61 days, 0.71 at 24 h from one training year, 0.78 from three and 0.80 from nine.

    Memory is that of the fields between the first and the last lead time, and of one field in double precision a lead
    time: three fields a step up to the last lead time at most, as what comes of it needs beside truth and climatology
    when it is scored. Channels are taken in groups that keep this to a bound (`weatherfm.evaluation.evaluate`).

    Args:
        store: states, climatology and training days.
        channels: short names.
        lead_times: hours.
        progress: told the number of start times done with every block.

    Raises:
        InputError: too few start times in the training days, or a value that is not finite.
    """
    starts = start_times(store, lead_times)
    anomalies = FieldWindow(lambda times: states_at(store, channels, times) - normals_at(store, channels, times))
    shape = (len(channels), *store.grid.shape)
    squares, products = np.zeros(shape), np.zeros((len(lead_times), *shape))
    block = max(1, min(_BLOCK_TIMES, _BLOCK_BYTES // (4 * math.prod(shape))))
    for first in range(0, len(starts), block):
        part = starts[first : first + block]
        anomalies.forget_before(part[0])
        now = anomalies.at(part)
        squares += _sum_of_products(now, now)
        for total, hours in zip(products, lead_times, strict=True):
            total += _sum_of_products(now, anomalies.at(part + np.timedelta64(hours, "h")))
        progress(len(part))
    del anomalies, now  # before the result is there, too
    np.divide(products, squares, out=products, where=squares > 0)
    np.clip(products, 0, 1, out=products)
    return DampedPersistence(tuple(lead_times), products.astype(np.float32), len(starts))


def _sum_of_products(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[n, C, H, W] twice -> [C, H, W]; in single precision, which costs about 1e-6 in a short block."""
    return np.einsum("nchw,nchw->chw", x, y)


def start_times(store: Store, lead_times: Sequence[int]) -> np.ndarray:
    """[n] datetime64[s], what is fitted on: evenly thinned so that all hours of the day stay, as few as limits ask for.

    Raises:
        InputError: too few start times in the training days.
    """
    known = training_times(store)
    candidates = training_starts(known, lead_times)
    if len(candidates) < _FEWEST:
        scarce = min(lead_times, key=lambda hours: (len(training_starts(known, [hours])), -hours))
        fewest = len(training_starts(known, [scarce]))
        raise InputError(
            f"damped persistence needs {_FEWEST} start times from which every lead time ends within the training days; "
            f"{store.path} has {len(candidates)} ({fewest} at lead time {scarce}h, train is "
            f"{store.periods.get('train')}): prepare more training days, score shorter lead times, or set "
            "evaluation.damped_persistence=false"
        )
    daily = max(1, 24 // store.step_hours)
    widest = max(1, len(candidates) // _FEWEST)
    for stride in range(1, widest + 1):
        starts = candidates[::stride]
        if math.gcd(stride, daily) == 1 and _within_limits(starts, lead_times):
            return starts
    return candidates[::widest]


def _within_limits(starts: np.ndarray, lead_times: Sequence[int]) -> bool:
    if len(starts) > _STARTS:
        return False
    return len(np.unique(starts[:, None] + np.asarray((0, *lead_times), "timedelta64[h]"))) <= _FIELDS
