"""Weights of channels in the loss: by hand, or by pressure and variable.

With the scheme `pressure`, a field on a pressure level p counts w_v * p / mean(p), the mean over the levels that the
run has of that variable, and a field at the surface w_v; w_v is 1 on levels and for `t2m`, and 0.1 for all else at the
surface.

p / mean(p), 1 and 0.1 (GraphCast gives 0.1 to u10, v10, msl and precipitation) are those of GraphCast's training
objective (arXiv 2212.12794; `losses.py` and `graphcast.py` of its code). GraphCast's code and Stormer's
(arXiv 2312.03876, `data_utils.py`) then take the mean over the levels of a variable, so that all levels of one together
count as much as `t2m`; here every channel counts for itself, and `t2m` as much as one level of mean pressure. With
L levels of each variable, `t2m: L`, `u10: 0.1 L` and so on give their balance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from weatherfm.earth.variables import Channel, parse_channel
from weatherfm.errors import InputError

_SURFACE = {"t2m": 1.0}
_OTHER_SURFACE = 0.1


def weights_by_channel(channels: Sequence[str], given: Mapping[str, float | str]) -> list[float]:
    """Weights of channels, not yet divided by their mean.

    Args:
        channels: all that share the loss.
        given: `training.channel_weights`. A channel's weight stands for all of the above; a variable's is its w_v.

    Raises:
        InputError: a channel that the table does not know.
    """
    if not given:
        return [1.0] * len(channels)
    known = [parse_channel(name) for name in channels]
    by_pressure = given.get("scheme") == "pressure"
    return [_weight(channel, known, given, by_pressure) for channel in known]


def normalised_weights(channels: Sequence[str], given: Mapping[str, float | str]) -> Tensor:
    """[C] float64 weights of channels, of mean 1; arguments as of `weights_by_channel`.

    Raises:
        InputError: a channel that the table does not know, or every channel has weight zero.
    """
    weights = torch.tensor(weights_by_channel(channels, given), dtype=torch.float64)
    if not weights.sum() > 0:
        raise InputError("training.channel_weights gives every channel weight zero; leave one above zero")
    return weights / weights.mean()


def _weight(channel: Channel, known: Sequence[Channel], given: Mapping[str, float | str], by_pressure: bool) -> float:
    variable = channel.variable.short
    if channel.name in given:
        return float(given[channel.name])
    if not by_pressure:
        return float(given.get(variable, 1.0))
    if channel.level is None:
        return _SURFACE.get(variable, _OTHER_SURFACE)  # by its name it would have been given above
    levels = [other.level for other in known if other.variable is channel.variable and other.level]
    return float(given.get(variable, 1.0)) * channel.level * len(levels) / sum(levels)
