"""Verification of what is in the fields: finite, possible, and as the statistics and climatology say."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from weatherfm.data_pipeline.climatology import day_coordinate, day_index, window_weights
from weatherfm.data_pipeline.statistics import ChannelStatistics, pairs, total
from weatherfm.data_pipeline.store import Store, open_array
from weatherfm.data_pipeline.time_axis import hour_of_day
from weatherfm.data_pipeline.verify_report import VerifyReport
from weatherfm.variables import parse_channel

_BATCH_BYTES = 64 * 2**20
_RELATIVE = 1e-9
"""Float64 sums in another order; 1e10 values lose some 1e-11."""
_RELATIVE_FLOAT32 = 1e-6
"""A float64 mean rounded to float32 is within 6e-8."""


def check_values(store: Store, report: VerifyReport, sample: int | None) -> None:
    """Finite and possible values; statistics as stored. `sample` reads that many times instead of all."""
    times = store.times
    train = store.periods["train"]
    assert train is not None  # prepare always states it
    training = train.contains(times)
    chosen = np.arange(len(times))
    if sample is not None and sample < len(times):
        chosen = np.unique(np.linspace(0, len(times) - 1, sample).astype(np.int64))
    everything, learned = [], []
    n_bad = np.zeros(len(store.channels), np.int64)
    for indices in tqdm(list(_batches(store, chosen)), desc="values", unit="batch", disable=None):
        values = store.read(indices)
        bad = ~np.isfinite(values)
        n_bad += bad.sum(axis=(0, 2, 3))
        if not bad.any():
            everything.append(ChannelStatistics.of(values))
            learned.append(ChannelStatistics.of(values[training[indices]]))
    for name, count in zip(store.channels, n_bad, strict=True):
        if count:
            share = count / (len(chosen) * math.prod(store.grid.shape))
            report.error("values", f"{name} has {count} values that are not finite ({share:.2%})")
    _check_range(store, total(everything, len(store.channels)), report)
    report.facts.append(f"{len(chosen)} of {len(times)} times read, {n_bad.sum()} values not finite")
    if n_bad.any():
        return
    found = total(learned, len(store.channels))
    if len(chosen) < len(times):
        _check_extremes(store, found, report)
    else:
        _compare_statistics(store, found, _tendency(store, training), report)


def _check_range(store: Store, found: ChannelStatistics, report: VerifyReport) -> None:
    say = report.warning if store.simulated else report.error  # another planet may be another world
    for name, low, high in zip(store.channels, found.minimum, found.maximum, strict=True):
        bounds, units = parse_channel(name).variable.bounds, parse_channel(name).units
        if low < bounds[0] or high > bounds[1]:
            say(
                "values",
                f"{name} reaches from {low:.6g} to {high:.6g} {units}, possible on Earth is {bounds[0]:g} to "
                f"{bounds[1]:g}: wrong units or damaged",
            )


def _check_extremes(store: Store, found: ChannelStatistics, report: VerifyReport) -> None:
    for i, name in enumerate(store.channels):
        if found.count[i] and (found.minimum[i] < store.minimum[i] or found.maximum[i] > store.maximum[i]):
            report.error("statistics", f"{name} has training values outside the stored minimum and maximum")


def _tendency(store: Store, training: np.ndarray) -> ChannelStatistics:
    earlier, later = pairs(store.times, training, store.manifest["tendency"]["lead_hours"])
    positions = np.arange(len(earlier))
    parts = [store.read(later[part]) - store.read(earlier[part]) for part in _batches(store, positions)]
    return total((ChannelStatistics.of(part) for part in parts), len(store.channels))


def _compare_statistics(
    store: Store, state: ChannelStatistics, tendency: ChannelStatistics, report: VerifyReport
) -> None:
    computed = {
        "mean": state.mean,
        "std": state.std,
        "minimum": state.minimum,
        "maximum": state.maximum,
        "tendency_std": tendency.std,
    }
    scale = np.maximum(np.abs(state.mean), state.std)
    for name, values in computed.items():
        held = getattr(store, name)
        wrong = np.abs(held - values) > _RELATIVE * scale
        wrong |= np.isnan(held) != np.isnan(values)
        for i in np.flatnonzero(wrong):
            report.error("statistics", f"{name} of {store.channels[i]} is {held[i]:.9g}, the data give {values[i]:.9g}")
    report.facts.append("mean, std, minimum, maximum and tendency_std computed again")


def check_climatology(store: Store, report: VerifyReport) -> None:
    """Two days of year at every hour against the plain weighted mean of their training fields."""
    days = day_coordinate(store.climatology_window)
    stored = open_array(store.path, "climatology")
    training = np.flatnonzero(store.climatology_period.contains(store.times))
    chosen = np.unique([0, len(days) // 2])
    largest = np.maximum(np.abs(store.minimum), np.abs(store.maximum))  # [channel]
    for hour, value in enumerate(store.climatology_hours):
        indices = training[hour_of_day(store.times[training]) == value]
        for day in chosen:
            weights = _window_of(store, indices, int(day))
            expected = _weighted_mean(store, indices[weights > 0], weights[weights > 0])
            error = np.abs(stored[day, hour].read().result() - expected).max(axis=(1, 2))
            for i in np.flatnonzero(~(error <= _RELATIVE_FLOAT32 * largest)):
                what = f"{store.channels[i]}, day {days[day]}, {value:02d} UTC"
                report.error("climatology", f"{what} is off by {error[i]:.3g}")
    report.facts.append(f"climatology of {len(chosen)} days computed again at {len(store.climatology_hours)} hours")


def _window_of(store: Store, indices: np.ndarray, day: int) -> np.ndarray:
    """[n] weight that each training time has in one day's mean."""
    if store.climatology_window is None:
        return np.ones(len(indices))
    weights = window_weights(store.climatology_window)
    half = len(weights) // 2
    distance = (day_index(store.times[indices], store.climatology_window) - day + 183) % 366 - 183
    near = np.abs(distance) <= half
    return np.where(near, weights[np.clip(distance + half, 0, 2 * half)], 0)


def _weighted_mean(store: Store, indices: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[channel, lat, lon] float64."""
    result = np.zeros((len(store.channels), *store.grid.shape))
    for part in _batches(store, np.arange(len(indices))):
        result += np.tensordot(weights[part], store.read(indices[part]).astype(np.float64), axes=1)
    return result / weights.sum()


def _batches(store: Store, indices: np.ndarray) -> Iterator[np.ndarray]:
    """Pieces of about 64 MiB of fields."""
    size = max(1, _BATCH_BYTES // (4 * len(store.channels) * math.prod(store.grid.shape)))
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
