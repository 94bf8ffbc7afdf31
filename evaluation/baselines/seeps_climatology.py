"""What SEEPS must know of a place: how often it is dry there, and from which amount on rain is heavy.

Both come from the training days alone, month by month, all hours together, without a window over days or years.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from weatherfm.data_pipeline.machine.host_memory import available_memory
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.errors import InputError
from weatherfm.evaluation.metrics.seeps import LEAST_DRY, MOST_DRY, SeepsClimatology

_log = logging.getLogger(__name__)

CHANNEL = "tp"
_LIGHT_SHARE = 2 / 3
"""Of wet cases: light rain is twice as frequent as heavy (Rodwell et al. 2010)."""
_LEAST_WET = 20
"""Wet cases of a place and month from which the threshold is learned, at least."""
_BATCH_BYTES = 2**26
"""Of whole fields read at a time."""


def dry_threshold(hours: int) -> float:
    """Precipitation in m up to which it is dry: 0.1 mm over 6 h and 0.25 mm over 24 h, as in WeatherBench2.

    It has none for other spans; here these follow the power law through the two, 0.1 mm (hours / 6)^0.66: 0.16 mm over
    12 h. (Rodwell et al. 2010 have 0.2 mm a day, at stations.) Rounded to single precision, so that an amount on the
    threshold is dry in stores and forecasts alike.

    Raises:
        InputError: no positive number of hours.
    """
    if hours <= 0:
        raise InputError(f"precipitation must be summed over a positive number of hours, got {hours}")
    millimetres = 0.1 * (hours / 6) ** (np.log(2.5) / np.log(4))
    return float(np.float32(millimetres / 1000))


def seeps_climatology(
    store: Store,
    months: Sequence[int] | None = None,
    least_wet: int = _LEAST_WET,
    memory: int | None = None,
) -> SeepsClimatology:
    """Learn it from the training days of a store.

    The quantiles are exact: all training times of a month are held in memory, of as many grid points as fit; where not
    all points do, the month is read several times.

    Args:
        store: with the channel `tp`; where it does not say over which hours it is summed, over its step.
        months: 1 .. 12 that are needed; without it, all. Others are not scored.
        least_wet: wet cases from which a place and month is scored.
        memory: bytes to hold at a time; without it, a quarter of what is available.

    Raises:
        InputError: no precipitation, no training days, none of them in the store, or a value that is not finite.
    """
    times, hours = _training_times(store), _accumulation_hours(store)
    dry = dry_threshold(hours)
    shape = (12, int(np.prod(store.grid.shape)))
    share, heavy = np.full(shape, np.nan), np.full(shape, np.nan, np.float32)
    of_month = store.times[times].astype("datetime64[M]").astype(np.int64) % 12
    memory = available_memory() // 4 if memory is None else memory
    for month in range(12):
        indices = times[of_month == month]
        if len(indices) < least_wet or (months is not None and month + 1 not in months):
            continue
        size = max(1, memory // (4 * len(indices)))
        for start in range(0, shape[1], size):
            points = slice(start, min(start + size, shape[1]))
            ascending = _ascending(store, indices, points)
            share[month, points], heavy[month, points] = _learned(ascending, dry, least_wet)
    found = SeepsClimatology(share.reshape(12, *store.grid.shape), heavy.reshape(12, *store.grid.shape), dry, hours)
    if not found.scored().any():
        _log.warning(
            "SEEPS is undefined everywhere: the training days (%s) of %s have nowhere %d wet cases a month with a "
            "share of dry ones within %g .. %g",
            *(store.periods["train"], store.path, least_wet, LEAST_DRY, MOST_DRY),
        )
    return found


def require_precipitation(store: Store) -> None:
    """Refuse what `seeps_climatology` would, before anything is read.

    Raises:
        InputError: no precipitation, no training days, or none of them in the store.
    """
    _training_times(store)
    dry_threshold(_accumulation_hours(store))


def _training_times(store: Store) -> np.ndarray:
    """[n] int64 positions in the store."""
    if CHANNEL not in store.channels:
        raise InputError(
            f"SEEPS needs precipitation ({CHANNEL}), which the store {store.path} does not have; it holds "
            f"{' '.join(store.channels)}"
        )
    period = store.periods.get("train")
    if period is None:
        raise InputError(f"SEEPS needs a climatology, but the store {store.path} names no training days; set train")
    times = np.flatnonzero(period.contains(store.times))
    if len(times) == 0:
        raise InputError(
            f"SEEPS needs a climatology, but the store {store.path} holds no time of its training days ({period}); "
            "prepare these days too"
        )
    return times


def _accumulation_hours(store: Store) -> int:
    channel = next(channel for channel in store.manifest["channels"] if channel["name"] == CHANNEL)
    return int(channel["accumulation_hours"] or store.step_hours)


def _ascending(store: Store, indices: np.ndarray, points: slice) -> np.ndarray:
    """[point, time] float32: precipitation of some points at all times, each point's sorted."""
    values = np.empty((points.stop - points.start, len(indices)), np.float32)
    batch = max(1, _BATCH_BYTES // (4 * int(np.prod(store.grid.shape))))
    for start in range(0, len(indices), batch):
        part = slice(start, start + batch)
        fields = store.read(indices[part], [CHANNEL])
        values[:, part] = fields.reshape(len(fields), -1)[:, points].T
    values.sort(axis=1)
    if not (np.isfinite(values[:, 0]) & np.isfinite(values[:, -1])).all():  # NaN comes last
        raise InputError(
            f"precipitation ({CHANNEL}) of the training days of {store.path} is not finite everywhere; "
            "`weatherfm verify` names the times"
        )
    return values


def _learned(ascending: np.ndarray, dry: float, least_wet: int) -> tuple[np.ndarray, np.ndarray]:
    """(share of dry cases, threshold of heavy ones) [point] of sorted amounts [point, time]; NaN where wet is too rare.

    The threshold is the quantile of the wet amounts, linear between neighbours.
    """
    count = ascending.shape[1]
    n_dry = (ascending <= dry).sum(1)
    n_wet = count - n_dry
    place = n_dry + _LIGHT_SHARE * np.maximum(n_wet - 1, 0)
    below = np.minimum(place.astype(np.int64), count - 1)
    above = np.minimum(below + 1, count - 1)
    low, high = (np.take_along_axis(ascending, at[:, None], 1)[:, 0] for at in (below, above))
    enough = n_wet >= least_wet
    share = np.where(enough, n_dry / count, np.nan)
    return share, np.where(enough, low + (place - below) * (high - low), np.nan).astype(np.float32)
