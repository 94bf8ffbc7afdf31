"""Points where a channel never has a value, as sea surface temperature over land: its mask.

A mask is what is missing at the first time. It is part of the store, and of what a field must look like: a value that
is missing elsewhere at any later time is an error, as is one where there was none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from weatherfm.data_pipeline.fields.time_axis import name_times
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError

if TYPE_CHECKING:
    from weatherfm.data_pipeline.fields.source_data import SourceData

Masks = Mapping[str, np.ndarray]
"""Channel -> [lat, lon] bool, True where it never has a value; channels that have one everywhere are not in it."""


def may_be_masked(channel: str) -> bool:
    """Whether a channel is of a kind that some points have no value of."""
    return parse_channel(channel).variable.masked


def find_masks(channels: Sequence[str], source: SourceData, first: int) -> Masks:
    """The masks of a source's channels; only those that may have one are read, at one time.

    Args:
        channels: short names, in the order of the source.
        source: of their fields.
        first: position of the first time on the source's axis.

    Raises:
        InputError: a channel has no value at all.
    """
    asked = [channel for channel, name in enumerate(channels) if may_be_masked(name)]
    if not asked:
        return {}
    fields = source.fields.read(np.array([first]), np.array(asked))[0]
    found = {channels[channel]: np.isnan(field) for channel, field in zip(asked, fields, strict=True)}
    if empty := [name for name, mask in found.items() if mask.all()]:
        raise InputError(
            f"{', '.join(empty)} has no value at all at the first time: every one is missing (NaN); leave the channel "
            "out, or choose days that have it"
        )
    return {name: mask for name, mask in found.items() if mask.any()}


def zero_masked(fields: np.ndarray, channels: Sequence[str], masks: Masks) -> np.ndarray:
    """The same `fields` [..., channel, lat, lon], changed: 0 where a channel never has a value."""
    for channel, name in enumerate(channels):
        if name in masks:
            fields[..., channel, masks[name]] = 0
    return fields


def check_values(values: np.ndarray, channels: Sequence[str], times: np.ndarray, masks: Masks) -> None:
    """Fields must be finite everywhere, but for the points of a mask, which have no value at any time.

    Args:
        values: [time, channel, lat, lon].
        channels: short names.
        times: [time] datetime64.
        masks: of those channels that have one.

    Raises:
        InputError: names the channels, how many values and the first times.
    """
    if not any(name in masks for name in channels) and all(np.isfinite(fields).all() for fields in values):
        return
    texts = []
    for name, fields in zip(channels, values.swapaxes(0, 1), strict=True):
        texts += _faults(name, fields, times, masks.get(name))
    if texts:
        raise InputError(
            f"values that are not finite (NaN or infinite): {'; '.join(texts)}. "
            "Leave the channel out, choose other days, or mend the source; shards written before are kept"
        )


def _faults(name: str, fields: np.ndarray, times: np.ndarray, mask: np.ndarray | None) -> list[str]:
    """What is wrong with one channel's fields [time, lat, lon], in words."""
    finite = np.isfinite(fields)
    if mask is None:
        return _counted(f"{name} has {{}}", ~finite, times)
    outside = _counted(f"{name} has {{}} outside its mask (what is missing at the first time)", ~finite & ~mask, times)
    return outside + _counted(f"{name} has {{}} inside its mask, where it has none", ~np.isnan(fields) & mask, times)


def _counted(text: str, bad: np.ndarray, times: np.ndarray) -> list[str]:
    when = times[bad.any(axis=(1, 2))]
    return [f"{text.format(int(bad.sum()))} at {name_times(when, 3)}"] if len(when) else []
