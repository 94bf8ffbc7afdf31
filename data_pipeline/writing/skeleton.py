"""The metadata and small arrays of a store, made in memory by zarr-python and returned as files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.errors import ZarrUserWarning
from zarr.storage import MemoryStore

from weatherfm.data_pipeline.design.store_design import STATE_DIMS, StoreDesign
from weatherfm.data_pipeline.store.records.manifest import TIME_UNITS
from weatherfm.data_pipeline.store.statistics import ChannelStatistics
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.earth.variables import VARIABLES, parse_channel

_COMPRESSOR = BloscCodec(typesize=4, cname="lz4", clevel=5, shuffle="bitshuffle")
"""Reads as fast as no compression and takes 0.69 of the space, where zstd halves the speed for no less."""
_SECONDS_PER_HOUR = 3600
_PRESSURE = {"long_name": "pressure level, NaN without one", "units": "hPa"}


def skeleton_files(design: StoreDesign, static: np.ndarray | None) -> dict[str, bytes]:
    """Metadata of every array, coordinates and static fields [static, lat, lon]: path in the store -> content."""
    files: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(files), attributes=_attributes(design), zarr_format=3)
    _add_big_arrays(group, design)
    _add_coordinates(group, design)
    for name, text in _STATISTICS.items():
        _add(group, name, np.zeros(design.sharding.n_channels), ("channel",), {"long_name": text}, write=False)
    if design.more_leads:
        hours = {"long_name": "lead time of tendency_std_by_lead", "units": "hours"}
        _add(group, "tendency_leads", np.array(_leads(design), np.int64), ("lead",), hours)
        shape, dims = (len(_leads(design)), design.sharding.n_channels), ("lead", "channel")
        spread = {"long_name": "standard deviation of the change over each lead time, training days"}
        _add(group, "tendency_std_by_lead", np.zeros(shape), dims, spread, write=False)
    if static is not None:
        names = np.array(design.config.static)
        _add(group, "static", names, ("static",), {"long_name": "name of the constant field"})
        _add(group, "static_units", np.array([VARIABLES[str(name)].units for name in names]), ("static",), {})
        _add(
            group,
            "static_fields",
            static.astype(np.float32),
            ("static", *STATE_DIMS[2:]),
            {"long_name": "constant fields"},
        )
    if design.masks:
        _add(group, "masked", np.array(list(design.masks)), ("masked",), {"long_name": "channel with a mask"})
        masks = np.stack(list(design.masks.values())).astype(np.int8)
        about = {"long_name": "where a channel has no value at any time", "flag_values": [0, 1]}
        about |= {"flag_meanings": "value no_value"}
        _add(group, "masks", masks, ("masked", *STATE_DIMS[2:]), about)
    _consolidate(group)
    return {key: buffer.to_bytes() for key, buffer in sorted(files.items())}


def _leads(design: StoreDesign) -> list[int]:
    return sorted([design.tendency_lead, *design.more_leads])


def statistics_files(
    state: ChannelStatistics, tendency: ChannelStatistics, lead: int, more: Mapping[int, ChannelStatistics]
) -> dict[str, bytes]:
    """Data of the [channel] arrays whose metadata `skeleton_files` made: path in the store -> content.

    Args:
        state: of the fields.
        tendency: of the change over `lead` hours.
        lead: the tendency lead.
        more: hours -> of the change over further lead times.
    """
    files: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(files), zarr_format=3)
    values = {
        "mean": state.mean,
        "std": state.std,
        "minimum": state.minimum,
        "maximum": state.maximum,
        "tendency_std": tendency.std,
    }
    for name, row in values.items():
        _add(group, name, row, ("channel",), {})
    if more:
        by_lead = {**more, lead: tendency}
        rows = np.stack([by_lead[hours].std for hours in sorted(by_lead)])
        _add(group, "tendency_std_by_lead", rows, ("lead", "channel"), {})
    return {key: buffer.to_bytes() for key, buffer in sorted(files.items()) if not key.endswith("zarr.json")}


def array_metadata(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """The zarr.json of one array."""
    metadata: dict[str, Any] = json.loads(files[f"{name}/zarr.json"])
    return metadata


def transforms_of(config: DataConfig) -> dict[str, dict[str, float]]:
    """Channel -> how it is transformed, for records."""
    return {name: {"log1p": scale} for name, scale in config.log_scales.items()}


_STATISTICS = {
    "mean": "mean over the training days and all grid points",
    "std": "standard deviation over the training days and all grid points",
    "minimum": "smallest value of the training days",
    "maximum": "largest value of the training days",
    "tendency_std": "standard deviation of the change over the tendency lead time, training days",
}


def _attributes(design: StoreDesign) -> dict[str, Any]:
    return {
        "title": "weatherfm training store" + (" (simulated data, not observations)" if design.simulated else ""),
        "Conventions": "CF-1.11",
        "simulated": design.simulated,
        "train": str(design.periods["train"]),
        "climatology_window_days": design.config.climatology_window,
        "tendency_lead_hours": design.tendency_lead,
        **({"transforms": json.dumps(scales)} if (scales := transforms_of(design.config)) else {}),
        "coordinates": "units long_name level" + (" static_units" if design.config.static else ""),
    }


def _what(design: StoreDesign) -> str:
    return "pictures" if design.grid.plane else "state of the atmosphere"


def _add_big_arrays(group: zarr.Group, design: StoreDesign) -> None:
    sharding, fields = design.sharding, design.grid.shape
    chunk = (sharding.channel_block, *fields)
    compressors = (Crc32cCodec(), _COMPRESSOR) if design.checked else (_COMPRESSOR,)  # behind it costs twice as much
    common: dict[str, Any] = {"dtype": "float32", "fill_value": np.nan, "compressors": compressors}
    group.create_array(
        "state",
        shape=(sharding.n_times, sharding.n_channels, *fields),
        chunks=(1, *chunk),
        shards=(sharding.shard_times, sharding.shard_channels, *fields),
        dimension_names=STATE_DIMS,
        attributes={"long_name": f"{_what(design)}, one field a channel; its units stand in `units`"},
        **common,
    )
    group.create_array(
        "climatology",
        shape=(len(design.days), len(design.hours), sharding.n_channels, *fields),
        chunks=(1, 1, *chunk),
        shards=(design.climatology_rows, 1, *chunk),
        dimension_names=("dayofyear", "hour", *STATE_DIMS[1:]),
        attributes={"long_name": "mean over the training days by day of year and hour"},
        **common,
    )


def _add_coordinates(group: zarr.Group, design: StoreDesign) -> None:
    channels = [parse_channel(name) for name in design.config.channels]
    hours = design.axis.times.astype("datetime64[s]").astype(np.int64) // _SECONDS_PER_HOUR
    time = {"standard_name": "time", "units": TIME_UNITS, "calendar": "proleptic_gregorian", "axis": "T"}
    latitude = {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"}
    longitude = {"standard_name": "longitude", "units": "degrees_east", "axis": "X"}
    if design.grid.plane:
        time |= {"comment": "numbers the pictures; no time at which they were taken"}
        latitude, longitude = ({"long_name": f"{axis} of pixels", "units": "1"} for axis in ("row", "column"))
    spectral = any(c.variable.on_wavelengths for c in channels)
    levels = np.array([np.nan if c.level is None else c.level for c in channels], np.float64)
    _add(group, "time", hours, ("time",), time)
    _add(group, "latitude", design.grid.latitude, ("latitude",), latitude)
    _add(group, "longitude", design.grid.longitude, ("longitude",), longitude)
    _add(group, "channel", np.array([c.name for c in channels]), ("channel",), {"long_name": "short name"})
    _add(group, "units", np.array([c.units for c in channels]), ("channel",), {"long_name": "units of the channel"})
    _add(group, "long_name", np.array([c.variable.era5 for c in channels]), ("channel",), {"long_name": "ERA5 name"})
    level = {"long_name": "wavelength", "units": "nm"} if spectral else _PRESSURE
    _add(group, "level", levels, ("channel",), level)
    _add(group, "dayofyear", design.days, ("dayofyear",), {"long_name": "day of year, 1 to 366; 0: all days"})
    _add(group, "hour", design.hours, ("hour",), {"long_name": "hour of day, UTC"})


def _add(
    group: zarr.Group,
    name: str,
    values: np.ndarray,
    dims: tuple[str, ...],
    attributes: dict[str, Any],
    write: bool = True,
) -> None:
    """One small array in one chunk, uncompressed so that anything can read it."""
    text = values.dtype.kind == "U"
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=values.shape,
        dtype=str if text else values.dtype,
        fill_value="" if text else (np.nan if values.dtype.kind == "f" else 0),
        compressors=None,
        dimension_names=dims,
        attributes=attributes,
        config={"write_empty_chunks": True},
    )
    if write:
        array[...] = values


def _consolidate(group: zarr.Group) -> None:
    """Without it, readers list the folder and stumble over the manifest."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part", ZarrUserWarning)
        zarr.consolidate_metadata(group.store)
