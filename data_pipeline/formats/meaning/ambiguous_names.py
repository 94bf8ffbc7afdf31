"""Names that stand for a height in one convention and for a pressure level in another, such as `u100`.

ERA5 calls the wind at 100 m u100 and that at 10 m u10; earth2studio calls them u100m and u10m, and u100 is its wind at
100 hPa; WRF calls the temperature at 2 m T2. What a field says of itself decides, then the other fields of its file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from weatherfm.earth.variables import VARIABLES, Variable, find_variable

Place = Literal["height", "pressure"]

_AT_HEIGHT = {
    ("u", 10): "u10", ("v", 10): "v10", ("ws", 10): "ws10", ("u", 100): "u100m", ("v", 100): "v100m",
    ("t", 2): "t2m", ("d", 2): "d2m", ("r", 2): "r2m",
}  # fmt: skip
_LOW = 10
"""hPa up to which a number behind a short name is as often a height or the number of a level."""
_AROUND_100 = {50, 70, 125, 150}
_AROUND_10 = {1, 2, 3, 5, 7, 20, 30}
_TOLD_IN = ("long_name", "standard_name", "GRIB_name", "level_desc", "level", "description", "comment")


@dataclass(frozen=True)
class Reading:
    """What a name such as `u100` may mean."""

    name: str
    prefix: str
    number: int
    on_level: Variable
    at_height: Variable | None
    """The variable of the table at that height in metres, where it has one."""
    doubtful: bool
    """True where the name alone does not tell."""

    @property
    def question(self) -> str:
        """What to ask of the user, and how the answer is given."""
        height = "at a height in metres" if self.at_height is None else f"{self.at_height.era5}"
        target = f"{self.on_level.short}{self.number}"
        answers = [] if target in VARIABLES else [f"{{{self.name}: {target}}}"]
        answers += [] if self.at_height is None else [f"{{{self.name}: {self.at_height.short}}}"]
        return (
            f"{self.name} may be {self.on_level.era5} at {self.number} hPa or {height}: neither its attributes "
            f"nor the other fields of the file tell which; say it with source.rename: {' or '.join(answers)}"
        )


def reading_of(name: str) -> Reading | None:
    """What a name that ends in a number may mean; None for names without one, or of nothing on levels."""
    match = re.fullmatch(r"(.+?)_?(\d{1,4})(_?(?:hPa|mb|mbar))?", name, re.IGNORECASE)
    on_level = find_variable(match[1]) if match else None
    if match is None or on_level is None or not on_level.on_levels:
        return None
    prefix, number = match[1].lower(), int(match[2])
    at_height = VARIABLES.get(_AT_HEIGHT.get((on_level.short, number), ""))
    spelt_out = match[3] is not None or prefix == on_level.era5
    doubtful = not spelt_out and (at_height is not None or number <= _LOW)
    return Reading(name, prefix, number, on_level, at_height, doubtful)


def place_of(reading: Reading, attributes: Mapping[str, Any], companions: Collection[str]) -> Place | None:
    """Where the field lies, or None where nothing tells.

    Args:
        reading: of its name.
        attributes: of the field, as the file has them.
        companions: names of all fields of the file, lower case.
    """
    told = _told(reading, attributes)
    if told is not None:
        return told
    if not reading.doubtful:
        return "pressure"
    return _told_by_companions(reading, companions)


def _told(reading: Reading, attributes: Mapping[str, Any]) -> Place | None:
    text = " ".join(str(attributes.get(key, "")) for key in _TOLD_IN)
    kind, number = str(attributes.get("GRIB_typeOfLevel", "")), reading.number
    scalars = str(attributes.get("coordinates", "")).lower().split()
    height = (
        re.search(rf"(?<![\d.]){number}[\s-]*(m|met(er|re)s?)\b|above[ _]?ground", text, re.IGNORECASE)
        or re.fullmatch(r"\d+[a-z]+", str(attributes.get("GRIB_shortName", "")))
        or kind in ("heightAboveGround", "surface")
        or any(re.fullmatch(r"height(_?\d+m?)?", name) for name in scalars)
    )
    pressure = (
        re.search(rf"(?<![\d.]){number}[\s-]*(hpa|mb|mbar|millibars?)\b|pressure[ _]level", text, re.IGNORECASE)
        or kind.startswith("isobaric")
        or any(re.fullmatch(r"p\d+|plev|pressure_level|isobaric\w*", name) for name in scalars)
    )
    if bool(height) == bool(pressure):
        return None
    return "height" if height else "pressure"


def _told_by_companions(reading: Reading, companions: Collection[str]) -> Place | None:
    """By how the file spells its other fields."""
    if reading.at_height is not None and _heights_carry_their_unit(reading, companions):
        return "pressure"
    match = re.compile(rf"{re.escape(reading.prefix)}_?(\d{{1,4}})(_?(?:hpa|mb|mbar))?")
    others = {int(found[1]) for found in map(match.fullmatch, companions) if found} - {reading.number}
    if reading.at_height is None:
        return "pressure" if any(number > _LOW for number in others) else None
    if reading.number == 100:
        return "pressure" if others & _AROUND_100 else None
    if reading.number == 10:  # by far the most files mean 10 m, as ERA5, unless they have levels near 10 hPa
        return None if others & _AROUND_10 else "height"
    return None


def _heights_carry_their_unit(reading: Reading, companions: Collection[str]) -> bool:
    """True where the field at a height is called u10m, 10u, t2m or the like, so that u10 or t2 is none."""
    if reading.on_level.short not in ("u", "v", "ws"):
        return bool({f"{reading.prefix}{reading.number}m", f"{reading.number}{reading.on_level.short}"} & {*companions})
    return any(re.fullmatch(r"(u|v|ws|wspd|ua|va)_?\d+m|\d+(u|v|si)", name) for name in companions)
