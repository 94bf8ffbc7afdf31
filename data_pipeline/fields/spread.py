"""Spreads that no model can learn from: none at all, none over the tendency lead, or no more than rounding makes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from weatherfm.data_pipeline.fields.plausible import plausible_bounds
from weatherfm.earth.variables import parse_channel

PACKING = 2.0**-16
"""Of the largest value: the step of 16-bit packing, and more than a hundred times that of float32. The spread of
weather is a hundredth of its values, that of its changes a thousandth or more."""
NOTHING = 1e-8
"""Of the width of what is possible on Earth: a spread about zero that is rounding too."""


def doubts_about_spread(
    channels: Sequence[str],
    std: np.ndarray,
    tendency_std: np.ndarray,
    minimum: np.ndarray,
    maximum: np.ndarray,
    tendency_lead: int,
    logged: Collection[str] = (),
) -> list[str]:
    """What to warn of before a model is trained on a store, one line a channel and none where all is well.

    Args:
        channels: [channel] short names.
        std: [channel] over the training days, canonical units; so are all below.
        tendency_std: [channel] of the change over the lead; NaN where no two training times are so far apart.
        minimum: [channel].
        maximum: [channel].
        tendency_lead: hours.
        logged: channels whose spreads are of their logarithm, and say nothing about the rounding of their values.
    """
    found = []
    for i, name in enumerate(channels):
        channel, largest = parse_channel(name), max(abs(float(minimum[i])), abs(float(maximum[i])))
        noise = 0.0 if name in logged else rounding(name, largest)
        spread, change = float(std[i]), float(tendency_std[i])
        if not spread > 0:
            found.append(f"{name} does not vary over the training days: no model can train on it; leave it out")
        elif spread <= noise:
            found.append(
                f"{name} varies by {spread:.3g} {channel.units} about values up to {largest:.3g}, no more than packing "
                "or rounding make of a field that does not vary: leave it out, or see whether the source holds it"
            )
        elif change <= noise:  # NaN compares as false
            how = "not at all" if change == 0 else f"by {change:.3g}, no more than rounding makes,"
            found.append(
                f"{name} varies (std {spread:.3g} {channel.units}), but {how} over the tendency lead of "
                f"{tendency_lead}h, as a field that repeats itself does: set data.tendency_lead to another span, e.g. "
                f"{max(1, tendency_lead // 4)}h, or leave it out"
            )
    return found


def doubts_about_values(channels: Sequence[str], minimum: np.ndarray, maximum: np.ndarray) -> list[str]:
    """Channels whose values over the training days, canonical units, are impossible on Earth: one line each."""
    found = []
    for name, low, high in zip(channels, minimum, maximum, strict=True):
        channel = parse_channel(name)
        bounds = plausible_bounds(channel)
        if low < bounds[0] or high > bounds[1]:
            found.append(
                f"{name} reaches from {low:.6g} to {high:.6g} {channel.units}, possible on Earth is {bounds[0]:g} to "
                f"{bounds[1]:g}: a missing value that the file does not declare, or damage; `weatherfm verify` names "
                "the times"
            )
    return found


def rounding(name: str, largest: float) -> float:
    """Spread that packing and rounding alone can give a channel whose values reach up to `largest`."""
    low, high = plausible_bounds(parse_channel(name))
    return max(PACKING * largest, NOTHING * (high - low))
