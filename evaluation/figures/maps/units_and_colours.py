"""How a channel is shown on a picture: its name in words, units, colours and contour levels.

Scores and files keep canonical units. Pictures of fields use those of the weather chart (dam, hPa, degrees C), and
their labels say so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from weatherfm.earth.constants import GRAVITY, ZERO_CELSIUS
from weatherfm.earth.variables import parse_channel
from weatherfm.evaluation.results.words import at_level, pretty_units, variable_in_words

ERROR_COLOURS = "RdBu_r"


@dataclass(frozen=True)
class Display:
    """A field value v is shown as `scale * v + offset` in `units`, an error as `scale * error` in `error_units`."""

    units: str
    error_units: str
    scale: float = 1.0
    offset: float = 0.0
    colours: str = "viridis"
    """Matplotlib colour map, perceptually uniform."""
    signed: bool = False
    """True where zero is a middle, as of wind: colours are centred on it."""
    contours: bool = False
    """True where contour lines are drawn as well."""
    quantity: str | None = None
    """What is shown where it is not the variable itself."""

    def field(self, values: np.ndarray) -> np.ndarray:
        """A field in canonical units, in the units shown."""
        return self.scale * np.asarray(values, np.float64) + self.offset

    def error(self, values: np.ndarray) -> np.ndarray:
        """A difference in canonical units, in the units shown."""
        return self.scale * np.asarray(values, np.float64)


_DAM = Display("dam", "dam", 1 / GRAVITY / 10, contours=True, quantity="geopotential height (z ÷ g)")
_METRES = Display("m", "m", 1 / GRAVITY, colours="cividis", quantity="orography (z ÷ g)")
_PRESSURE = Display("hPa", "hPa", 0.01, contours=True)
_CELSIUS = Display("°C", "K", 1.0, -ZERO_CELSIUS, colours="plasma")
_WIND = Display("m s⁻¹", "m s⁻¹", colours="PuOr_r", signed=True)
_PER_SECOND = Display("10⁻⁵ s⁻¹", "10⁻⁵ s⁻¹", 1e5, colours="PuOr_r", signed=True)
_GRAMS = Display("g kg⁻¹", "g kg⁻¹", 1e3, colours="YlGnBu")
_MILLIMETRES = Display("mm", "mm", 1e3, colours="YlGnBu")
_SHOWN: dict[str, Display] = {
    "z": _DAM,
    "orography": _METRES,
    "msl": _PRESSURE,
    "sp": Display("hPa", "hPa", 0.01),
    **dict.fromkeys(("t", "t2m", "d2m", "skt", "sst"), _CELSIUS),
    **dict.fromkeys(("u", "v", "u10", "v10", "u100m", "v100m"), _WIND),
    "w": Display("Pa s⁻¹", "Pa s⁻¹", colours="PuOr_r", signed=True),
    **dict.fromkeys(("vo", "d"), _PER_SECOND),
    **dict.fromkeys(("q", "ciwc", "clwc"), _GRAMS),
    "o3": Display("mg kg⁻¹", "mg kg⁻¹", 1e6, colours="cividis"),
    **dict.fromkeys(("tp", "cp", "lsp", "sf", "csf", "lsf"), _MILLIMETRES),
    **dict.fromkeys(("r", "r2m"), Display("%", "%", colours="YlGnBu")),
    "tcwv": Display("kg m⁻²", "kg m⁻²", colours="YlGnBu"),
}


def display_of(channel: str) -> Display:
    """How a channel is shown; a variable without an entry keeps its canonical units."""
    variable = parse_channel(channel).variable
    plain = pretty_units(variable.units)
    return _SHOWN.get(variable.short, Display(plain, plain))


def quantity_in_words(channel: str) -> str:
    """As `name_in_words`, of what the picture shows: `geopotential height (z ÷ g) at 500 hPa`."""
    parsed = parse_channel(channel)
    return at_level(display_of(channel).quantity or variable_in_words(parsed), parsed)


def field_levels(values: np.ndarray, signed: bool = False, intervals: int = 16) -> np.ndarray:
    """Round contour levels over the bulk of the values (1st to 99th percentile); NaN is left out.

    Args:
        values: any shape, in the units shown.
        signed: symmetric about zero where the values have both signs.
        intervals: about how many colours.

    Returns:
        Ascending, at least two, also of a field that is constant or holds no number.
    """
    low, high = _bulk(values)
    if signed and low < 0 < high:
        high = max(-low, high)
        low = -high
        intervals = intervals * 3 // 2  # half of them may stay unused
    if not high - low > 1e-9 * max(abs(low), abs(high), 1e-30):
        margin = 0.05 * abs(low) or 1.0
        low, high = low - margin, high + margin
    return round_values(low, high, intervals)


def error_levels(error: np.ndarray, intervals: int = 16) -> np.ndarray:
    """Levels symmetric about zero without zero itself: the middle colour, white, means nearly no error."""
    low, high = _bulk(error)
    limit = max(-low, high)
    limit = limit if limit > 0 else 1.0
    positive = round_values(0, limit, intervals // 2)
    positive = positive[positive > 0]
    return np.concatenate([-positive[::-1], positive])


def round_values(low: float, high: float, intervals: int) -> np.ndarray:
    """Equally spaced round numbers from `low` or below to `high` or above."""
    return np.asarray(MaxNLocator(nbins=intervals, steps=[1, 2, 2.5, 4, 5, 10]).tick_values(low, high))


def _bulk(values: np.ndarray) -> tuple[float, float]:
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return 0.0, 0.0
    low, high = np.percentile(finite, [1, 99])
    return float(low), float(high)
