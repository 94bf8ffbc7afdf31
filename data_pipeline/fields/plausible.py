"""Which values a channel can have on Earth, by pressure level, and which wrong units give themselves away.

The bounds are not climatology: they lie well outside of all that has been observed or analysed, so that weather never
breaks them and wrong units, swapped levels and damage do. Their sources, each widened by a margin: the International
Standard Atmosphere (geopotential and temperature of each level); the record surface pressures 870 hPa (typhoon Tip,
1979) and 1,084 hPa (Agata, 1968), from which the hypsometric equation gives the extremes of geopotential near the
ground; the record temperatures -89.2 degC (Vostok, 1983) and 56.7 degC (Death Valley, 1913); polar nights of 170 K and
sudden stratospheric warmings of 300 K; jets of 110 m/s at 250 hPa and 160 m/s at the stratopause; saturation over warm
water for specific humidity. Below the ground, analyses extrapolate: lower levels have room for that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weatherfm.earth.grid import Grid
from weatherfm.earth.variables import GRAVITY, Channel

_LEVELS = (1, 10, 50, 100, 200, 300, 500, 700, 850, 1000)
"""hPa of the columns below; between them, bounds are linear in the logarithm of pressure."""
_BY_LEVEL: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "z": (
        (3.6e5, 2.45e5, 1.70e5, 1.34e5, 9.6e4, 7.3e4, 4.4e4, 1.9e4, 1.7e3, -1.4e4),
        (5.5e5, 3.45e5, 2.16e5, 1.76e5, 1.31e5, 1.02e5, 6.1e4, 3.5e4, 1.9e4, 9.0e3),
    ),
    "t": (
        (175, 160, 160, 160, 175, 185, 190, 185, 180, 180),
        (345, 325, 275, 265, 260, 270, 290, 310, 325, 340),
    ),
    "u": (
        (-250, -200, -150, -150, -170, -160, -140, -130, -130, -110),
        (250, 200, 150, 150, 170, 160, 140, 130, 130, 110),
    ),
    "v": (
        (-220, -170, -130, -130, -150, -150, -140, -130, -130, -110),
        (220, 170, 130, 130, 150, 150, 140, 130, 130, 110),
    ),
    "q": (
        (-1e-5, -1e-5, -1e-5, -2e-5, -1e-4, -2e-4, -5e-4, -1e-3, -1e-3, -1e-3),
        (4e-5, 4e-5, 1e-4, 2e-4, 1.5e-3, 5e-3, 1.5e-2, 2.4e-2, 3.2e-2, 4.5e-2),
    ),
}
"""Variable -> (lowest, highest) by level in canonical units; every other variable has the bounds of variables.py."""

SUNSHINE = 1415.0
"""W m-2: a little more than the solar constant (1,361) at the Earth's least distance from the sun (0.983)."""
DRIEST_GLOBE = 2.0
"""% of relative humidity that is exceeded somewhere on the globe at any time."""
HUMIDITY = ("r", "r2m")
"""Variables in % that some keep as a fraction."""
REACHED = {**dict.fromkeys(HUMIDITY, DRIEST_GLOBE), **dict.fromkeys(("tcc", "lcc", "mcc", "hcc", "siconc"), 0.02)}
"""Variables that some keep in %, others as a fraction -> what is exceeded somewhere on the globe at any time."""

MAY_BE_UNIFORM = (
    *("tp", "sf", "sd", "tisr", "tsr", "ssr", "ssrd", "siconc", "sst", "clwc", "ciwc", "tcc", "cape", "o3"),
    *("swvl1", "swvl2", "swvl3", "swvl4", "cp", "lsp", "csf", "lsf", "lcc", "mcc", "hcc"),
)
"""Variables whose field can be the same everywhere, as precipitation on a dry day or sunshine at night."""


@dataclass(frozen=True)
class OtherUnits:
    """Units that data come in by mistake: canonical value = scale * value + offset."""

    name: str
    scale: float
    offset: float = 0.0


_OTHER_UNITS: dict[str, tuple[OtherUnits, ...]] = {
    "K": (OtherUnits("degrees Celsius", 1, 273.15), OtherUnits("degrees Fahrenheit", 5 / 9, 459.67 * 5 / 9)),
    "Pa": (OtherUnits("hPa", 100), OtherUnits("kPa", 1000)),
    "m2 s-2": (
        OtherUnits("metres (geopotential height)", GRAVITY),
        OtherUnits("decametres (geopotential height)", 10 * GRAVITY),
    ),
    "kg kg-1": (OtherUnits("g/kg", 1e-3), OtherUnits("mg/kg", 1e-6)),
    "m": (OtherUnits("millimetres", 1e-3),),
    "1": (OtherUnits("per cent", 1e-2),),
    "%": (OtherUnits("a fraction of one", 1e2),),
}


_SUN = 1361 * 1.035
"""W m-2 of sunshine above the atmosphere in early January, when the Earth is nearest to the sun: the solar constant
(Kopp and Lean 2011) and 3.5 %."""


def plausible_bounds(channel: Channel, hours: float | None = None) -> tuple[float, float]:
    """Lowest and highest value, canonical units, that a channel can have on Earth; of sums, over `hours`."""
    low, high = channel.variable.bounds
    if hours is not None and channel.variable.accumulated and channel.units == "J m-2":
        high = min(high, _SUN * 3600 * hours)
    if channel.level is None or channel.variable.short not in _BY_LEVEL:
        return low, high
    at, known = np.log(channel.level), np.log(_LEVELS)
    lower, upper = (float(np.interp(at, known, row)) for row in _BY_LEVEL[channel.variable.short])
    return max(low, lower), min(high, upper)


def other_units(channel: Channel) -> tuple[OtherUnits, ...]:
    """Units that a channel's data could be in by mistake."""
    return _OTHER_UNITS.get(channel.units, ())


def suspect_units(channel: Channel, low: float, high: float) -> str | None:
    """Name of the units in which values from `low` to `high` would be plausible; None where none would."""
    bounds = plausible_bounds(channel)
    for units in other_units(channel):
        if bounds[0] <= units.scale * low + units.offset and units.scale * high + units.offset <= bounds[1]:
            return units.name
    return None


def bounds_of_sums(channel: Channel, hours: float | None) -> float | None:
    """Most (and, with a minus, least) that a sum of radiation over `hours` can be, J m-2; None of other channels.

    Above the atmosphere the sun gives 1,408 W m-2 at most, early in January: a sum beyond that is one over a longer
    span, as ERA5-Land's since midnight.
    """
    if hours is None or not channel.variable.accumulated or channel.units != "J m-2":
        return None
    return SUNSHINE * 3600 * hours


def is_fraction(channel: Channel, highest: float, grid: Grid) -> bool:
    """True where the highest value shows a fraction of one that is called %: values are 100 times too small.

    Somewhere on a globe air is always near saturation (from 50 hPa down), some sky is overcast and some sea frozen. A
    field of zeros is another fault.
    """
    least = REACHED.get(channel.variable.short)
    if least is None or (channel.level or 1000) < 50 or not is_global(grid):
        return False
    return highest < least and (highest > 0 or channel.variable.short in HUMIDITY)


def with_units(value: float, channel: Channel) -> str:
    """A value for messages: `1.2 %`, `0.01`."""
    return f"{value:.3g}" + ("" if channel.units == "1" else f" {channel.units}")


def is_global(grid: Grid) -> bool:
    """True where the grid leaves out no more than a cap about each pole."""
    if grid.plane:
        return False
    step = 360 / grid.shape[1]
    around = bool(np.allclose(np.diff(grid.longitude), step, atol=0.01 * step))
    return around and float(np.ptp(grid.latitude) - np.diff(grid.latitude).min()) > 165
