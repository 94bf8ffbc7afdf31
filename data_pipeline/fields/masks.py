"""Points where a channel never has a value, as sea surface temperature over land: its mask.

A mask is what is missing at the first time. It is part of the store, and of what a field must look like: a value that
is missing elsewhere at any later time is an error, as is one where there was none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

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
