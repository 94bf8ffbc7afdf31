"""Units of files to the canonical units of the channel table: converted where physics allows, refused otherwise."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from weatherfm.earth.constants import GRAVITY, WATER_DENSITY, ZERO_CELSIUS
from weatherfm.earth.variables import Variable
from weatherfm.errors import InputError

_Dimensions = tuple[int, int, int, int]  # powers of metre, second, kilogram, kelvin

_NONE, _LENGTH, _TIME, _MASS = (0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)
_PRESSURE, _TEMPERATURE = (-1, -2, 1, 0), (0, 0, 0, 1)

_SYMBOLS: dict[str, tuple[float, _Dimensions]] = {
    **dict.fromkeys(("1", "fraction", "proportion", "dimensionless", "numeric", "ratio", "code"), (1.0, _NONE)),
    **dict.fromkeys(("%", "percent"), (0.01, _NONE)),
    **dict.fromkeys(("m", "metre", "metres", "meter", "meters", "gpm", "geopotential_meter"), (1.0, _LENGTH)),
    **dict.fromkeys(("dam", "gpdam", "gpdm"), (10.0, _LENGTH)),
    **dict.fromkeys(("km", "kilometers", "kilometres"), (1e3, _LENGTH)),
    "cm": (1e-2, _LENGTH),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetres"), (1e-3, _LENGTH)),
    **dict.fromkeys(("s", "sec", "second", "seconds"), (1.0, _TIME)),
    "min": (60.0, _TIME),
    **dict.fromkeys(("h", "hr", "hour", "hours"), (3600.0, _TIME)),
    **dict.fromkeys(("d", "day", "days"), (86400.0, _TIME)),
    **dict.fromkeys(("kg", "kilogram", "kilograms"), (1.0, _MASS)),
    **dict.fromkeys(("g", "gram", "grams", "gm"), (1e-3, _MASS)),
    "mg": (1e-6, _MASS),
    **dict.fromkeys(("Pa", "pa", "pascal", "Pascal", "pascals", "Pascals"), (1.0, _PRESSURE)),
    **dict.fromkeys(
        ("hPa", "hpa", "HPa", "hectopascal", "hectopascals", "mb", "mbar", "millibar", "millibars", "mbars"),
        (1e2, _PRESSURE),
    ),
    "kPa": (1e3, _PRESSURE),
    **dict.fromkeys(("K", "k", "kelvin", "Kelvin", "kelvins", "degK", "deg_K", "degrees_K"), (1.0, _TEMPERATURE)),
    **dict.fromkeys(("J", "joule", "joules", "Joules"), (1.0, (2, -2, 1, 0))),
    **dict.fromkeys(("W", "watt", "watts", "Watts"), (1.0, (2, -3, 1, 0))),
    **dict.fromkeys(("knot", "knots", "kt", "kts"), (1852 / 3600, (1, -1, 0, 0))),
}
_CELSIUS = {
    "degc",
    "deg_c",
    "celsius",
    "c",
    "°c",
    "degrees_c",
    "degree_c",
    "degree_celsius",
    "degrees_celsius",
    "deg c",
}
_CELSIUS |= {"degrees celsius", "degree celsius", "degreec", "degreesc"}
_FAHRENHEIT = {"degf", "deg_f", "fahrenheit", "f", "°f", "degrees_fahrenheit", "degree_fahrenheit"}
_WATER = ("tp", "cp", "lsp", "sf", "csf", "lsf", "sd")
_MISSING = {"", "unknown", "none", "~", "-", "undefined", "not specified"}


@dataclass(frozen=True)
class Conversion:
    """canonical = factor * value + offset."""

    factor: float = 1.0
    offset: float = 0.0

    @property
    def is_identity(self) -> bool:
        """True when values are canonical as they are."""
        return self == Conversion()

    def apply(self, values: np.ndarray) -> np.ndarray:
        """The same shape in canonical units, float32; the arithmetic is float64, so it rounds once."""
        if self.is_identity:
            return values.astype(np.float32, copy=False)
        return self.exactly(values).astype(np.float32)

    def exactly(self, values: np.ndarray) -> np.ndarray:
        """The same shape in canonical units, float64, for sums."""
        return values.astype(np.float64) * self.factor + self.offset


@lru_cache(maxsize=512)
def conversion_to(variable: Variable, units: str | None) -> Conversion:
    """How values of `variable` in a file's `units` become the table's.

    Missing units are read as canonical for dimensionless fields (masks, fractions) and refused otherwise.

    Raises:
        InputError: units are missing, not understood, or of another quantity; without the file's name.
    """
    target_factor, target = _parse(variable.units) or (1.0, _NONE)
    text = (units or "").strip()
    if text == variable.units:
        return Conversion()
    if text.lower() in _MISSING:
        if target == _NONE and variable.units == "1":
            return Conversion()
        raise InputError(f"does not say its units ({units!r}); expected {variable.units} or a multiple of it")
    if target == _TEMPERATURE and text.lower() in _CELSIUS:
        return Conversion(1.0, ZERO_CELSIUS)
    if target == _TEMPERATURE and text.lower() in _FAHRENHEIT:
        return Conversion(5 / 9, 459.67 * 5 / 9)
    parsed = _parse(text)
    if parsed is None:
        raise InputError(f"has units {units!r}, which are not understood; expected {variable.units}")
    factor, dimensions = parsed
    if dimensions != target:
        bridge = _bridge(variable, dimensions)
        if bridge is None:
            raise InputError(f"has units {units!r}, which do not convert to {variable.units}")
        factor *= bridge
    ratio = factor / target_factor
    return Conversion(1.0 if abs(ratio - 1) < 1e-12 else ratio)


def is_rate(variable: Variable, units: str | None) -> bool:
    """True for units of what adds up to `variable` over time, as kg m-2 s-1 and W m-2 do to m of water and J m-2."""
    parsed = _parse((units or "").strip())
    if parsed is None or not variable.accumulated:
        return False
    length, time, mass, kelvin = parsed[1]
    over_time = length, time + 1, mass, kelvin
    return over_time == (_parse(variable.units) or (1.0, _NONE))[1] or _bridge(variable, over_time) is not None


def conversion_of_rate(variable: Variable, units: str | None, hours: float, sign: int) -> Conversion:
    """How mean rates over `hours` in units of a rate become sums of `variable` (`sign` -1: counted the other way).

    Raises:
        InputError: units of no rate of it, without the file's name.
    """
    of_a_second = conversion_to(variable, f"{units} s")
    return Conversion(sign * of_a_second.factor * 3600 * float(hours))


def pressure_factor(units: str) -> float | None:
    """What a pressure in `units` is multiplied by to give hPa, or None for other units."""
    parsed = _parse(units)
    return parsed[0] / 100 if parsed and parsed[1] == _PRESSURE else None


def _bridge(variable: Variable, dimensions: _Dimensions) -> float | None:
    """Factor between two quantities that archives use for one another, or None."""
    if variable.short in ("z", "orography") and dimensions == _LENGTH:
        return GRAVITY  # geopotential height
    if variable.short in _WATER and dimensions == (-2, 0, 1, 0):
        return 1 / WATER_DENSITY
    if variable.short == "tcwv" and dimensions == _LENGTH:
        return WATER_DENSITY
    return None


def _parse(text: str) -> tuple[float, _Dimensions] | None:
    """Factor to SI and dimensions of a product of powers, such as `m**2 s**-2`, `g/kg` or `kg m^-2`."""
    text = re.sub(r"\bof water( equivalent)?\b", "", text.strip())
    if re.fullmatch(r"\(?\s*0\s*(-|to|\.\.)\s*1\s*\)?", text):
        return 1.0, _NONE
    text = re.sub(r"\*\*|\^|[{}()\[\]]", "", text).replace("*", " ").replace("·", " ")
    text = re.sub(r"(?<=[A-Za-z0-9])\.(?=[A-Za-z])", " ", text)
    text = re.sub(r"(?<=[A-Za-z])\+(?=\d)", "", text)  # NASA writes m+2 s-2
    factor, dimensions = 1.0, np.zeros(4, int)
    position = 0
    for match in re.finditer(r"\s*(/?)\s*([A-Za-z_%°]+|1(?![0-9]))(-?\d+)?\s*", text):
        if match.start() != position or match[2] not in _SYMBOLS:
            return None
        position = match.end()
        power = int(match[3] or 1) * (-1 if match[1] else 1)
        base, base_dimensions = _SYMBOLS[match[2]]
        factor *= base**power
        dimensions += power * np.array(base_dimensions)
    if position == 0 or position != len(text):
        return None
    a, b, c, d = (int(n) for n in dimensions)
    return factor, (a, b, c, d)
