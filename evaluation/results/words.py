"""Channels, units, regions and numbers as people read them, on pages and pictures alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor, isfinite, log10

from weatherfm.earth.variables import Channel, parse_channel
from weatherfm.errors import some_of

_PROPER = ("north", "europe", "america", "atlantic", "pacific", "east", "asia", "arctic", "antarctic", "alps")
_MOST_NAMED = 10
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_METRICS = {
    "rmse": "RMSE", "mse": "MSE", "mae": "MAE", "acc": "ACC", "acc_centred": "Centred ACC",
    "crps": "CRPS", "crps_fair": "Fair CRPS",
    "seeps": "SEEPS", "wind_vector_rmse": "Wind vector RMSE", "brier": "Brier score", "member_rmse": "Member RMSE",
}  # fmt: skip


def pretty_units(units: str) -> str:
    """CF units with raised exponents: `m2 s-2` is `m² s⁻²`; a pure number is `1`."""
    words = []
    for word in units.split():
        base = word.rstrip("-0123456789")
        words.append(base + word[len(base) :].translate(_SUPERSCRIPT) if base else word)
    return " ".join(words)


def name_in_words(channel: str) -> str:
    """`z500` is `geopotential at 500 hPa`, `t2m` is `2 m temperature`."""
    return at_level(variable_in_words(parse_channel(channel)), parse_channel(channel))


def variable_in_words(channel: Channel) -> str:
    """`geopotential`, `2 m temperature`."""
    words = channel.variable.era5.replace("_", " ")
    words = words.replace("u component of wind", "eastward wind").replace("v component of wind", "northward wind")
    for metres in ("100", "10", "2"):
        words = words.replace(f"{metres}m ", f"{metres} m ")
    return words


def at_level(words: str, channel: Channel) -> str:
    """`words` with the level of a channel that has one: `geopotential at 500 hPa`."""
    return words if channel.level is None else f"{words} at {channel.level} {channel.level_units}"


def in_words(forecast: str) -> str:
    """A forecast's name for the page: `damped_persistence` is `damped persistence`."""
    return forecast.replace("_", " ")


def metric_in_words(name: str) -> str:
    """A variable of the scores as a term: `crps_fair` is `Fair CRPS`, `bias` is `Bias`."""
    if name in _METRICS:
        return _METRICS[name]
    longest = max((metric for metric in _METRICS if name.startswith(f"{metric}_")), key=len, default="")
    rest = name.removeprefix(longest).replace("_", " ").replace("p value", "p-value").strip()
    return f"{_METRICS[longest]} {rest}" if longest else rest[0].upper() + rest[1:]


def region_in_words(region: str) -> str:
    """`northern_extratropics` is `northern extratropics`, `europe_land` is `Europe land`."""
    if region == "area":
        return "whole area"
    if region.startswith("ausnz"):
        region = region.replace("ausnz", "Australia and New Zealand")
    return " ".join(word.capitalize() if word in _PROPER else word for word in region.split("_"))


def number(value: float) -> str:
    """Three significant digits: `1103`, `435`, `1.71`, `8.1 × 10⁻⁵`; a dash for NaN."""
    if not isfinite(value):
        return "–"
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3:
        mantissa, power = f"{value:.1e}".split("e")
        return f"{mantissa.replace('-', '−')} × 10{str(int(power)).translate(_SUPERSCRIPT)}"
    digits = max(0, 2 - floor(log10(size)))
    return _signed(value, f".{digits}f")


def percent(value: float, digits: int = 0) -> str:
    """`34 %`, `−12 %`, never `−0 %`; a dash for NaN."""
    return f"{_signed(value, f'.{digits}f')} %" if isfinite(value) else "–"


def fixed(value: float, digits: int, plus: bool = False) -> str:
    """So many decimals: `0.700`, `−0.250`, `0.000` of what rounds to it from either side; a dash for NaN.

    `plus` puts a sign before what is above zero, too.
    """
    if not isfinite(value):
        return "–"
    text = _signed(value, f".{digits}f")
    return f"+{text}" if plus and value > 0 and any(digit in text for digit in "123456789") else text


def listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def left_out_in_words(left_out: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence for each kind of what some forecast or the truth lacks and is scored for none (`--common`)."""
    said = []
    for kind, names in left_out.items():
        what = "" if kind == "points" else f"{kind.replace('_', ' ')} "
        said.append(f"{what}{some_of(names, _MOST_NAMED)}, which not all forecasts and the truth have")
    return said


def _signed(value: float, form: str) -> str:
    """With a true minus sign, and none before a zero."""
    text = f"{value:{form}}"
    return text.replace("-", "−" if any(digit in text for digit in "123456789") else "")
