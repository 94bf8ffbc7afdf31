"""Initial times: what `--init` means, and which of them there are states for.

Without it they are those of the test period that can be scored: every lead time ends at a state that is there. With it
the days are of initial times alone; nothing is asked after them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from datetime import date

import numpy as np

from weatherfm.data_pipeline.fields.time_axis import name_times, over_leap_day, skipped_leap_days
from weatherfm.data_pipeline.loader import eligible_init_times
from weatherfm.data_pipeline.store.states import States, as_states, extent, held, require_weather
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.data_pipeline.store_config import Period
from weatherfm.errors import InputError
from weatherfm.evaluation.forecast_config import ForecastConfig

_log = logging.getLogger(__name__)
_FORMS = "write days (2018, 2018-10-01, 2018-10-01/2018-10-31), hours (2018-10-01T06), a list with commas, or latest"
_HOUR = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d)(?::?00){0,2}(?:\.0+)?Z?")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def choose_init_times(
    place: Store | States, config: ForecastConfig, input_times: Sequence[int], speak: bool = True
) -> np.ndarray:
    """The initial times that `config.init` means, all with the states a forecast needs.

    Args:
        place: where the states are.
        config: initial times, their distance, lead times and mode.
        input_times: hours (<= 0) of the model's input states.
        speak: say which times of a period are left out.

    Returns:
        datetime64[s], ascending, each once.

    Raises:
        InputError: a text that means no time, or times whose states are not there.
    """
    if isinstance(place, Store):
        require_weather(place)
    states = as_states(place)
    if config.init is None and (isinstance(place, Store) or hasattr(place, "periods")):
        return forecast_init_times(place, config, input_times)  # type: ignore[arg-type]
    required = [*required_input_times(input_times, config), *hours_read_ahead(config)]
    if config.init is None:
        return _latest(states, required, speak)
    parts = [part.strip() for part in config.init.split(",")]
    if twice := [part for part in dict.fromkeys(parts) if part and parts.count(part) > 1]:
        raise InputError(f"initial times name {', '.join(twice)} twice; name each once")
    found = [_times_of(part, states, config.init_every, required, speak) for part in parts if part]
    if not found:
        raise InputError(f"no initial time in {config.init!r}; {_FORMS}")
    return np.unique(np.concatenate(found))


def among(times: np.ndarray, text: str) -> np.ndarray:
    """[time] bool: which of `times` [time] datetime64 a text as `--init` means; `latest` is the last.

    Raises:
        InputError: a text that means no time, or a part of it that none of the times is in.
    """
    found = np.zeros(len(times), bool)
    for part in filter(None, (part.strip() for part in text.split(","))):
        if part == "latest":
            own = np.arange(len(times)) == len(times) - 1
        elif _HOUR.fullmatch(part):
            own = times == _hour(part)
        else:
            own = _period(part).contains(times)
        if not own.any():
            raise InputError(f"no initial time in {part!r}; there are {len(times)}, {times[0]} to {times[-1]}")
        found |= own
    if not found.any():
        raise InputError(f"no initial time in {text!r}; {_FORMS}")
    return found


def forecast_init_times(store: Store, config: ForecastConfig, input_times: Sequence[int]) -> np.ndarray:
    """Initial times every `config.init_every` in the test period, with the truth at every lead time.

    Args:
        store: where inputs and truth are.
        config: lead times and mode.
        input_times: hours (<= 0) of the model's input states.

    Returns:
        datetime64[s], ascending; counted from the first time of the period on, so that models with other input times
        share their initial times but for the first days.

    Raises:
        InputError: no test period, or no initial time in it.
    """
    period = store.periods.get("test")
    if period is None:
        raise InputError(
            f"{store.path} names no test period; set data.test and prepare again, or give initial times (--init)"
        )
    require_distance(config.init_every, store.times)
    inits = eligible_init_times(store, period, required_input_times(input_times, config), config.lead_times)
    if len(inits):
        inits = inits[_on_step(inits, store.times[period.contains(store.times)][0], config.init_every)]
    if not len(inits):
        raise InputError(
            f"no initial time in {period} has its inputs and lead times up to {config.lead_times[-1]}h within the "
            f"period, every {config.init_every}h; lengthen the period, shorten the lead times, or give initial times "
            "(--init), which need no truth"
        )
    return inits


def require_test_days(wanted: Period | None, store: Store) -> None:
    """Refuse other test days than those that the store was prepared with, from which forecasts start.

    Raises:
        InputError: with both.
    """
    held = store.periods.get("test")
    if wanted is not None and wanted != held:
        raise InputError(
            f"data.test is {wanted}, and the test days of the store {store.path} are {held or 'none'}, which are "
            "forecast; set it so, prepare again, or give initial times (--init)"
        )


def required_input_times(input_times: Sequence[int], config: ForecastConfig) -> list[int]:
    """Hours (<= 0) of the analysed states a forecast starts from; a rollout's later steps may need more than one step.

    Raises:
        InputError: a rollout whose steps do not land on the earlier times the model wants to see.
    """
    if config.mode == "direct" or config.lead_times[-1] == config.rollout_step:
        return sorted(input_times)
    if odd := [hours for hours in input_times if hours % config.rollout_step]:
        raise InputError(
            f"the model sees input times {', '.join(f'{h}h' for h in odd)}, which a rollout in steps of "
            f"{config.rollout_step}h does not produce; choose a rollout_step that divides them, or mode direct"
        )
    starts = range(0, min(config.lead_times[-1], 1 - min(input_times)), config.rollout_step)
    return sorted({start + hours for start in starts for hours in input_times if start + hours <= 0})


def hours_read_ahead(config: ForecastConfig) -> list[int]:
    """Hours (> 0) at which a rollout's later steps read the channels that are inputs alone."""
    if config.inputs == "persist":
        return []
    return list(range(config.rollout_step, config.lead_times[-1], config.rollout_step))


def require_inputs(states: States, init_times: np.ndarray, required: Sequence[int]) -> None:
    """Refuse initial times whose input states are not all there.

    Raises:
        InputError: naming the states that are missing.
    """
    absent = {hours: init_times[~held(states, init_times + np.timedelta64(hours, "h"))] for hours in required}
    missing = np.unique(np.concatenate([inits + np.timedelta64(hours, "h") for hours, inits in absent.items()]))
    if len(missing):
        inits = np.unique(np.concatenate(list(absent.values())))
        verb = "start from" if max(required) <= 0 else "need"  # what is read ahead as well
        raise InputError(
            f"{states.name} lacks {name_times(missing)}, which forecasts from {name_times(inits)} {verb} (states "
            f"at {_named(required)}); it has {extent(states)}: choose other initial times, or add these states"
        )
    if len(over := init_times[~_complete(states, init_times, required)]):
        raise InputError(
            f"{states.name} has no 29 February in leap years, and the states at {_named(required)} of forecasts from "
            f"{name_times(over)} lie on both sides of one, a day less apart than their dates; choose other initial "
            "times"
        )


def _times_of(text: str, states: States, every: int, required: Sequence[int], speak: bool) -> np.ndarray:
    if text == "latest":
        return _latest(states, required, speak)
    if _HOUR.fullmatch(text):
        times = np.array([_hour(text)])
        require_inputs(states, times, required)
        return times
    return _within(_period(text), states, every, required, speak)


def _hour(text: str) -> np.datetime64:
    """The hour that a text of this form means."""
    try:
        return np.datetime64(_HOUR.sub(r"\1T\2", text), "s")
    except ValueError:
        raise InputError(f"initial time {text!r} is no date; {_FORMS}") from None


def _period(text: str) -> Period:
    """The days that a text means."""
    days = re.split(r"\s*/\s*", text)
    if not (all(_DAY.fullmatch(day) for day in days) and len(days) <= 2):
        try:
            return Period.model_validate(text)
        except ValueError:
            raise InputError(f"initial times {text!r} are not understood; {_FORMS}") from None
    try:
        first, last = date.fromisoformat(days[0]), date.fromisoformat(days[-1])
    except ValueError:
        raise InputError(f"initial times {text!r}: the calendar has no such day; {_FORMS}") from None
    if last < first:
        raise InputError(f"initial times {text!r} end before they start; swap the two days")
    return Period(start=first, end=last)


def _within(period: Period, states: States, every: int, required: Sequence[int], speak: bool) -> np.ndarray:
    times = states.times[period.contains(states.times)]
    if not len(times):
        raise InputError(f"{states.name} has no state in {period}, only {extent(states)}; choose other initial times")
    require_distance(every, states.times)
    times = times[_on_step(times, times[0], every)]
    complete = _complete(states, times, required)
    if not complete.any():
        require_inputs(states, times, required)
    if speak and not complete.all():
        _log.warning(
            "%d of %d initial times in %s left out: %s lacks some of their states at %s",
            (~complete).sum(), len(times), period, states.name, _named(required),
        )  # fmt: skip
    return times[complete]


def _latest(states: States, required: Sequence[int], speak: bool) -> np.ndarray:
    complete = _complete(states, states.times, required)
    if not complete.any():
        raise InputError(
            f"{states.name} has no time to forecast from: states at {_named(required)} are needed, and it has "
            f"{extent(states)}; add states"
        )
    latest = states.times[complete][-1:]
    if speak and latest[0] != states.times[-1]:
        _log.warning(
            "forecasting from %s: the latest time of %s, %s, lacks some of its states at %s",
            name_times(latest), states.name, name_times(states.times[-1:]), _named(required),
        )  # fmt: skip
    return latest


def _complete(states: States, inits: np.ndarray, required: Sequence[int]) -> np.ndarray:
    complete = np.ones(len(inits), bool)
    for hours in required:
        complete &= _has_input(states, inits, hours)
    return complete


def _has_input(states: States, inits: np.ndarray, hours: int) -> np.ndarray:
    """[init] bool: the state `hours` after it is there, and no 29 February that the record skips between."""
    times = inits + np.timedelta64(hours, "h")
    return held(states, times) & ~over_leap_day(skipped_leap_days(states.times), times, inits)


def require_distance(every: int, times: np.ndarray) -> None:
    """Refuse a distance of initial times that neither divides the step of the states nor is a multiple of it: of most
    of the initial times that it asks for there would be no state.

    Raises:
        InputError: with the step.
    """
    if len(times) < 2:
        return
    step = int(np.diff(times).min() / np.timedelta64(1, "h"))
    if step and every % step and step % every:
        raise InputError(
            f"forecast.init_every is {every}h, and states are {step}h apart; choose a multiple, as {2 * step}h"
        )


def _on_step(times: np.ndarray, first: np.datetime64, every: int) -> np.ndarray:
    on_step: np.ndarray = (times - first) % np.timedelta64(every, "h") == np.timedelta64(0, "s")
    return on_step


def _named(hours: Sequence[int]) -> str:
    return ", ".join(f"{h}h" for h in hours)
