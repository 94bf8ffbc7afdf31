"""Which channel a GRIB message holds, by its name and its layer, and whether it is taken for it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from weatherfm.data_pipeline.formats.grib.headers import Header
from weatherfm.data_pipeline.formats.grib.kind_of_message import clues_of_header
from weatherfm.data_pipeline.formats.meaning.kinds import Clue, besides_mean, describe, taken
from weatherfm.data_pipeline.formats.meaning.layers import belongs, elsewhere, renamed
from weatherfm.data_pipeline.formats.meaning.mean_rates import RATE_RANK, hours_said, no_rate, not_said
from weatherfm.data_pipeline.formats.meaning.names import Meaning, NameRules, channel_name
from weatherfm.data_pipeline.formats.orientation import Orientation
from weatherfm.data_pipeline.formats.units import Conversion, conversion_of_rate, conversion_to, is_rate
from weatherfm.earth.variables import VARIABLES, Variable
from weatherfm.errors import InputError

_DAY = 24.0


@dataclass(frozen=True)
class Found:
    """What a message holds."""

    variable: Variable
    channel: str
    name: str
    """The file's."""
    rank: int
    units: str
    """The file's."""
    elsewhere: str = ""
    """Why it is not the channel after all: it lies on another layer."""
    rate: int = 0
    """Of the name of a mean rate: 1, or -1 where it counts the other way."""


@dataclass(frozen=True, eq=False)
class Taken:
    """A header whose fields are read, and how."""

    found: Found
    units: str | None
    conversion: Conversion
    orientation: Orientation
    monthly: bool
    """A monthly mean."""
    rate_hours: float = 0.0
    """Of a mean rate: over which; 0 of all else."""


@dataclass(frozen=True)
class Left:
    """A header whose fields are not read."""

    description: str
    channel: str = ""
    """The channel that it would be, were it not for its kind or its layer."""
    why: str = ""


@dataclass(frozen=True, eq=False)
class Meanings:
    """What headers mean under the rules of a config; each is thought about once, in however many files it stands."""

    rules: NameRules
    wanted: Collection[str]
    _known: dict[Header, Taken | Left] = field(default_factory=dict)

    def of(self, path: str, header: Header) -> Taken | Left:
        """Of a header in the file `path`.

        Raises:
            InputError: a wanted field on an unsupported grid or in units that do not fit (without the file's name).
        """
        known = self._known.get(header)
        if known is None:
            known = self._of(path, header)
            if header.layer != "unknown":  # its level may be given by the file's name
                self._known[header] = known
        return known

    def _of(self, path: str, header: Header) -> Taken | Left:
        found = channel_of(path, header, self.rules)
        if isinstance(found, str):
            return Left(found)
        if found.channel not in self.wanted:
            return Left(f"{found.name} as {found.channel}")
        if found.elsewhere:
            return Left(f"{found.name} ({header.layer} {header.level})", found.channel, found.elsewhere)
        units = self.rules.units(found.name, found.variable, found.units)
        if found.rate or is_rate(found.variable, units):
            return self._of_rate(header, found, units)
        kinds = self.rules.source.kinds
        clues = clues_of_header(header, found.variable.accumulated)
        if not taken(clues, kinds, found.variable.constant):
            return _left(found, clues, kinds)
        try:
            conversion = conversion_to(VARIABLES.get(found.channel, found.variable), units)
        except InputError as error:
            raise InputError(f"its field {found.name} {error}; set source.units: {{{found.name}: ...}}") from None
        monthly = any(clue.kind == "monthly_mean" for clue in clues)
        return Taken(found, units, conversion, header.axes.orientation(found.name), monthly)

    def _of_rate(self, header: Header, found: Found, units: str | None) -> Taken | Left:
        """Of a rate: the sum over its interval, where the header tells that it is the mean over one.

        Raises:
            InputError: settings that call it a sum since a start (without the file's name).
        """
        clues = clues_of_header(header, accumulated=False)
        rest = besides_mean(clues)
        if not taken(rest, self.rules.source.kinds, False):
            return _left(found, rest, self.rules.source.kinds)
        of_header = header.span if len(rest) < len(clues) and 0 < header.span <= _DAY else None
        hours = hours_said(self.rules.source, found.name, found.channel) or of_header
        if hours is None or not is_rate(found.variable, units):
            rate = is_rate(found.variable, units)
            why = not_said(found.name, found.channel, units) if rate else no_rate(found.name, found.variable, units)
            return Left(f"{found.name} (rate of {found.variable.era5})", found.channel, why)
        conversion = conversion_of_rate(found.variable, units, hours, found.rate or 1)
        behind = found if found.rank < 0 else replace(found, rank=RATE_RANK)
        return Taken(behind, units, conversion, header.axes.orientation(found.name), False, hours)


def _left(found: Found, clues: Sequence[Clue], kinds: Collection[str]) -> Left:
    described = f"{found.name} ({', '.join(clue.kind for clue in clues) or 'the field itself'})"
    return Left(described, found.channel, describe(clues, kinds))


def channel_of(path: str, header: Header, rules: NameRules) -> Found | str:
    """The channel of a message, or its description where it is none of ours."""
    name, layer = header.name, header.layer
    described = f"{name} ({layer} {header.level})"
    known = renamed(rules, name, layer, header.level)
    if known is not None:
        channel = _named(known, known.level)
        return described if channel is None else Found(known.variable, channel, name, known.rank, header.units)
    if name == "unknown":
        return f"unknown parameter {header.parameter} ({layer} {header.level})"
    meaning = rules.meaning(name, {"GRIB_cfVarName": header.cf_name})
    if not isinstance(meaning, Meaning):
        return described
    if not meaning.variable.on_levels and not belongs(meaning, layer, header.level):
        why = elsewhere(meaning, name, layer, header.level)
        return Found(meaning.variable, meaning.variable.short, name, meaning.rank, header.units, why)
    channel = _channel(path, header, meaning, rules)
    if channel is None:
        return described
    return Found(meaning.variable, channel, name, meaning.rank, header.units, rate=meaning.rate)


def _channel(path: str, header: Header, meaning: Meaning, rules: NameRules) -> str | None:
    variable, layer = meaning.variable, header.layer
    if not variable.on_levels:
        return variable.short
    if layer == "surface" and variable.short == "z":
        return "orography"
    level: float | None = None
    if layer in ("isobaricInhPa", "isobaricInPa"):
        level = float(header.level) / (100 if layer == "isobaricInPa" else 1)
    elif layer == "unknown":
        level = meaning.level or rules.level(path, header.name, variable)
    return _named(meaning, level)


def _named(meaning: Meaning, level: float | None) -> str | None:
    if not meaning.variable.on_levels:
        return meaning.variable.short
    return None if level is None else channel_name(meaning.variable, level)
