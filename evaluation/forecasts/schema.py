"""WeatherBench2's layout of a forecast: names, dims, coordinates and Zarr v3 array metadata (numpy only)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from weatherfm.earth.grid import Grid
from weatherfm.earth.variables import parse_channel

MADE_BY = "weatherfm"
"""How the attribute `source` of a Dataset by `weatherfm.forecast` begins; a version follows."""

_CHECKSUM: dict[str, Any] = {"name": "crc32c"}


def variables_of(channels: Sequence[str]) -> dict[str, dict[int | None, str]]:
    """ERA5 long name -> level in hPa -> channel; the level is None for a variable without levels."""
    variables: dict[str, dict[int | None, str]] = {}
    for name in channels:
        channel = parse_channel(name)
        variables.setdefault(channel.variable.era5, {})[channel.level] = name
    return variables


def levels_of(channels: Sequence[str]) -> list[int]:
    """All levels of all variables in hPa, ascending: WeatherBench2 has one `level` dim for all."""
    levels = {parse_channel(name).level for name in channels}
    return sorted(level for level in levels if level is not None)


def variable_attributes(channel: str) -> dict[str, str]:
    """CF attributes of the variable a channel belongs to."""
    variable = parse_channel(channel).variable
    attributes = {"long_name": variable.era5.replace("_", " "), "units": variable.units, "short_name": variable.short}
    return attributes | ({"standard_name": variable.standard_name} if variable.standard_name else {})


def coordinates(
    init_times: np.ndarray,
    lead_times: Sequence[int],
    grid: Grid,
    levels: Sequence[int],
    numbers: Sequence[int] | None = None,
) -> list[tuple[str, np.ndarray, dict[str, str]]]:
    """(name, values, CF attributes) of every coordinate; times and lead times as CF integers."""
    seconds = init_times.astype("datetime64[s]").astype(np.int64)
    since = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}
    period = {"units": "hours", "dtype": "timedelta64[ns]"}  # the dtype tells xarray to decode a time span
    found = [
        ("time", seconds, {"standard_name": "forecast_reference_time", "long_name": "initial time", **since}),
        ("prediction_timedelta", np.asarray(lead_times, np.int64), {"long_name": "lead time", **period}),
        ("latitude", grid.latitude, {"standard_name": "latitude", "units": "degrees_north"}),
        ("longitude", grid.longitude, {"standard_name": "longitude", "units": "degrees_east"}),
    ]
    if levels:
        pressure = {"standard_name": "air_pressure", "long_name": "pressure level", "units": "hPa", "positive": "down"}
        found.append(("level", np.asarray(levels, np.int64), pressure))
    if numbers is not None:
        found.append(("number", np.asarray(numbers, np.int64), {"standard_name": "realization", "long_name": "member"}))
    return found


def array_metadata(
    dims: Sequence[str],
    shape: Sequence[int],
    file_shape: Sequence[int],
    chunk_shape: Sequence[int] | None,
    dtype: Any,
    attributes: dict[str, str],
) -> dict[str, Any]:
    """Zarr v3 metadata of one array: files of `file_shape`, cut into compressed chunks where a chunk shape is given.

    Chunks carry a checksum (crc32c): who reads a changed one is told.
    """
    codecs: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}]
    if chunk_shape is not None:
        blosc = {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": np.dtype(dtype).itemsize}
        inner = [*codecs, _CHECKSUM, {"name": "blosc", "configuration": blosc}]
        configuration = {"chunk_shape": list(chunk_shape), "codecs": inner}
        codecs = [{"name": "sharding_indexed", "configuration": configuration}]
    else:
        codecs.append(_CHECKSUM)
    metadata = {
        "shape": list(shape),
        "data_type": np.dtype(dtype).name,
        "dimension_names": list(dims),
        "attributes": attributes,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(file_shape)}},
        "codecs": codecs,
    }
    return metadata | ({"fill_value": "NaN"} if chunk_shape is not None else {})
