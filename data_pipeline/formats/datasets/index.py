"""What a NetCDF file or Zarr store holds, told by its headers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.access import PUBLIC, Access
from weatherfm.data_pipeline.formats.chunks import Chunking
from weatherfm.data_pipeline.formats.datasets.clock import slots_of
from weatherfm.data_pipeline.formats.datasets.dimensions import (
    Dimension,
    dimensions_of,
    is_called_level,
    map_of,
    orientation_of_dims,
    scalars_of,
    with_units,
)
from weatherfm.data_pipeline.formats.datasets.kind_of_variable import (
    at_months,
    by_experiment,
    clues_of_variable,
    layer_of,
    sums_of_means,
)
from weatherfm.data_pipeline.formats.datasets.mean_rates import with_intervals
from weatherfm.data_pipeline.formats.datasets.no_field import names_along, unknown_dimensions, what_it_holds
from weatherfm.data_pipeline.formats.datasets.reader import DatasetReader, FieldShape, open_dataset
from weatherfm.data_pipeline.formats.datasets.span_of_sums import archive_of, rank_of_sum, said_hours, with_bounds
from weatherfm.data_pipeline.formats.datasets.text_numbers import refuse_texts
from weatherfm.data_pipeline.formats.files.identity import Stamp, stamp_of
from weatherfm.data_pipeline.formats.files.paths import Format
from weatherfm.data_pipeline.formats.meaning.kinds import Clue, besides_mean, describe, taken
from weatherfm.data_pipeline.formats.meaning.layers import belongs, elsewhere, renamed
from weatherfm.data_pipeline.formats.meaning.levels import doubt_of_levels, levels_in_hpa
from weatherfm.data_pipeline.formats.meaning.mean_rates import RATE_RANK, hours_said, no_rate, not_said
from weatherfm.data_pipeline.formats.meaning.names import Doubt, Meaning, NameRules, channel_name
from weatherfm.data_pipeline.formats.pieces import Contents, Piece, Slots
from weatherfm.data_pipeline.formats.time_values import without_leap_days
from weatherfm.data_pipeline.formats.units import Conversion, conversion_of_rate, conversion_to, is_rate
from weatherfm.data_pipeline.formats.wanted_times import Span
from weatherfm.data_pipeline.formats.zarr.icechunk_repository import pinned
from weatherfm.earth.variables import VARIABLES, Variable, parse_channel
from weatherfm.errors import InputError

_log = logging.getLogger(__name__)
_PROVENANCE = (
    "title",
    "institution",
    "source",
    "GRIB_centre",
    "Conventions",
    "Licence",
    "license",
    "references",
    "simulated",
)


def index_dataset(
    path: str, format: Format, rules: NameRules, wanted: Collection[str], span: Span | None = None
) -> Contents:
    """What a NetCDF file or Zarr store holds of the wanted channels, at times inside `span`.

    Raises:
        InputError: no readable field on a latitude-longitude grid (without the file's name).
    """
    stamp = stamp_of(path)  # before it is opened: a change between the two is noticed
    access = pinned(path, rules.source.access)
    file = _File(open_dataset(path, format, access), path, format, rules, wanted, stamp, access=access)
    return _index(file, span or Span())


def index_in_memory(dataset: xr.Dataset, name: str, rules: NameRules, wanted: Collection[str]) -> Contents:
    """What a Dataset holds of the wanted channels; `name` is what messages call it.

    Raises:
        InputError: no readable field on a latitude-longitude grid (without the name).
    """
    return _index(_File(dataset, name, "zarr", rules, wanted, None, in_memory=True), Span())


@dataclass(frozen=True, eq=False)
class _File:
    """One dataset, and how it is to be read."""

    dataset: xr.Dataset
    path: str
    format: Format
    rules: NameRules
    wanted: Collection[str]
    stamp: Stamp | None
    in_memory: bool = False
    access: Access = PUBLIC

    @cached_property
    def doubts(self) -> dict[str, str]:
        """Coordinate -> why its values cannot be believed to be pressure levels."""
        told = self.rules.source.units
        found = {
            dim.coordinate: doubt_of_levels(self.dataset.variables[dim.coordinate], dim.coordinate)
            for dim in (*dimensions_of(self.dataset).values(), *scalars_of(self.dataset))
            if dim.coordinate is not None and dim.coordinate not in told
            if dim.role == "level" or is_called_level(dim, self.dataset)
        }
        return {name: doubt for name, doubt in found.items() if doubt is not None}

    @cached_property
    def companions(self) -> frozenset[str]:
        """Names of all fields, lower case."""
        return frozenset(str(name).lower() for name in self.dataset.variables)


def _index(file: _File, limits: Span) -> Contents:
    dataset = with_units(file.dataset, file.rules.source.units)
    file = replace(file, dataset=dataset)
    dims, scalars = dimensions_of(dataset), scalars_of(dataset)
    attributes = {k: str(dataset.attrs[k]) for k in _PROVENANCE if k in dataset.attrs}
    contents = Contents(file.path, attributes=attributes, access=file.access)
    if calendar := next(filter(None, map(without_leap_days, dataset.variables.values())), None):
        contents.attributes["calendar"] = calendar
        _log.warning("%s: years have 365 days (calendar %s): 29 February is missing in leap years", file.path, calendar)

    @cache
    def slots(dims: tuple[str, ...], accumulated: bool) -> Slots:
        found = slots_of(dataset, dims)
        if "monthly_mean" in file.rules.source.kinds:
            found = at_months(found)
        return limits.limit(with_bounds(found, dataset, dims) if accumulated else found, accumulated)

    gridded = 0
    for name in map(str, dataset.variables):
        shape = _shape(file, name, dims, scalars)
        if shape is None:
            continue
        gridded += 1
        orientation_of_dims(dataset, shape.latitude, shape.longitude)  # damaged coordinates spoil the whole file
        _add(contents, file, name, shape, slots)
    if not gridded:
        raise InputError(
            f"it holds {what_it_holds(dataset, None if file.in_memory else file.path, file.format, file.access)}"
        )
    return contents


def _add(
    contents: Contents, file: _File, name: str, shape: FieldShape, slots_in: Callable[[tuple[str, ...], bool], Slots]
) -> None:
    """Put one variable's channels into `contents`."""
    variable = file.dataset.variables[name]
    meaning = _meaning_on_layer(contents, file, name)
    if meaning is None:
        contents.doubts.update(dict.fromkeys(file.wanted, told) if (told := names_along(file.dataset, name)) else {})
        return
    if shape.unknown:
        contents.others.append(f"{name} (over {', '.join(shape.unknown)})")
        _doubt_level(contents, file, name, meaning)
        for channel in file.wanted if shape.level is None else ():
            if parse_channel(channel).variable is meaning.variable:
                contents.doubts.setdefault(channel, unknown_dimensions(name, shape.unknown))
        return
    channels = _channels(contents.path, name, variable.attrs, shape, meaning, file.rules)
    if not channels:
        contents.others.append(f"{name} ({meaning.variable.era5}, level not told)")
        _doubt_level(contents, file, name, meaning)
        return
    present = [(i, c) for i, c in channels if c in file.wanted]
    if len(present) < len(channels):
        contents.others.append(_describe(name, meaning, [c for _, c in channels]))
    if present:
        slots = slots_in(shape.slots, meaning.variable.accumulated)
        _add_present(contents, file, name, shape, meaning, present, slots)


def _add_present(
    contents: Contents,
    file: _File,
    name: str,
    shape: FieldShape,
    meaning: Meaning,
    present: Sequence[tuple[int, str]],
    slots: Slots,
) -> None:
    """Put the channels (level index, name) that a variable holds and that are wanted into `contents`, if they are it.

    Raises:
        InputError: units that do not fit, or none, or packing that is a text (without the file's name).
    """
    variable = file.dataset.variables[name]
    units = file.rules.units(name, meaning.variable, variable.attrs.get("units"))
    if meaning.rate or is_rate(meaning.variable, units):
        _add_rate(contents, file, name, shape, meaning, slots)
        return
    clues = clues_of_variable(file.dataset, name, slots, meaning.variable.accumulated)
    if not _are_taken(contents, file, name, clues, meaning, [channel for _, channel in present]):
        return
    mean = next((clue.said for clue in clues if clue.kind == "daily_mean"), "")
    slots, rank, archive = sums_of_means(slots, clues, variable.attrs, meaning.variable), meaning.rank, ""
    if meaning.variable.accumulated:
        slots = replace(slots, accumulated=said_hours(name, variable, slots))
        rank, archive = rank_of_sum(rank, slots), archive_of(file.dataset, name)
    orientation = orientation_of_dims(file.dataset, shape.latitude, shape.longitude)
    alternatives = list(by_experiment(file.dataset, _reader(file, name, shape), slots))
    for i, channel in present:
        conversion = _conversion(file, name, VARIABLES.get(channel, meaning.variable), units)
        contents.pieces += [
            Piece(file.path, name, channel, own, i, orientation, units, conversion, rank, held, archive, mean)
            for own, held in alternatives
        ]


def _are_taken(
    contents: Contents, file: _File, name: str, clues: Sequence[Clue], meaning: Meaning, channels: Sequence[str]
) -> bool:
    """Whether a variable with these clues is what is asked for; if not, `contents` says why.

    Raises:
        InputError: packing that is a text (without the file's name).
    """
    kinds = file.rules.source.kinds
    if not taken(clues, kinds, meaning.variable.constant):
        contents.others.append(f"{name} ({', '.join(clue.kind for clue in clues) or 'the field itself'})")
        for channel in channels:
            contents.refused.setdefault(channel, f"{channel} {describe(clues, kinds)}")
        return False
    refuse_texts(file.dataset.variables[name], name)
    return True


def _add_rate(contents: Contents, file: _File, name: str, shape: FieldShape, meaning: Meaning, slots: Slots) -> None:
    """Put a mean rate into `contents` as the sum over its interval, if its file says that and which it is.

    Raises:
        InputError: packing that is a text (without the file's name).
    """
    variable, target, source = file.dataset.variables[name], meaning.variable, file.rules.source
    units = file.rules.units(name, target, variable.attrs.get("units"))
    clues = clues_of_variable(file.dataset, name, slots, accumulated=False)
    rest = besides_mean(clues)
    if not _are_taken(contents, file, name, rest, meaning, [target.short]):
        return
    said = hours_said(source, name, target.short)
    found = with_intervals(file.dataset, name, slots, said, is_mean=len(rest) < len(clues))
    if found is None or not is_rate(target, units):
        reason = not_said(name, target.short, units) if is_rate(target, units) else no_rate(name, target, units)
        contents.others.append(f"{name} (rate of {target.era5})")
        contents.refused.setdefault(target.short, f"{target.short} {reason}")
        return
    orientation = orientation_of_dims(file.dataset, shape.latitude, shape.longitude)
    assert found.accumulated is not None
    for own, held in by_experiment(file.dataset, _reader(file, name, shape), found):
        for hours in np.unique(found.accumulated):
            conversion = conversion_of_rate(target, units, hours, meaning.rate or 1)
            of_these = held.keep(np.flatnonzero(held.accumulated == hours))
            rank = RATE_RANK if meaning.rank >= 0 else meaning.rank
            contents.pieces.append(
                Piece(file.path, name, target.short, own, 0, orientation, units, conversion, rank, of_these)
            )


def _reader(file: _File, name: str, shape: FieldShape) -> DatasetReader:
    chunks = Chunking.of(file.dataset.variables[name], shape.slots, None if shape.level is None else shape.level.name)
    held = file.dataset if file.in_memory else None
    return DatasetReader(file.path, file.format, name, shape, chunks, held, file.stamp, file.access)


def _conversion(file: _File, name: str, target: Variable, units: str | None) -> Conversion:
    """From a variable's units to those of the channel table (of a single-level z, which is orography, its own)."""
    try:
        return conversion_to(target, units)
    except InputError as error:
        cure = "set the attribute units" if file.in_memory else f"mend the file or set source.units: {{{name}: ...}}"
        raise InputError(f"its variable {name} {error}; {cure}") from None


def _meaning_on_layer(contents: Contents, file: _File, name: str) -> Meaning | None:
    """What a field is, or None where it is nothing of ours: then `contents` says why."""
    variable = file.dataset.variables[name]
    layer, level = layer_of(file.dataset, variable)
    own_name = str(variable.attrs.get("GRIB_shortName", name))
    if meaning := renamed(file.rules, own_name, layer, level):
        return meaning
    meaning = _meaning(contents, file, name)
    if meaning is None:
        contents.others.append(name)
    elif not (meaning.variable.on_levels or belongs(meaning, layer, level)):
        short = meaning.variable.short
        contents.others.append(f"{name} ({layer} {level})")
        if short in file.wanted:
            contents.refused.setdefault(short, f"{short} {elsewhere(meaning, own_name, layer, level)}")
        return None
    return meaning


def _meaning(contents: Contents, file: _File, name: str) -> Meaning | None:
    """What a field's name means; a doubt about it is kept with the channels it may be."""
    variable = file.dataset.variables[name]
    told = {**variable.attrs, "coordinates": variable.encoding.get("coordinates", "")}
    meaning = file.rules.meaning(name, told, file.companions)
    if not isinstance(meaning, Doubt):
        return meaning
    for channel in filter(meaning.concerns, file.wanted):
        contents.doubts.setdefault(channel, meaning.text)
    return None


def _doubt_level(contents: Contents, file: _File, name: str, meaning: Meaning) -> None:
    """Keep the doubt about the levels of a field with the channels that it may hold."""
    dims = {*file.dataset.variables[name].dims}
    doubts = [text for levels, text in file.doubts.items() if {*file.dataset.variables[levels].dims} <= dims]
    if meaning.level is not None:
        named = f"{meaning.variable.short}{meaning.level}"
        doubts.append(
            f"its name says {meaning.level} hPa, and the one level of the file says another; if the name is right, "
            f"source.rename: {{{name}: {named}}}"
        )
    for channel in file.wanted if doubts else ():
        if parse_channel(channel).variable is meaning.variable:
            contents.doubts.setdefault(channel, f"{name}: {doubts[0]}")


def _channels(
    path: str, name: str, attributes: dict[Any, Any], shape: FieldShape, meaning: Meaning, rules: NameRules
) -> list[tuple[int, str]]:
    """(level index, channel) of each level of a variable; empty when its level is unknown."""
    variable = meaning.variable
    if not variable.on_levels:
        return [] if len(shape.levels) > 1 else [(0, variable.short)]
    kind = str(attributes.get("GRIB_typeOfLevel", "unknown"))
    if kind not in ("surface", "unknown") and not kind.startswith("isobaric"):
        return []  # a height above ground, a layer of soil or of the model
    at_surface = kind == "surface"
    if shape.levels and shape.level is None and meaning.level is not None and not at_surface:
        if meaning.rank >= 0 and shape.levels != (meaning.level,):
            return []  # its name and the one level of the file contradict each other
        channel = channel_name(variable, meaning.level)
        return [] if channel is None else [(0, channel)]
    if shape.levels and not at_surface:
        named = [(i, channel_name(variable, level)) for i, level in enumerate(shape.levels)]
        return [(i, channel) for i, channel in named if channel is not None]
    level = None if at_surface else meaning.level or rules.level(path, name, variable)
    if level is not None:
        channel = channel_name(variable, level)
        return [] if channel is None else [(0, channel)]
    return [(0, "orography")] if variable.short == "z" else []  # ERA5 calls geopotential at the surface z


def _shape(file: _File, name: str, dims: dict[str, Dimension], scalars: list[Dimension]) -> FieldShape | None:
    """Meaning of a variable's dimensions, or None when it is no field on a latitude-longitude grid."""
    dataset = file.dataset
    own = [dims[str(dim)] for dim in dataset.variables[name].dims]
    by_role = {dim.role: dim for dim in reversed(own)}
    if "latitude" not in by_role or "longitude" not in by_role or map_of(dataset, name):
        return None
    level = by_role.get("level")
    if level is not None and level.coordinate is None and dataset.sizes[level.name] == 1:
        level = None
    told = level or next((scalar for scalar in scalars if scalar.role == "level"), None)
    levels: tuple[float, ...] = ()
    if told is not None and told.coordinate is not None and told.coordinate not in file.doubts:
        levels = tuple(levels_in_hpa(dataset.variables[told.coordinate], told.coordinate).tolist())
    used = ("latitude", "longitude", "level", "time", "step", "number", "expver")
    return FieldShape(
        by_role["latitude"],
        by_role["longitude"],
        level,
        levels,
        slots=tuple(dim.name for dim in own if dim.role in ("time", "step", "number")),
        expver=by_role["expver"].name if "expver" in by_role else None,
        unknown=tuple(
            dim.name
            for dim in own
            if dataset.sizes[dim.name] > 1 and (dim.role not in used or (dim.role == "level" and not levels))
        ),
    )


def _describe(name: str, meaning: Meaning, channels: list[str]) -> str:
    if not meaning.variable.on_levels or channels == ["orography"]:
        return f"{name} ({meaning.variable.era5})"
    levels = ", ".join(channel.removeprefix(meaning.variable.short) for channel in channels)
    return f"{name} ({meaning.variable.era5} at {levels} hPa)"
