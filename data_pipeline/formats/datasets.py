"""What a NetCDF file or Zarr store holds, told by its headers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache
from typing import Any

import xarray as xr

from weatherfm.data_pipeline.formats.accumulation import rank_of_sum
from weatherfm.data_pipeline.formats.chunks import Chunking
from weatherfm.data_pipeline.formats.clock import slots_of
from weatherfm.data_pipeline.formats.dataset_reader import DatasetReader, FieldShape, open_dataset
from weatherfm.data_pipeline.formats.dimensions import (
    Dimension,
    dimensions_of,
    levels_in_hpa,
    orientation_of_dims,
    scalars_of,
)
from weatherfm.data_pipeline.formats.names import Meaning, NameRules, channel_name
from weatherfm.data_pipeline.formats.paths import Format
from weatherfm.data_pipeline.formats.pieces import Contents, Piece, Slots
from weatherfm.data_pipeline.formats.span import Span
from weatherfm.data_pipeline.formats.units import conversion_to
from weatherfm.errors import InputError
from weatherfm.variables import VARIABLES

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
    return _index(open_dataset(path, format, rules.source.access), path, format, rules, wanted, span or Span(), None)


def index_in_memory(dataset: xr.Dataset, name: str, rules: NameRules, wanted: Collection[str]) -> Contents:
    """What a Dataset holds of the wanted channels; `name` is what messages call it.

    Raises:
        InputError: no readable field on a latitude-longitude grid (without the name).
    """
    return _index(dataset, name, "zarr", rules, wanted, Span(), dataset)


def _index(
    dataset: xr.Dataset,
    path: str,
    format: Format,
    rules: NameRules,
    wanted: Collection[str],
    limits: Span,
    held: xr.Dataset | None,
) -> Contents:
    dims = dimensions_of(dataset)
    scalars = scalars_of(dataset)
    contents = Contents(path, attributes={k: str(dataset.attrs[k]) for k in _PROVENANCE if k in dataset.attrs})

    @cache
    def slots(dims: tuple[str, ...], accumulated: bool) -> Slots:
        return limits.limit(slots_of(dataset, dims), accumulated)

    gridded = 0
    for name in map(str, dataset.variables):
        shape = _shape(dataset, name, dims, scalars)
        if shape is None:
            continue
        gridded += 1
        orientation_of_dims(dataset, shape.latitude, shape.longitude)  # damaged coordinates spoil the whole file
        _add(contents, dataset, format, name, shape, slots, rules, wanted, held)
    if not gridded:
        raise InputError(
            f"it holds no field on a latitude-longitude grid (dimensions {_sizes(dataset)}); regrid it first"
        )
    return contents


def _add(
    contents: Contents,
    dataset: xr.Dataset,
    format: Format,
    name: str,
    shape: FieldShape,
    slots_in: Callable[[tuple[str, ...], bool], Slots],
    rules: NameRules,
    wanted: Collection[str],
    held: xr.Dataset | None,
) -> None:
    """Put one variable's channels into `contents`."""
    variable = dataset.variables[name]
    meaning = rules.meaning(name, variable.attrs)
    if meaning is None or shape.unknown:
        contents.others.append(name + (f" (over {', '.join(shape.unknown)})" if shape.unknown else ""))
        return
    channels = _channels(contents.path, name, variable.attrs, shape, meaning, rules)
    if not channels:
        contents.others.append(f"{name} ({meaning.variable.era5}, level not told)")
        return
    present = [(i, c) for i, c in channels if c in wanted]
    if len(present) < len(channels):
        contents.others.append(_describe(name, meaning, [c for _, c in channels]))
    if not present:
        return
    units = rules.units(name, meaning.variable, variable.attrs.get("units"))
    chunks = Chunking.of(variable, shape.slots, None if shape.level is None else shape.level.name)
    reader = DatasetReader(contents.path, format, name, shape, chunks, held, rules.source.access)
    orientation = orientation_of_dims(dataset, shape.latitude, shape.longitude)
    slots = slots_in(shape.slots, meaning.variable.accumulated)
    rank = rank_of_sum(name, meaning.rank, slots) if meaning.variable.accumulated else meaning.rank
    for i, channel in present:
        target = VARIABLES.get(channel, meaning.variable)  # a single-level z is orography
        try:
            conversion = conversion_to(target, units)
        except InputError as error:
            cure = f"mend the file or set source.units: {{{name}: ...}}" if held is None else "set the attribute units"
            raise InputError(f"its variable {name} {error}; {cure}") from None
        contents.pieces.append(
            Piece(contents.path, name, channel, reader, i, orientation, units, conversion, rank, slots)
        )


def _channels(
    path: str, name: str, attributes: dict[Any, Any], shape: FieldShape, meaning: Meaning, rules: NameRules
) -> list[tuple[int, str]]:
    """(level index, channel) of each level of a variable; empty when its level is unknown."""
    variable = meaning.variable
    if not variable.on_levels:
        return [] if len(shape.levels) > 1 else [(0, variable.short)]
    at_surface = attributes.get("GRIB_typeOfLevel") == "surface"
    if shape.levels and not at_surface:
        named = [(i, channel_name(variable, level)) for i, level in enumerate(shape.levels)]
        return [(i, channel) for i, channel in named if channel is not None]
    level = None if at_surface else meaning.level or rules.level(path, name, variable)
    if level is not None:
        channel = channel_name(variable, level)
        return [] if channel is None else [(0, channel)]
    return [(0, "orography")] if variable.short == "z" else []  # ERA5 calls geopotential at the surface z


def _shape(dataset: xr.Dataset, name: str, dims: dict[str, Dimension], scalars: list[Dimension]) -> FieldShape | None:
    """Meaning of a variable's dimensions, or None when it is no field on a latitude-longitude grid."""
    own = [dims[str(dim)] for dim in dataset.variables[name].dims]
    by_role = {dim.role: dim for dim in reversed(own)}
    if "latitude" not in by_role or "longitude" not in by_role:
        return None
    level = by_role.get("level")
    if level is not None and level.coordinate is None and dataset.sizes[level.name] == 1:
        level = None
    told = level or next((scalar for scalar in scalars if scalar.role == "level"), None)
    levels: tuple[float, ...] = ()
    if told is not None and told.coordinate is not None:
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
            if dataset.sizes[dim.name] > 1
            and (dim.role not in used or (dim.role == "level" and dim.coordinate is None))
        ),
    )


def _describe(name: str, meaning: Meaning, channels: list[str]) -> str:
    if not meaning.variable.on_levels or channels == ["orography"]:
        return f"{name} ({meaning.variable.era5})"
    levels = ", ".join(channel.removeprefix(meaning.variable.short) for channel in channels)
    return f"{name} ({meaning.variable.era5} at {levels} hPa)"


def _sizes(dataset: xr.Dataset) -> str:
    return ", ".join(f"{name} {size}" for name, size in dataset.sizes.items()) or "none"
