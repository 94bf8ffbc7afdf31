"""Reading fields of NetCDF files and Zarr stores."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.access import PUBLIC, Access
from weatherfm.data_pipeline.formats.chunks import Chunking
from weatherfm.data_pipeline.formats.datasets.dimensions import Dimension
from weatherfm.data_pipeline.formats.files.declared_length import check_hdf5_length, check_netcdf3_length
from weatherfm.data_pipeline.formats.files.identity import Stamp, refuse_changed, stamp_of
from weatherfm.data_pipeline.formats.files.paths import Format
from weatherfm.data_pipeline.formats.opendap.opening import open_opendap
from weatherfm.data_pipeline.formats.time_values import decoded
from weatherfm.data_pipeline.formats.zarr.folder_values import read_plain
from weatherfm.data_pipeline.formats.zarr.icechunk_repository import pinned
from weatherfm.data_pipeline.formats.zarr.opening import ChunkError, chunk_place, open_zarr
from weatherfm.data_pipeline.formats.zarr.shard_index import check_shards
from weatherfm.data_pipeline.formats.zarr.stored_size import mean_chunk_bytes, share_of_file
from weatherfm.errors import InputError, OutsideError

_SAMPLES = 3
"""Chunks of a Zarr array that are looked at to tell how well it compresses."""
FILL_CURE = "; if you know that it was, source.missing_chunks: fill reads it as the fill value"
_CURE = (
    "nothing is filled in for it: fetch the store again (or write it with write_empty_chunks=True, if the chunk was "
    f"left out for being empty{FILL_CURE}), or choose other days or channels"
)
_FILL = 9e36  # unwritten parts of a NetCDF float hold 9.97e36


@dataclass(frozen=True)
class FieldShape:
    """Dimensions of one variable by what they mean."""

    latitude: Dimension
    longitude: Dimension
    level: Dimension | None
    levels: tuple[float, ...]
    """hPa; empty where neither a dimension nor a scalar tells."""
    slots: tuple[str, ...]
    """Dimensions of times, steps and members, in the file's order."""
    expver: str | None
    unknown: tuple[str, ...]
    """Longer than one and of unknown meaning: the variable cannot be read."""
    versions: tuple[int, ...] = ()
    """Positions along `expver` that are merged, the first before the others."""


@dataclass(frozen=True, eq=False)
class DatasetReader:
    """Fields of one variable of a NetCDF file or Zarr store."""

    path: str
    format: Format
    name: str
    shape: FieldShape
    chunks: Chunking
    held: xr.Dataset | None = None
    """The Dataset itself where it is in memory and no file."""
    stamp: Stamp | None = None
    """Of the file when it was indexed; reading refuses another."""
    access: Access = PUBLIC

    def read(self, slots: np.ndarray, levels: Sequence[int]) -> np.ndarray:
        """[slot, level, file lat, file lon] in the file's units; ERA5T fills where ERA5 is missing.

        Raises:
            InputError: a chunk of a Zarr store is not there or refused; names variable, time and store.
            OutsideError: the network failed.
        """
        dataset = self._dataset
        variable = dataset.variables[self.name]
        along = np.unravel_index(slots, self.chunks.slots) if self.chunks.slots else ()
        chosen = [np.unique(index, return_inverse=True) for index in along]
        pick: dict[str, Any] = {dim: _slice(index) for dim, (index, _) in zip(self.shape.slots, chosen, strict=True)}
        if self.shape.level is not None:
            pick[self.shape.level.name] = _slice(np.asarray(levels))
        try:
            block = self._merge_expver(variable, pick)  # [*slots, level, lat, lon]
        except ChunkError as error:
            raise InputError(
                f"{self.path}: {self.name}{_time_of(dataset, variable, error)}: chunk {error.key} {error.reason}; "
                f"{error.cure or _CURE}"
            ) from error
        if not along:
            return np.broadcast_to(block, (len(slots), *block.shape))
        if len(slots) == math.prod(len(index) for index, _ in chosen) and (np.diff(slots) > 0).all():
            return block.reshape(len(slots), *block.shape[len(along) :])  # in the order asked for already: no copy
        return block[tuple(inverse for _, inverse in chosen)]

    def value_step(self, slot: int) -> float:
        """CF's `scale_factor`; 0 for values that are not packed."""
        return abs(float(self._dataset.variables[self.name].encoding.get("scale_factor", 0.0)))

    @property
    def _dataset(self) -> xr.Dataset:
        if self.held is not None:
            return self.held
        refuse_changed(self.path, self.stamp)
        return open_dataset(self.path, self.format, self.access)

    def stored_bytes(self, keys: np.ndarray) -> int:
        """Of a Zarr array from the sizes of a few of the chunks, of other files their share of the file."""
        dataset = open_dataset(self.path, self.format, self.access)
        variable = dataset.variables[self.name]
        if self.format == "opendap":  # sent as they are
            return len(keys) * self.chunks.tiles * self.chunks.chunk_bytes
        if self.format != "zarr":
            return round(
                share_of_file(self.path, dataset, variable) * len(keys) * self.chunks.tiles / self.chunks.count
            )
        few = keys[np.unique(np.linspace(0, len(keys) - 1, _SAMPLES).astype(int))]
        each = mean_chunk_bytes(self.path, self.name, [self._place(variable, int(key)) for key in few], self.access)
        return round(len(keys) * self.chunks.tiles * (self.chunks.chunk_bytes if each is None else each))

    def _place(self, variable: xr.Variable, key: int) -> tuple[int, ...]:
        """Number of a chunk along each dimension of the variable."""
        row, part = divmod(key, self.chunks.level_parts)
        along = dict(zip(self.shape.slots, self.chunks.place(row), strict=True))
        level = {} if self.shape.level is None else {self.shape.level.name: part}
        return tuple({**along, **level}.get(str(dim), 0) for dim in variable.dims)

    def _merge_expver(self, variable: xr.Variable, pick: dict[str, Any]) -> np.ndarray:
        if self.shape.expver is None:
            return self._load(variable, pick)
        first, *others = self.shape.versions or range(variable.sizes[self.shape.expver])
        merged = self._load(variable, {**pick, self.shape.expver: first})
        for i in others:
            later = self._load(variable, {**pick, self.shape.expver: i})
            merged = np.where(np.isnan(merged), later, merged)
        return merged

    def _load(self, variable: xr.Variable, pick: dict[str, Any]) -> np.ndarray:
        level = () if self.shape.level is None else (self.shape.level.name,)
        order = (*self.shape.slots, *level, self.shape.latitude.name, self.shape.longitude.name)
        rest = {dim: 0 for dim in variable.dims if dim not in order}  # length one, or the chosen expver
        part = variable.isel({**rest, **pick})
        from_disk = self.held is None and self.format == "zarr"
        plain = read_plain(self.path, self.name, variable, {**rest, **pick}) if from_disk else None
        if from_disk and plain is None:
            chosen: dict[Any, Any] = {**rest, **pick}
            picks = [chosen.get(dim, slice(None)) for dim in variable.dims]
            check_shards(self.path, self.name, picks, self.access)
        # transposing the lazy variable instead would read it point by point
        values = np.transpose(part.values if plain is None else plain, [part.dims.index(dim) for dim in order])
        if values.dtype.kind != "f":
            values = values.astype(np.float64)
        elif self.format != "zarr":  # Zarr says which of its values are none
            values[np.abs(values) > _FILL] = np.nan
        return values if level else np.expand_dims(values, -3)


def open_dataset(path: str, format: Format, access: Access = PUBLIC) -> xr.Dataset:
    """The dataset, decoded and lazy; kept open for the next reader. `access` is for Zarr stores.

    Raises:
        InputError: the library cannot open it (without the file's name).
        OutsideError: the network failed.
    """
    return _open(path, format, stamp_of(path), pinned(path, access))


@lru_cache(maxsize=64)
def _open(path: str, format: Format, stamp: Stamp | None, access: Access) -> xr.Dataset:
    if format == "netcdf3":
        check_netcdf3_length(path)
    if format == "hdf5":
        check_hdf5_length(path)
    try:
        if format == "zarr":
            return open_zarr(path, access)
        if format == "opendap":
            return open_opendap(path, access)
        return decoded(partial(xr.open_dataset, path, engine="netcdf4", cache=False))
    except (InputError, OutsideError):
        raise
    except (OSError, ValueError, KeyError, IndexError, RuntimeError, OverflowError, TypeError) as error:
        text = " ".join(str(error).split())[:200]
        if told := re.match(r"unable to decode time units (.+?)\. Try opening", text):
            raise InputError(
                f"its times are counted in {told[1]}, which is no date to count from; mend the attributes units "
                "(days since 2020-01-01) and calendar (standard) of its time"
            ) from error
        raise InputError(f"it cannot be opened: truncated or damaged ({type(error).__name__}: {text})") from error


def _slice(index: np.ndarray) -> slice | np.ndarray:
    """Evenly spaced ascending indices as a slice, which every backend reads fastest."""
    steps = np.diff(index)
    if len(index) == 1 or (len(steps) and steps[0] > 0 and (steps == steps[0]).all()):
        return slice(int(index[0]), int(index[-1]) + 1, int(steps[0]) if len(steps) else 1)
    return index


def _time_of(dataset: xr.Dataset, variable: xr.Variable, error: ChunkError) -> str:
    """` at TIME` of the first field in a chunk of a Zarr array, as far as its place tells."""
    encoding = variable.encoding
    inside = error.place is not None
    lengths = encoding.get("chunks") if inside else encoding.get("shards") or encoding.get("chunks")
    place = error.place if error.place is not None else chunk_place(error.key)
    if lengths is None or len(place) != variable.ndim:
        return ""
    for dim, position, length in zip(variable.dims, place, lengths, strict=True):
        times = dataset.variables.get(dim)
        if times is not None and np.issubdtype(times.dtype, np.datetime64) and position * length < len(times):
            return f" at {times.values[position * length].astype('datetime64[m]')}"
    return ""
