"""Units of forecasts: what their files say, and whether values can be what files without a word leave to be guessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from weatherfm.data_pipeline.fields.plausible import HUMIDITY, is_fraction, other_units, plausible_bounds, suspect_units
from weatherfm.data_pipeline.formats.units import Conversion, conversion_to
from weatherfm.earth.grid import Grid
from weatherfm.earth.variables import Channel, Variable
from weatherfm.errors import InputError

_WETTEST_MEAN = 0.02
"""Metres of precipitation: more than the mean over a map can be in a day, less than it is in millimetres."""

Sample = Callable[[], Mapping[Channel, np.ndarray]]
"""Reads some fields of each channel of a variable."""


def check_units(variable: Variable, said: str | None, sample: Sample, grid: Grid) -> Conversion:
    """How values become canonical: as they are, in any spelling of these units; values in others are not converted.

    A file that leaves units out is taken to be in ERA5's own, when the values can be nothing else. Relative humidity is
    the exception: WeatherBench2's own is a fraction of one without a word, and is read so where fields of the whole
    globe show that it can be nothing else.

    Args:
        variable: what the values are of.
        said: units by the file.
        sample: asked only where the file says none, and of relative humidity.
        grid: of the fields.

    Raises:
        InputError: other units, or values that are not (or not certainly) in the canonical ones; without the file's
            name.
    """
    silent = not str(said or "").strip()
    if variable.short in HUMIDITY and (silent or "%" in str(said)) and _all_fractions(sample(), grid):
        if not silent:
            raise InputError(
                f"has units {said!r}, but its values are a fraction of one: no global field reaches 2 %; multiply them "
                "by 100, or set the attribute to '1'"
            )
        return Conversion(100.0)
    if silent:
        _check_values(variable, said, sample)
        return Conversion()
    what = f"has units {said!r}, expected {variable.units!r}"
    try:
        same = conversion_to(variable, said) == Conversion()
    except InputError as error:
        raise InputError(f"{what}: {error}") from None
    if not same:
        raise InputError(f"{what}; convert the values, or mend the attribute")
    return Conversion()


def _all_fractions(fields: Mapping[Channel, np.ndarray], grid: Grid) -> bool:
    """True where every field [..., lat, lon] that can tell is a fraction, and one at least can tell."""
    told = [
        is_fraction(channel, float(np.nanmax(field)), grid)
        for channel, values in fields.items()
        if (channel.level or 1000) >= 50
        for field in values.reshape(-1, *values.shape[-2:])
        if np.isfinite(field).any()
    ]
    return bool(told) and all(told)


def _check_values(variable: Variable, said: str | None, sample: Sample) -> None:
    what = f"has units {said!r}, expected {variable.units!r}"
    cure = "convert the values where needed, and set the attribute"
    rivals = {units.name for units in other_units(Channel(variable)) if units.scale > 1}
    for channel, fields in sample().items():
        fields = fields[np.isfinite(fields)]
        if not len(fields):
            raise InputError(f"{what}, and has no values at {channel.name} that could tell: set the attribute")
        low, high = float(fields.min()), float(fields.max())
        bounds = plausible_bounds(channel)
        guess = suspect_units(channel, low, high)
        drenched = variable.short == "tp" and float(fields.mean()) > _WETTEST_MEAN
        if not (bounds[0] <= low and high <= bounds[1]) or drenched:
            likely = f", but could be {guess}" if guess else ""
            raise InputError(f"{what}; its values at {channel.name}, {low:g} to {high:g}, are not that{likely}: {cure}")
        rivals &= {
            units.name
            for units in other_units(channel)
            if bounds[0] <= units.scale * low + units.offset and units.scale * high + units.offset <= bounds[1]
        }
        if variable.short == "tp" and high <= 0:
            raise InputError(f"{what}, and its values looked at are all 0, which tells nothing: set the attribute")
    if rivals:
        raise InputError(f"{what}; its values could be {variable.units} or {', '.join(sorted(rivals))}: {cure}")
