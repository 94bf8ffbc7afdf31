"""Which channel a GRIB message holds, by its name and its layer."""

from __future__ import annotations

from dataclasses import dataclass

from weatherfm.data_pipeline.formats.grib_headers import Header
from weatherfm.data_pipeline.formats.layers import belongs, renamed
from weatherfm.data_pipeline.formats.names import Meaning, NameRules, channel_name
from weatherfm.variables import Variable


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
        why = (
            f"lies on the layer {layer} {header.level} (GRIB typeOfLevel), where it is another field (if it is not: "
            f"source.rename: {{'{name}:{layer}:{header.level}': {meaning.variable.short}}})"
        )
        return Found(meaning.variable, meaning.variable.short, name, meaning.rank, header.units, why)
    channel = _channel(path, header, meaning, rules)
    return described if channel is None else Found(meaning.variable, channel, name, meaning.rank, header.units)


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
