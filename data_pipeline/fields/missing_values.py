"""What may be missing of fields: points of a mask, and whole times, which become gaps. All else is an error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weatherfm.data_pipeline.fields.masks import Masks
from weatherfm.data_pipeline.fields.time_axis import name_times
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError, some_of

_OF_EMPTY = (
    "leave these days out (data.exclude), make gaps of such times (data.allow_gaps), or mend the source; "
    "shards written before are kept"
)
_OF_PICTURES = (
    "say in the cubes' headers which value marks missing pixels (data ignore value), make these pixels background "
    "(source.plant), leave the wavelength out, or mend the files; shards written before are kept"
)


def of_pictures(channels: Sequence[str]) -> bool:
    """Whether channels are at wavelengths: what is to be done about their values is another thing than of weather."""
    return all(parse_channel(name).variable.on_wavelengths for name in channels)


class EmptyTimes(InputError):
    """Times at which a channel has no value at all.

    Args:
        message: for people.
        times: [n] datetime64.
    """

    def __init__(self, message: str, times: np.ndarray) -> None:
        super().__init__(message, times)
        self.times = times

    def __str__(self) -> str:
        return str(self.args[0])


def check_values(values: np.ndarray, channels: Sequence[str], times: np.ndarray, masks: Masks) -> None:
    """Fields must be finite everywhere, but for the points of a mask, which have no value at any time.

    Args:
        values: [time, channel, lat, lon].
        channels: short names.
        times: [time] datetime64.
        masks: of those channels that have one.

    Raises:
        EmptyTimes: a channel has no value at all at some time.
        InputError: names the channels, how many values and the first times.
    """
    if not any(name in masks for name in channels) and all(np.isfinite(fields).all() for fields in values):
        return
    _refuse_empty(values, channels, times)
    texts = []
    for name, fields in zip(channels, values.swapaxes(0, 1), strict=True):
        texts += _faults(name, fields, times, masks.get(name))
    if texts and of_pictures(channels):
        raise InputError(f"{'; '.join(texts)} that are not finite (NaN or infinite); {_OF_PICTURES}")
    if texts:
        raise InputError(
            f"values that are not finite (NaN or infinite): {'; '.join(texts)}. "
            "Leave the channel out, or these days (data.exclude), or mend the source; shards written before are kept"
        )


def _refuse_empty(values: np.ndarray, channels: Sequence[str], times: np.ndarray) -> None:
    empty = np.stack([np.isnan(fields).all((1, 2)) for fields in values])  # [time, channel]
    if empty.any():
        when, names = times[empty.any(1)], [channels[int(channel)] for channel in np.flatnonzero(empty.any(0))]
        raise EmptyTimes(
            f"{some_of(names, 3)} have no value at all at {name_times(when)}: every one is missing (NaN); "
            f"{_OF_PICTURES if of_pictures(channels) else _OF_EMPTY}",
            when,
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
