"""What must hold before a forecast is scored: same cases, truth at every time, nothing that was learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from weatherfm.data_pipeline.fields.time_axis import over_leap_day, skipped_leap_days
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.errors import InputError
from weatherfm.evaluation.forecasting.init_times import among
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.scoring.sums_and_series import months_of


@dataclass(frozen=True, eq=False)
class Cases:
    """What is scored: every initial time at every lead time, all channels."""

    init_times: np.ndarray
    """[case] datetime64[s], ascending."""
    lead_times: tuple[int, ...]
    """Hours."""
    channels: tuple[str, ...]
    left_out: Mapping[str, Sequence[str]]
    """What some forecast lacks and is therefore scored for none, by kind; empty unless asked for."""

    @property
    def valid_times(self) -> np.ndarray:
        """[time] datetime64[s], ascending, each once."""
        return np.unique(self.init_times[:, None] + np.asarray(self.lead_times, "timedelta64[h]"))

    @property
    def months(self) -> list[int]:
        """1 .. 12, of the valid times."""
        return sorted(set(months_of(self.valid_times).tolist()))


@dataclass(frozen=True)
class Choice:
    """Which of a forecast's cases are scored; all where nothing is said."""

    channels: tuple[str, ...] = ()
    """Short names."""
    lead_times: tuple[int, ...] = ()
    """Hours."""
    init: str | None = None
    """Initial times, written as `--init` of forecasts."""
    every: int | None = None
    """Hours between initial times, from the first one on."""


def cases_of(files: Mapping[str, ForecastFile], store: Store, choice: Choice, common: bool) -> Cases:
    """The cases of the first forecast; the others must have them all.

    Args:
        files: forecast -> file.
        store: the truth.
        choice: which of the cases of the first forecast.
        common: score only what all forecasts and the store share, and say what was left out.

    Raises:
        InputError: a distance of initial times that is no multiple of theirs; a channel, lead time or initial time that
            is missing on some side (with `common`: nothing shared),
            another grid, wrong units or dims, a time that the store lacks.
    """
    main = next(iter(files.values()))
    leads = tuple(hours for hours in main.lead_times if hours > 0)
    if not len(main.init_times) or not leads:
        raise InputError(f"{main.path} holds no {'initial' if leads else 'lead'} time to score; forecast again")
    cases = _chosen(main, leads, choice)
    if common:
        cases = _shared(cases, files, store)
    _check_store(main, store, cases)
    for file in files.values():
        file.require(cases.channels, cases.lead_times, store.grid)
        _check_same_cases(main, file, cases)
    return cases


def _chosen(main: ForecastFile, leads: tuple[int, ...], choice: Choice) -> Cases:
    for hours in choice.lead_times:
        if hours not in leads:
            raise InputError(
                f"{main.path} has no lead time {hours}h to score; it has {', '.join(f'{lead}h' for lead in leads)}"
            )
    inits = main.init_times
    if choice.init is not None:
        inits = inits[among(inits, choice.init)]
    if choice.every is not None:
        _require_distance(choice.every, inits, main)
        inits = inits[(inits - inits[0]) % np.timedelta64(choice.every, "h") == np.timedelta64(0, "s")]
    return Cases(inits, tuple(sorted(choice.lead_times)) or leads, choice.channels or main.channels, {})


def _require_distance(every: int, inits: np.ndarray, main: ForecastFile) -> None:
    step = int(np.diff(inits).min() / np.timedelta64(1, "h")) if len(inits) > 1 else every
    if every % step:
        raise InputError(
            f"--every is {every}h, and initial times of {main.path} are {step}h apart; choose a multiple, as "
            f"{2 * step}h"
        )


def refuse_learned_days(cases: Cases, store: Store) -> None:
    """Climatology and statistics must not know the cases.

    Raises:
        InputError: valid times within the climatology's or the training days.
    """
    valid = cases.valid_times
    for what, period in (("climatology", store.climatology_period), ("training", store.periods.get("train"))):
        known = period.contains(valid) if period is not None else np.zeros(len(valid), bool)
        if known.any():
            raise InputError(
                f"{known.sum()} of {len(valid)} times to score, the first {valid[known][0]}, lie in the {what} period "
                f"{period} of {store.path}: scores would be too good; forecast other days, or prepare the store with "
                "an earlier data.train"
            )


def _check_store(main: ForecastFile, store: Store, cases: Cases) -> None:
    if missing := [channel for channel in cases.channels if channel not in store.channels]:
        raise InputError(
            f"{store.path} lacks {', '.join(missing)} to score against; it has {', '.join(store.channels)}: prepare "
            "them, or score other channels"
        )
    needed = np.union1d(cases.init_times, cases.valid_times)
    absent = needed[~np.isin(needed, store.times)]
    if len(absent):
        raise InputError(
            f"{store.path} lacks {len(absent)} of the {len(needed)} times that {main.path} is scored at, the first is "
            f"{absent[0]}; forecast from initial times whose lead times the store covers, or score the common ones "
            "with --common"
        )
    if len(odd := cases.init_times[_over_leap_day(cases.init_times, cases.lead_times, store)]):
        raise InputError(
            f"{store.path} has no 29 February in leap years, and {len(odd)} forecasts of {main.path} go over one, the "
            f"first from {odd[0]}: by their dates they are a day longer than by the model that the record is of; "
            "forecast from other initial times, or leave these out with --common"
        )


def _over_leap_day(init_times: np.ndarray, lead_times: Sequence[int], store: Store) -> np.ndarray:
    """[case] bool: the forecast ends behind a 29 February that the store's record skips."""
    ends = init_times + np.timedelta64(max(lead_times), "h")
    return over_leap_day(skipped_leap_days(store.times), init_times, ends)


def _check_same_cases(main: ForecastFile, other: ForecastFile, cases: Cases) -> None:
    """More initial times than wanted do no harm; fewer do."""
    missing = cases.init_times[~np.isin(cases.init_times, other.init_times)]
    if len(missing):
        raise InputError(
            f"{other.path} has {len(other.init_times)} initial times, {main.path} has {len(main.init_times)}, and "
            f"{len(cases.init_times) - len(missing)} are common; the first it lacks is {missing[0]}: scores on "
            "different cases say nothing; forecast both from the same initial times, or score the common ones with "
            "--common"
        )


def _shared(cases: Cases, files: Mapping[str, ForecastFile], store: Store) -> Cases:
    """What every forecast and the store have, and a record of what is therefore left out."""
    channels = [
        name for name in cases.channels if name in store.channels and all(name in f.channels for f in files.values())
    ]
    leads = [hours for hours in cases.lead_times if all(hours in f.lead_times for f in files.values())]
    spans = np.asarray((0, *leads), "timedelta64[h]")
    covered = np.isin(cases.init_times[:, None] + spans, store.times).all(1)
    if leads:
        covered &= ~_over_leap_day(cases.init_times, leads, store)
    for file in files.values():
        covered &= np.isin(cases.init_times, file.init_times)
    inits = cases.init_times[covered]
    left = {
        "channels": [name for name in cases.channels if name not in channels],
        "lead_times": [f"{hours}h" for hours in cases.lead_times if hours not in leads],
        "init_times": [str(time) for time in cases.init_times[~covered]],
    }
    for kind, kept in (("channels", channels), ("lead_times", leads), ("init_times", inits)):
        if not len(kept):
            raise InputError(
                f"the forecasts and {store.path} share no {kind.replace('_', ' ')}; give forecasts of the same days, "
                "channels and lead times"
            )
    return Cases(inits, tuple(leads), tuple(channels), {kind: names for kind, names in left.items() if names})
