"""What a file's name for a field means: the channel table, helped by the config where files are vague."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from typing import Any

from weatherfm.data_pipeline.formats.meaning.ambiguous_names import Reading, place_of, reading_of
from weatherfm.data_pipeline.formats.meaning.contradictions import contradiction
from weatherfm.data_pipeline.formats.meaning.mean_rates import rate_named
from weatherfm.data_pipeline.source_config import FilesSource
from weatherfm.earth.variables import VARIABLES, Channel, Variable, find_variable, parse_channel
from weatherfm.errors import InputError

_UNRANKED = 99


@dataclass(frozen=True)
class Meaning:
    """A variable of the table that a field holds, its level where name or config tells it, and how sure we are."""

    variable: Variable
    level: int | None
    rank: int
    """Lower is better where one file holds a channel under two names (`z` before `gh`)."""
    rate: int = 0
    """Of a name that stands for a mean rate of a sum: 1, or -1 where it counts the other way."""


@dataclass(frozen=True)
class Doubt:
    """A field that may hold one of some variables, and is not taken for any until the user says so."""

    variables: tuple[Variable, ...]
    level: int | None
    text: str
    """What is doubtful, and how to say which it is."""

    def concerns(self, channel: str) -> bool:
        """True where the field may be this channel."""
        asked = parse_channel(channel)
        return asked.variable in self.variables and (self.level is None or asked.level in (None, self.level))


@dataclass(frozen=True)
class NameRules:
    """The config's help in reading names, levels and units."""

    source: FilesSource

    @cached_property
    def _renamed(self) -> dict[str, Channel]:
        return {name: _parse_target(name, target) for name, target in self.source.rename.items()}

    def check(self) -> None:
        """Refuse help that no file could use.

        Raises:
            InputError: `rename` to a name the table does not have.
        """
        assert self._renamed is not None

    def meaning(
        self, name: str, attributes: Mapping[str, Any], companions: Collection[str] = ()
    ) -> Meaning | Doubt | None:
        """What the field `name` with these attributes holds, or None when the table does not know it.

        Args:
            name: as the file has it.
            attributes: of the field.
            companions: names of all fields of its file, lower case: how they are spelt may settle a name.
        """
        if renamed := self.renamed(name):
            return renamed
        found = self._meaning(name, attributes, companions)
        if isinstance(found, Meaning) and (text := contradiction(found.variable, name, attributes)):
            return Doubt((found.variable,), found.level, text)
        return found

    def _meaning(self, name: str, attributes: Mapping[str, Any], companions: Collection[str]) -> Meaning | Doubt | None:
        """As `meaning`, by the name before anything else."""
        if reading := reading_of(name):
            return _meaning_at(reading, attributes, companions)
        if variable := find_variable(name) or _sum_over_hours(name):
            return Meaning(variable, None, _rank(variable, name))
        if rate := rate_named(name):
            return Meaning(rate[0], None, _UNRANKED, rate[1])
        for key in ("GRIB_shortName", "GRIB_cfVarName", "short_name"):
            if variable := find_variable(str(attributes.get(key, ""))):
                return Meaning(variable, None, _UNRANKED)
        return None

    def renamed(self, name: str) -> Meaning | None:
        """What `source.rename` makes of a name; None where it does not speak of it."""
        channel = self._renamed.get(name)
        return None if channel is None else Meaning(channel.variable, channel.level, rank=-1)

    def level(self, path: str, name: str, variable: Variable) -> int | None:
        """Level in hPa that the config gives to a field whose file does not tell it."""
        for key, level in self.source.levels.items():
            if any(sign in key for sign in "*?[") and fnmatch(os.path.basename(path), key):
                return level
        return self.source.levels.get(name, self.source.levels.get(variable.short))

    def units(self, name: str, variable: Variable, said: Any) -> str | None:
        """Units of a field: the config's word before the file's."""
        told = self.source.units.get(name, self.source.units.get(variable.short))
        return told if told is not None else (None if said is None else str(said))


def channel_name(variable: Variable, level: float) -> str | None:
    """Short name of `variable` at `level` hPa, or None where no channel can be called so.

    Levels between whole hPa have no name, and `u10` is the wind at 10 m, not at 10 hPa.
    """
    if level != round(level) or not 1 <= level <= 1100:
        return None
    channel = Channel(variable, round(level))
    return channel.name if parse_channel(channel.name) == channel else None


def _meaning_at(reading: Reading, attributes: Mapping[str, Any], companions: Collection[str]) -> Meaning | Doubt | None:
    """What a name that ends in a number means: a pressure level, a height, or nobody knows which."""
    place = place_of(reading, attributes, companions)
    if place == "pressure":
        return Meaning(reading.on_level, reading.number, _UNRANKED)
    if place == "height":
        at_height = reading.at_height
        return None if at_height is None else Meaning(at_height, None, _rank(at_height, reading.name))
    both = (reading.on_level, *([] if reading.at_height is None else [reading.at_height]))
    return Doubt(both, reading.number, reading.question)


def _sum_over_hours(name: str) -> Variable | None:
    """The accumulated variable whose name ends in the hours it is summed over, as earth2studio's `tp06`."""
    match = re.fullmatch(r"([a-z_]+?)_?\d{1,2}(h|hr|hrs|hours?)?", name, re.IGNORECASE)
    variable = find_variable(match[1]) if match else None
    return variable if variable is not None and variable.accumulated else None


def _rank(variable: Variable, name: str) -> int:
    names = [n.lower() for n in (variable.short, variable.era5, *variable.aliases)]
    return names.index(name.lower()) if name.lower() in names else _UNRANKED


def _parse_target(name: str, target: str) -> Channel:
    if target in VARIABLES:
        return Channel(VARIABLES[target])
    try:
        return parse_channel(target)
    except InputError as error:
        raise InputError(f"source.rename maps {name!r} to an unknown name: {error}") from None
