"""The role of each dimension of a dataset (latitude, level, time, ...), whatever it is called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.formats.orientation import Orientation, orientation_of
from weatherfm.data_pipeline.formats.units import pressure_factor
from weatherfm.errors import InputError

Role = Literal["latitude", "longitude", "level", "time", "step", "number", "expver", "unknown"]

_LATITUDE = re.compile(r"(g\d+_)?lat(itude)?s?(_\d+)?|nav_lat")
_LONGITUDE = re.compile(r"(g\d+_)?lon(gitude)?s?(_\d+)?|nav_lon")
_LEVEL = re.compile(r"(pressure_?)?levels?|lev|plev\w*|isobaric\w*|pressure|pfull|lv_isbl\d*|air_pressure")
_CYLINDRICAL = ("", "latitude_longitude", "mercator", "lambert_cylindrical_equal_area")
"""CF's maps whose rows are latitudes and whose columns are longitudes."""
_NO_PRESSURE = r"height|altitude|depth|isentropic|theta|potential.temperature|member"
"""Words of a coordinate called `level` and the like, without units, that say that it is something else."""
_NAMED: dict[str, Role] = {
    **dict.fromkeys(("time", "valid_time", "date", "forecast_reference_time", "init_time", "initial_time"), "time"),
    **dict.fromkeys(("step", "forecast_period", "prediction_timedelta", "lead_time", "leadtime"), "step"),
    **dict.fromkeys(("number", "member", "members", "realization", "ensemble", "ensemble_member", "ens"), "number"),
    "expver": "expver",
}


@dataclass(frozen=True)
class Dimension:
    """A dimension (or scalar coordinate) and the variable that holds its values, if any does."""

    name: str
    role: Role
    coordinate: str | None


def with_units(dataset: xr.Dataset, told: Mapping[str, str]) -> xr.Dataset:
    """The same dataset, its coordinates in the units that the config tells; nothing is read."""
    named = [name for name in told if name in dataset.variables and dataset.variables[name].ndim <= 1]
    if not named:
        return dataset
    changed = dataset.copy()
    for name in named:
        changed.variables[name].attrs = {**changed.variables[name].attrs, "units": told[name]}
    return changed


def dimensions_of(dataset: xr.Dataset) -> dict[str, Dimension]:
    """Role of every dimension of a dataset, by its coordinate's attributes first and by its name second."""
    return {str(dim): _dimension(dataset, str(dim)) for dim in dataset.sizes}


def scalars_of(dataset: xr.Dataset) -> list[Dimension]:
    """Scalar variables with a role, such as the one time or the one level of a file."""
    scalars = [str(name) for name, v in dataset.variables.items() if v.ndim == 0]
    found = [Dimension(name, role_of(name, dataset.variables[name]), name) for name in scalars]
    return [scalar for scalar in found if scalar.role != "unknown"]


def role_of(name: str, values: xr.Variable | None) -> Role:
    """What a coordinate means."""
    low = name.lower()
    attributes: dict[Any, Any] = {} if values is None else values.attrs
    standard = str(attributes.get("standard_name", ""))
    units = str(attributes.get("units", "")).strip()
    if values is not None and np.issubdtype(values.dtype, np.datetime64):
        return "time"
    if values is not None and np.issubdtype(values.dtype, np.timedelta64):
        return "step"
    if low in _NAMED:
        return _NAMED[low]
    if standard == "realization":
        return "number"
    if standard in ("grid_latitude", "grid_longitude") or standard.startswith("projection_"):
        return "unknown"  # of a rotated pole or a map
    if standard == "latitude" or re.fullmatch(r"degrees?_?(north|n)", units, re.I) or _LATITUDE.fullmatch(low):
        return "latitude"
    if standard == "longitude" or re.fullmatch(r"degrees?_?(east|e)", units, re.I) or _LONGITUDE.fullmatch(low):
        return "longitude"
    return "level" if _is_pressure_level(low, units, values) else "unknown"


def _is_pressure_level(name: str, units: str, values: xr.Variable | None) -> bool:
    """Pressure levels by their units, or by name where units are missing; never model levels."""
    if values is None:
        return bool(_LEVEL.fullmatch(name))
    said = f"{values.attrs.get('standard_name', '')} {values.attrs.get('long_name', '')}".lower()
    of_model = "formula_terms" in values.attrs or any(word in said for word in ("hybrid", "sigma", "model"))
    if values.dtype.kind not in "iuf" or of_model:
        return False
    named = _LEVEL.fullmatch(name) is not None
    if pressure_factor(units) is None and re.search(_NO_PRESSURE, said):
        return False
    if pressure_factor(units) is not None:
        return named or values.ndim == 1  # a scalar pressure of another name is a constant of the model
    return named and not units


def map_of(dataset: xr.Dataset, name: str) -> str | None:
    """CF's name of the map that a field lies on, as `rotated_latitude_longitude`; None on latitudes and longitudes."""
    variable = dataset.variables[name]
    said = str(variable.attrs.get("grid_mapping", variable.encoding.get("grid_mapping", "")))
    names = [part.strip(":") for part in said.split()]
    maps = [
        str(dataset.variables[part].attrs.get("grid_mapping_name", "")) for part in names if part in dataset.variables
    ]
    odd = [one for one in maps if one not in _CYLINDRICAL]
    return odd[0] if odd and len(odd) == len(maps) else None


def is_called_level(dim: Dimension, dataset: xr.Dataset) -> bool:
    """True for numbers under a name of pressure levels that are none, by their units or by what is said of them."""
    values = None if dim.coordinate is None else dataset.variables[dim.coordinate]
    called = dim.role == "unknown" and values is not None and values.dtype.kind in "iuf"
    return called and _LEVEL.fullmatch(dim.name.lower()) is not None


def orientation_of_dims(dataset: xr.Dataset, latitude: Dimension, longitude: Dimension) -> Orientation:
    """Orientation of fields on these two dimensions.

    Raises:
        InputError: coordinates missing, fill values or no regular grid (without the file's name).
    """
    values = []
    for dim in (latitude, longitude):
        if dim.coordinate is None:
            raise InputError(f"its dimension {dim.name!r} has no values; it cannot be placed on the Earth")
        coordinate = dataset.variables[dim.coordinate]
        degrees = np.asarray(coordinate.values, np.float64)
        values.append(np.rad2deg(degrees) if "radian" in str(coordinate.attrs.get("units", "")) else degrees)
    return orientation_of(values[0], values[1])


def _dimension(dataset: xr.Dataset, dim: str) -> Dimension:
    own = dataset.variables.get(dim)
    if own is not None and own.ndim == 1:
        return Dimension(dim, role_of(dim, own), dim)
    for name, variable in dataset.variables.items():  # e.g. lat(y)
        if variable.dims == (dim,) and (role := role_of(str(name), variable)) in (
            "latitude",
            "longitude",
            "time",
            "level",
        ):
            return Dimension(dim, role, str(name))
    return Dimension(dim, role_of(dim, None), None)
