"""Which times of a source go into a store, and the rules its time axis must keep."""

from __future__ import annotations

import logging
from calendar import isleap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weatherfm.data_pipeline.store_config import DataConfig, Days, Period
from weatherfm.errors import InputError

_log = logging.getLogger(__name__)
_HOUR = np.timedelta64(3600, "s")


@dataclass(frozen=True, eq=False)
class TimeAxis:
    """The times of a store."""

    indices: np.ndarray
    """[time] int64 positions on the source's time axis, ascending."""
    times: np.ndarray
    """[time] datetime64[s], ascending."""
    step_hours: int
    missing: np.ndarray
    """[gap] datetime64[s]: steps between the first and the last time that the source does not have, or that are left
    out."""
    empty: np.ndarray
    """[gap] datetime64[s]: those of them at which the source has no values."""


def select_times(source_times: np.ndarray, config: DataConfig, empty: np.ndarray | None = None) -> TimeAxis:
    """The times that `config.period`, `config.step` and `config.exclude` keep of a source's.

    Args:
        source_times: [time] datetime64.
        config: of the store.
        empty: [n] datetime64, known to have no values; they are gaps.

    Raises:
        InputError: duplicate, unordered, uneven or (without `allow_gaps`) missing times, none left, or excluded days
            that the period does not have.
    """
    _check_order(source_times)
    times = source_times.astype("datetime64[s]")
    keep = np.ones(len(times), bool) if config.period is None else config.period.contains(times)
    if not keep.any():
        raise InputError(f"no time of the source lies in period {config.period}; {_extent(times)}")
    if config.store_step is not None:
        keep &= _on_step(times, config.store_step, config)
        if not keep.any():
            hours = ", ".join(f"{hour:02d}" for hour in np.unique(hour_of_day(times))[:8])
            raise InputError(
                f"no time of the source lies on steps of {config.store_step}h from {config.step_offset:02d} UTC "
                f"(its hours are {hours}); choose another step or step_offset, or leave step out"
            )
    keep &= ~_excluded(times, keep, config)
    bare = times[keep & np.isin(times, [] if empty is None else empty)]
    keep &= ~np.isin(times, bare)
    if not keep.any():
        raise InputError("no time is left: all are excluded or without values; leave fewer days out (data.exclude)")
    kept = times[keep]
    if odd := kept[(kept - kept.astype("datetime64[h]")) != np.timedelta64(0, "s")][:1].tolist():
        raise InputError(f"times must be whole hours, got {odd[0].isoformat()}; choose a step that leaves it out")
    step_hours = config.store_step or _usual_step(kept)
    missing = _missing_times(kept, step_hours, config, bare)
    inside = bare[(bare > kept[0]) & (bare < kept[-1])]
    return TimeAxis(np.flatnonzero(keep), kept, step_hours, missing, inside)


def resolve_periods(config: DataConfig, times: np.ndarray) -> dict[str, Days | None]:
    """The days of `train` (the whole record unless given), `validation` and `test` for a store of `times`.

    Raises:
        InputError: a split that holds no time, or validation and test days beside an open training period.
    """
    periods: dict[str, Days | None] = {
        "train": config.train,
        "validation": config.validation,
        "test": config.test,
    }
    given = [name for name in ("validation", "test") if periods[name] is not None]
    if config.train is None and given:
        raise InputError(
            f"{' and '.join(given)} given without train: statistics would be learned from those days too; "
            "set train to the days that may be learned from"
        )
    days = times.astype("datetime64[D]")
    first, last = days[0].item(), days[-1].item()
    for name, period in periods.items():
        if period is None:
            continue
        if bare := [piece for piece in period.pieces if not piece.contains(times).any()]:
            raise InputError(f"{name} ({bare[0]}) holds no time of the store; {_extent(times)}")
        if period.start < first or period.end > last:
            _log.warning("%s (%s) reaches beyond the store's days %s/%s", name, period, first, last)
    if config.train is None:
        periods["train"] = Days(start=first, end=last)
    return periods


def hour_of_day(times: np.ndarray) -> np.ndarray:
    """[time] int64, 0..23 UTC."""
    return (times.astype("datetime64[h]") - times.astype("datetime64[D]")).astype(np.int64)


def day_of_year(times: np.ndarray) -> np.ndarray:
    """[time] int64, 1..366; 29 February is 60, and after it leap years run one ahead."""
    days = times.astype("datetime64[D]")
    return (days - days.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64) + 1


def skipped_leap_days(times: np.ndarray) -> np.ndarray:
    """[n] datetime64[D]: each 29 February that is absent between days that are there, ascending.

    So it is in records of climate models whose years all have 365 days: from 28 February to 1 March they have one day,
    not two. Records that step over days have none.

    Args:
        times: [time] datetime64, ascending.
    """
    if len(times) < 2 or _usual_step(times.astype("datetime64[s]")) > 24:
        return np.zeros(0, "datetime64[D]")
    days, day = np.unique(times.astype("datetime64[D]")), np.timedelta64(1, "D")
    years = range(days[0].item().year, days[-1].item().year + 1)
    leap = np.array([f"{year}-02-29" for year in years if isleap(year)], "datetime64[D]")
    return leap[~np.isin(leap, days) & np.isin(leap - day, days) & np.isin(leap + day, days)]


def over_leap_day(skipped: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Bool, of the common shape of datetime64 `first` and `last`: a day of `skipped_leap_days` lies between the two."""
    starts = skipped.astype("datetime64[s]")
    passed = [np.searchsorted(starts, np.asarray(times).astype("datetime64[s]")) for times in (first, last)]
    crossed: np.ndarray = passed[0] != passed[1]
    return crossed


def name_times(times: np.ndarray, most: int = 5) -> str:
    """Text for a message: the first few times and how many more there are."""
    text = ", ".join(str(time.astype("datetime64[h]")) for time in times[:most])
    return text if len(times) <= most else f"{text} and {len(times) - most} more"


def _extent(times: np.ndarray) -> str:
    first, last = times[0].astype("datetime64[h]"), times[-1].astype("datetime64[h]")
    return f"it has {len(times)} times from {first} to {last}"


def _check_order(times: np.ndarray) -> None:
    if len(times) == 0:
        raise InputError("the source has no times; check its paths and period")
    if np.isnat(times).any():
        raise InputError("the source's time axis holds times that are missing values; mend the file")
    steps = np.diff(times)
    zero = np.timedelta64(0, "s")
    if (steps == zero).any():
        repeated = np.unique(times[1:][steps == zero])
        raise InputError(f"duplicate times {name_times(repeated)}; remove one of each or the file that repeats them")
    if (steps < zero).any():
        late = times[1:][steps < zero]
        raise InputError(f"times out of order: {name_times(late)} come after later ones; sort the source by time")


def _on_step(times: np.ndarray, step: int, config: DataConfig) -> np.ndarray:
    """[time] bool: a whole number of steps after 00 UTC, or `step_offset`, of the first day."""
    if step < 1 or (24 % step and step % 24):
        raise InputError(f"step {step}h neither divides a day nor is whole days; choose e.g. 1h, 6h, 24h or 48h")
    start = np.datetime64(config.period.start) if config.period else times[0].astype("datetime64[D]")
    first = start.astype("datetime64[s]") + config.step_offset * _HOUR
    return (times - first) % (step * _HOUR) == np.timedelta64(0, "s")


def _excluded(times: np.ndarray, keep: np.ndarray, config: DataConfig) -> np.ndarray:
    """[time] bool: on days that are to be left out."""
    days = times[keep].astype("datetime64[D]")
    whole = config.period or Period(start=days[0].item(), end=days[-1].item())
    if beside := [period for period in config.exclude if not period.overlaps(whole)]:
        raise InputError(
            f"data.exclude names {beside[0]}, which is outside the days to keep, {whole}; leave it out or correct it"
        )
    return _within(config.exclude, times)


def _within(periods: Sequence[Period], times: np.ndarray) -> np.ndarray:
    """[time] bool: in any of the periods."""
    found = np.zeros(len(times), bool)
    for period in periods:
        found |= period.contains(times)
    return found


def spacing(times: np.ndarray) -> float | None:
    """Most common hours between neighbours of datetime64 `times`, in any order; None for a single time."""
    steps, counts = np.unique(np.diff(np.unique(times)), return_counts=True)
    return float(steps[np.argmax(counts)] / _HOUR) if len(steps) else None


def _usual_step(times: np.ndarray) -> int:
    """Hours between neighbours that occurs most often; a day for a single time."""
    apart = spacing(times)
    return 24 if apart is None else int(apart)


def _are_months(times: np.ndarray) -> bool:
    """One time a month, of monthly means."""
    months = np.diff(times.astype("datetime64[M]").astype(np.int64))
    days = times.astype("datetime64[D]") - times.astype("datetime64[M]").astype("datetime64[D]")
    return bool((months == 1).all() and (np.ptp(days) <= np.timedelta64(3, "D")))


def _missing_times(times: np.ndarray, step_hours: int, config: DataConfig, empty: np.ndarray) -> np.ndarray:
    """Steps within `times`; what is missing and neither excluded nor known to be `empty` is refused, or told."""
    step = step_hours * _HOUR
    offsets = (times - times[0]) // step
    uneven = times[(times - times[0]) % step != np.timedelta64(0, "s")]
    if len(uneven) and _are_months(times):
        cure = (
            "with step=24h and allow_gaps=true they are kept as single days among gaps: enough for statistics, and for "
            "lead times that months really are apart (744h, of those of 31 days)"
        )
        if hour_of_day(times).any():
            cure = "write them at 00 UTC of one day each"
        raise InputError(f"times are a month apart ({name_times(times, 3)}), which is no fixed number of hours; {cure}")
    if len(uneven):
        raise InputError(
            f"uneven times: most are {step_hours}h apart, {name_times(uneven)} are not; set step to leave them out"
        )
    inside = np.setdiff1d(np.arange(offsets[-1] + 1), offsets) * step + times[0]
    absent = inside
    if config.period is not None:  # the ends the user asked for must be there too
        begin = np.datetime64(config.period.start, "s")
        end = np.datetime64(config.period.end, "s") + 24 * _HOUR
        before = np.arange(times[0] - step, begin - np.timedelta64(1, "s"), -step)[::-1]
        absent = np.concatenate([before, inside, np.arange(times[-1] + step, end, step)])
    absent = absent[~(_within(config.exclude, absent) | np.isin(absent, empty))]
    if len(absent) == 0:
        return inside
    if not config.allow_gaps:
        raise InputError(
            f"{len(absent)} of {len(times) + len(absent)} steps of {step_hours}h are missing: {name_times(absent)}; "
            "add the files that hold them, choose another period, or set allow_gaps=true"
        )
    _log.warning("%d steps of %dh are missing: %s", len(absent), step_hours, name_times(absent))
    return inside
