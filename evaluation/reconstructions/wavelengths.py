"""Channels by wavelength: three for a picture in colours, two for the vegetation index NDVI."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weatherfm.earth.variables import parse_channel

_RED, _GREEN, _BLUE = 650, 550, 450
_FALSE_REACH, _NDVI_REACH = 40, 25
"""nm that a channel may be away from what is wanted."""


def wavelengths_of(channels: Sequence[str]) -> np.ndarray | None:
    """[C] nm; None where a channel is not at a wavelength."""
    parsed = [parse_channel(name) for name in channels]
    if not all(channel.variable.on_wavelengths for channel in parsed):
        return None
    return np.array([channel.level for channel in parsed], float)


def colour_channels(channels: Sequence[str]) -> tuple[int, int, int] | None:
    """Places of the channels that a picture shows as red, green and blue: as the eye does where there is light that it
    sees, else spread over what there is, longest first; None where channels are not at wavelengths, or fewer than
    three."""
    nm = wavelengths_of(channels)
    if nm is None or len(nm) < 3:
        return None
    chosen = [_nearest(nm, wanted, _FALSE_REACH) for wanted in (_RED, _GREEN, _BLUE)]
    if None in chosen or len({*chosen}) < 3:
        order = np.argsort(nm)
        chosen = [int(order[place]) for place in (len(nm) * 5 // 6, len(nm) // 2, len(nm) // 6)]
    red, green, blue = chosen
    assert red is not None
    assert green is not None
    assert blue is not None
    return red, green, blue


def vegetation_channels(channels: Sequence[str]) -> tuple[int, int] | None:
    """Places of (near infrared 800 nm, red 670 nm), of the normalised difference vegetation index (Rouse et al. 1974);
    None without such channels."""
    nm = wavelengths_of(channels)
    if nm is None:
        return None
    infrared, red = (_nearest(nm, wanted, _NDVI_REACH) for wanted in (800, 670))
    return None if infrared is None or red is None else (infrared, red)


def vegetation_index(infrared: np.ndarray, red: np.ndarray, darkest: float = 0.02) -> np.ndarray:
    """(infrared - red) / (infrared + red) of reflectances of the same shape; NaN where their sum is below `darkest`, as
    of background: there it would be noise."""
    with np.errstate(invalid="ignore", divide="ignore"):  # of points that are not there
        return np.where(infrared + red >= darkest, (infrared - red) / (infrared + red), np.nan)


def index_of_guess(infrared: np.ndarray, red: np.ndarray) -> np.ndarray:
    """The same of a reconstruction: at every pixel, from -1 to 1, for those that went wrong count, too. Reflectances
    below 0 are taken for 0, and of a pixel without any light the index is 0."""
    infrared, red = np.maximum(infrared, 0), np.maximum(red, 0)
    light = infrared + red
    with np.errstate(invalid="ignore"):  # of points that are not there
        return np.where(light > 0, (infrared - red) / np.where(light > 0, light, 1), 0)


def _nearest(nm: np.ndarray, wanted: float, reach: float) -> int | None:
    place = int(np.abs(nm - wanted).argmin())
    return place if abs(nm[place] - wanted) <= reach else None
