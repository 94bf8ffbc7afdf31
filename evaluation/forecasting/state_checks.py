"""States that a forecast may start from: every value is there, and possible on Earth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weatherfm.data_pipeline.fields.masks import Masks
from weatherfm.data_pipeline.fields.plausible import is_fraction, plausible_bounds, suspect_units, with_units
from weatherfm.data_pipeline.store.states import States
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError


def require_sound(fields: np.ndarray, times: np.ndarray, channels: Sequence[str], states: States, masks: Masks) -> None:
    """Refuse states [U, M, C, H, W] that a forecast from them would be worth nothing.

    One missing value would spread over the whole forecast; values in other units than their file says, swapped levels
    and fill values give a forecast that looks like one. Lowest and highest value of each field tell all of it.

    Args:
        fields: in canonical units.
        times: [U] datetime64.
        channels: short names [C].
        states: they are of.
        masks: of the model: what the states hold there is not looked at.

    Raises:
        InputError: naming the first by channel, time and member.
    """
    low, high = np.empty((2, *fields.shape[:3]), fields.dtype)  # [U, M, C]; NaN and infinity come through
    for c, channel in enumerate(channels):
        seen = fields[:, :, c, ~masks[channel]] if channel in masks else fields[:, :, c].reshape(*low.shape[:2], -1)
        low[:, :, c], high[:, :, c] = seen.min(-1), seen.max(-1)
    finite = np.isfinite(low) & np.isfinite(high)
    if not finite.all():
        first = tuple(np.argwhere(~finite)[0])
        what = "missing" if np.isnan(low[first]) else "infinite"
        raise InputError(
            f"{states.name} has {what} values in {_where(first, times, channels, states)} ({_count(~finite)}); a "
            "forecast needs every point: fill them, or forecast from other times"
        )
    if states.simulated:
        return  # a planet that is not the Earth
    bounds = np.array([plausible_bounds(parse_channel(channel)) for channel in channels])  # [C, 2]
    odd = (low < bounds[:, 0]) | (high > bounds[:, 1])
    if odd.any():
        first = tuple(np.argwhere(odd)[0])
        raise InputError(
            f"{states.name} has impossible values in {_where(first, times, channels, states)}: "
            f"{_impossible(channels[first[2]], float(low[first]), float(high[first]))} ({_count(odd)})"
        )
    _refuse_fractions(high, times, channels, states)


def _refuse_fractions(high: np.ndarray, times: np.ndarray, channels: Sequence[str], states: States) -> None:
    """Refuse what its highest values [U, M, C] show to be a fraction of one that is called %."""
    for index in np.ndindex(high.shape):
        channel = parse_channel(channels[index[2]])
        if is_fraction(channel, float(high[index]), states.grid):
            raise InputError(
                f"{states.name} has impossible values in {_where(index, times, channels, states)}: at most "
                f"{with_units(float(high[index]), channel)} all over the globe: they are a fraction of one that was "
                "called %; multiply them by 100, or set the attribute units to '1'"
            )


def _impossible(name: str, low: float, high: float) -> str:
    """What is wrong with values from `low` to `high`, and what to do."""
    channel = parse_channel(name)
    least, most = plausible_bounds(channel)
    worst = low if low < least else high
    units = "" if channel.units == "1" else f" {channel.units}"
    text = f"{worst:g}{units} (they go from {low:g} to {high:g}; on Earth from {least:g} to {most:g}); "
    if likely := suspect_units(channel, low, high):
        return text + f"they look like {likely}: convert the values, or mend the units the states say they have"
    return text + (
        "look for fill values that are not marked as missing, swapped levels and other units; states of another "
        "planet say so with a Dataset's attribute simulated='true'"
    )


def _where(index: Sequence[int], times: np.ndarray, channels: Sequence[str], states: States) -> str:
    time, member, channel = index
    of = f", member {states.numbers[member]}" if states.numbers else ""
    return f"{channels[channel]} at {times[time]}{of}"


def _count(bad: np.ndarray) -> str:
    return f"{bad.sum()} of {bad.size} fields"
