"""Wavelengths of bands in nm, and which bands a channel is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from weatherfm.data_pipeline.picture_config import CubesSource
from weatherfm.earth.variables import Channel
from weatherfm.errors import InputError, some_of

_FACTORS = {
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres"), 1.0),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "micron", "microns", "micrometer", "micrometers"), 1e3),
    **dict.fromkeys(("micrometre", "micrometres"), 1e3),
}
_LIGHT = (100.0, 2e4)
"""nm that bands can have."""
_SAME = 0.01
"""nm by which wavelengths of two cubes may differ."""


def in_nm(values: Sequence[float], said: object, setting: str | None, path: str) -> tuple[float, ...]:
    """Wavelengths in nm.

    Args:
        values: [band] in their own units.
        said: units by the file, or None.
        setting: units by the settings, for files that do not say them.
        path: for messages.

    Raises:
        InputError: units that are not known, or wavelengths of no light.
    """
    factor = _FACTORS.get(str(said).strip().lower()) or _FACTORS.get(setting or "")
    if factor is None:
        told = "does not say the units of its wavelengths" if said is None else f"has wavelengths in {said!r}"
        raise InputError(f"{path} {told}; say them with source.wavelength_units: nm (or um)")
    found = tuple(round(factor * value, 6) for value in values)
    if odd := [value for value in found if not _LIGHT[0] <= value <= _LIGHT[1]]:
        raise InputError(
            f"{path} has a band at {odd[0]:g} nm, which is no light between {_LIGHT[0]:g} and {_LIGHT[1]:g} nm; "
            "correct its wavelengths, or their units"
        )
    return found


def stated_wavelengths(source: CubesSource) -> tuple[float, ...]:
    """[band] nm by the settings, or the file that they name; empty where they say nothing.

    Raises:
        InputError: a file that holds no numbers, or no units beside the numbers.
    """
    if source.wavelengths is None:
        return ()
    if not isinstance(source.wavelengths, str):
        return in_nm(source.wavelengths, None, source.wavelength_units, "source.wavelengths")
    try:
        values = np.loadtxt(Path(source.wavelengths), np.float64, delimiter=None, ndmin=1).ravel()
    except (OSError, ValueError) as error:
        raise InputError(
            f"source.wavelengths names {source.wavelengths}, which is no text of numbers ({error}); write one a line"
        ) from None
    return in_nm(values.tolist(), None, source.wavelength_units, source.wavelengths)


def same_bands(one: Sequence[float], two: Sequence[float]) -> bool:
    """Whether two cubes have the same bands."""
    return len(one) == len(two) and bool(np.allclose(one, two, rtol=0, atol=_SAME))


def choose_bands(
    channels: Sequence[Channel], wavelengths: Sequence[float], bad: frozenset[int], source: CubesSource
) -> tuple[tuple[int, ...], ...]:
    """[channel] the bands that each is the mean of; one where it is the nearest.

    Args:
        channels: at whole nm.
        wavelengths: [band] nm.
        bad: bands that are not used.
        source: how near, or how wide.

    Raises:
        InputError: a channel without a band, or two of the same band.
    """
    centres = np.array([np.inf if i in bad else value for i, value in enumerate(wavelengths)])
    wanted = np.array([channel.level for channel in channels], np.float64)
    if source.band_width is not None:
        half = source.band_width / 2
        chosen = [np.flatnonzero((centres >= at - half) & (centres < at + half)) for at in wanted]
        near = f"in {source.band_width:g} nm about"
    else:
        nearest = [int(np.argmin(np.abs(centres - at))) for at in wanted]
        close = np.abs(centres[nearest] - wanted) <= source.tolerance
        chosen = [np.array([i] * bool(ok), np.int64) for i, ok in zip(nearest, close, strict=True)]
        near = f"within {source.tolerance:g} nm of"
    if empty := [channel.name for channel, bands in zip(channels, chosen, strict=True) if not len(bands)]:
        there = centres[np.isfinite(centres)]
        span = f"from {there.min():g} to {there.max():g} nm" if len(there) else "none that is good"
        raise InputError(
            f"no band lies {near} {some_of(empty, 3)}; the cubes have {len(there)} bands, {span}: choose "
            "other wavelengths, or set source.tolerance or source.band_width"
        )
    sets = [tuple(bands.tolist()) for bands in chosen]
    for i, bands in enumerate(sets):
        if bands in sets[:i]:
            twin = channels[sets.index(bands)].name
            raise InputError(
                f"{twin} and {channels[i].name} are the same band ({wavelengths[bands[0]]:g} nm); choose wavelengths "
                "as far apart as the bands, or fewer"
            )
    return tuple(sets)
