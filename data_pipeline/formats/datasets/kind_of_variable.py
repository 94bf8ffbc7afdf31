"""What variables of NetCDF files and Zarr stores are, and of which experiment, by their attributes and coordinates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.formats.datasets.reader import DatasetReader, FieldShape
from weatherfm.data_pipeline.formats.meaning.experiments import experiment_name, experiment_names, groups_of
from weatherfm.data_pipeline.formats.meaning.kinds import Clue, clues_of_attributes
from weatherfm.data_pipeline.formats.pieces import Slots, are_era5t
from weatherfm.earth.variables import Variable

_FREQUENCY_HOURS = {  # CMIP's attribute `frequency`
    "1hr": 1.0, "3hr": 3.0, "6hr": 6.0, "day": 24.0, "mon": 730.0, "monC": 730.0, "yr": 8766.0, "dec": 87660.0,
}  # fmt: skip
_EXPERIMENT_KEYS = ("GRIB_expver", "GRIB_experimentVersionNumber", "expver", "experimentVersionNumber")
_DAY = 24.0


def clues_of_variable(dataset: xr.Dataset, name: str, slots: Slots, accumulated: bool) -> tuple[Clue, ...]:
    """Why the variable `name` is not the state (`meaning/kinds.py`); empty where it is. `accumulated`: it is a sum."""
    variable = dataset.variables[name]
    hours = hours_of_means(dataset, variable, slots.times)
    clues = clues_of_attributes(variable.attrs, dataset.attrs, hours, accumulated)
    means = next((dim for dim in variable.dims if "climatology" in _attributes(dataset, dim)), None)
    if means is None or any(clue.kind == "climatology" for clue in clues):
        return clues
    return (*clues, Clue("climatology", f"its {means} has bounds of a climatology"))


def _attributes(dataset: xr.Dataset, dim: Any) -> dict[Any, Any]:
    return {} if dim not in dataset.variables else dataset.variables[dim].attrs


def layer_of(dataset: xr.Dataset, variable: xr.Variable) -> tuple[str, str]:
    """(typeOfLevel, level) as cfgrib and the Climate Data Store write them into NetCDF; empty where not told."""
    layer = str(variable.attrs.get("GRIB_typeOfLevel", ""))
    coordinate = dataset.variables.get(layer)
    level = variable.attrs.get(f"GRIB_{layer}")
    if level is None and coordinate is not None and coordinate.ndim == 0:
        level = coordinate.values
    return layer, "" if level is None or np.isnan(float(level)) else f"{float(level):g}"


def at_months(slots: Slots) -> Slots:
    """The slots of monthly means, each at the first of its month: some files write the middle."""
    months = slots.times.astype("datetime64[M]")
    if len(np.unique(months)) < len(np.unique(slots.times)):  # one for each hour of the day
        return slots
    return replace(slots, times=months.astype("datetime64[s]"))


def sums_of_means(slots: Slots, clues: tuple[Clue, ...], attributes: dict[Any, Any], meaning: Variable) -> Slots:
    """The slots of a monthly mean of sums: where these are daily ones, each is over a day and not over the month."""
    daily = attributes.get("GRIB_stepType") == "avgad" or attributes.get("GRIB_stream") in ("moda", "edmo", "mdfa")
    if not (meaning.accumulated and daily and any(clue.kind == "monthly_mean" for clue in clues)):
        return slots
    return replace(slots, accumulated=np.full(len(slots.times), _DAY))


def by_experiment(dataset: xr.Dataset, reader: DatasetReader, slots: Slots) -> Iterator[tuple[DatasetReader, Slots]]:
    """A variable's reader and slots, once for each experiment along its dimension that is not merged with others.

    Of ERA5's two, the final field comes first whatever the order in the file; times that only have the other one are
    preliminary, which is seen in the row of points in the middle of each field.
    """
    dim = reader.shape.expver
    if dim is None or dim not in dataset.variables:
        yield reader, _with_attribute(dataset, reader.name, slots)
        return
    names = [experiment_name(value) for value in np.atleast_1d(dataset.variables[dim].values).tolist()]
    for group in groups_of(names):
        ordered = sorted(group, key=lambda version: names[version])
        own = np.full(len(slots.times), names[ordered[0]], "U16")
        shape = replace(reader.shape, versions=tuple(ordered))
        early = _only_in_last(dataset, shape, reader.name) if len(group) > 1 else are_era5t([names[ordered[0]]])
        preliminary = np.broadcast_to(early, own.shape) if len(early) == 1 else early[slots.index]
        yield replace(reader, shape=shape), replace(slots, experiments=own, preliminary=preliminary)


def _only_in_last(dataset: xr.Dataset, shape: FieldShape, name: str) -> np.ndarray:
    """[slot] bool: the first of the versions has nothing where the last one has something."""
    rows = []
    for version in (shape.versions[0], shape.versions[-1]):
        middle = {shape.expver: version, shape.latitude.name: dataset.sizes[shape.latitude.name] // 2}
        part = dataset.variables[name].isel({dim: 0 for dim in dataset.variables[name].dims
                                             if dim not in (*shape.slots, shape.longitude.name)} | middle)  # fmt: skip
        rows.append(np.isnan(part.transpose(*shape.slots, shape.longitude.name).values))
    lacking: np.ndarray = (rows[0] & ~rows[1]).any(axis=-1).reshape(-1)
    return lacking


def _with_attribute(dataset: xr.Dataset, name: str, slots: Slots) -> Slots:
    """The slots with the experiment that attributes name, where no coordinate does."""
    if slots.experiments is not None:
        return slots
    attributes = {**dataset.attrs, **dataset.variables[name].attrs}
    said = next((attributes[key] for key in _EXPERIMENT_KEYS if key in attributes), None)
    return slots if said is None else replace(slots, experiments=experiment_names([said]).repeat(len(slots.times)))


def hours_of_means(dataset: xr.Dataset, variable: xr.Variable, times: np.ndarray) -> float | None:
    """What means of a variable cover: told by time bounds, else by `frequency`, else by the distance of times."""
    for dim in variable.dims:
        coordinate = dataset.variables.get(dim)
        bounds = None if coordinate is None else dataset.variables.get(coordinate.attrs.get("bounds", ""))
        if bounds is not None and bounds.ndim == 2 and bounds.dims[0] == dim and bounds.size:
            return _longest(np.asarray(bounds.values))
    frequency = str(dataset.attrs.get("frequency", ""))
    if frequency in _FREQUENCY_HOURS:
        return _FREQUENCY_HOURS[frequency]
    steps = np.diff(np.unique(times[~np.isnat(times)]))
    return None if not len(steps) else float(np.median(steps / np.timedelta64(3600, "s")))


def _longest(bounds: np.ndarray) -> float | None:
    """Hours between two bounds [time, 2], of the longest; None where they are no times."""
    if np.issubdtype(bounds.dtype, np.datetime64):
        return float(np.nanmax((bounds[:, 1] - bounds[:, 0]) / np.timedelta64(3600, "s")))
    if bounds.dtype == object:  # of another calendar
        return max(float((end - start).total_seconds()) / 3600 for start, end in bounds.tolist())
    return None
