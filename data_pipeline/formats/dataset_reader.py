"""Reading fields of NetCDF files and Zarr stores."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.formats.dimensions import Dimension
from weatherfm.data_pipeline.formats.netcdf3 import check_length
from weatherfm.data_pipeline.formats.paths import Format
from weatherfm.errors import InputError

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


@dataclass(frozen=True, eq=False)
class DatasetReader:
    """Fields of one variable of a NetCDF file or Zarr store."""

    path: str
    format: Format
    name: str
    shape: FieldShape
    slot_sizes: tuple[int, ...]
    time_chunk: int

    def read(self, slots: np.ndarray, levels: Sequence[int]) -> np.ndarray:
        """[slot, level, file lat, file lon] in the file's units; ERA5T fills where ERA5 is missing."""
        variable = open_dataset(self.path, self.format).variables[self.name]
        along = np.unravel_index(slots, self.slot_sizes) if self.slot_sizes else ()
        chosen = [np.unique(index, return_inverse=True) for index in along]
        pick: dict[str, Any] = {dim: _slice(index) for dim, (index, _) in zip(self.shape.slots, chosen, strict=True)}
        if self.shape.level is not None:
            pick[self.shape.level.name] = _slice(np.asarray(levels))
        block = self._merge_expver(variable, pick)  # [*slots, level, lat, lon]
        if not along:
            return np.broadcast_to(block, (len(slots), *block.shape))
        if len(chosen) == 1 and len(slots) == len(chosen[0][0]) and (np.diff(slots) > 0).all():
            return block  # already in the order asked for: no copy
        return block[tuple(inverse for _, inverse in chosen)]

    def _merge_expver(self, variable: xr.Variable, pick: dict[str, Any]) -> np.ndarray:
        if self.shape.expver is None:
            return self._load(variable, pick)
        merged = self._load(variable, {**pick, self.shape.expver: 0})
        for i in range(1, variable.sizes[self.shape.expver]):
            later = self._load(variable, {**pick, self.shape.expver: i})
            merged = np.where(np.isnan(merged), later, merged)
        return merged

    def _load(self, variable: xr.Variable, pick: dict[str, Any]) -> np.ndarray:
        level = () if self.shape.level is None else (self.shape.level.name,)
        order = (*self.shape.slots, *level, self.shape.latitude.name, self.shape.longitude.name)
        rest = {dim: 0 for dim in variable.dims if dim not in order}  # length one, or the chosen expver
        part = variable.isel({**rest, **pick})
        # transposing the lazy variable instead would read it point by point
        values = np.transpose(np.asarray(part.values), [part.dims.index(dim) for dim in order])
        if values.dtype.kind == "f":
            values[(values > _FILL) | (values < -_FILL)] = np.nan
        else:
            values = values.astype(np.float64)
        return values if level else np.expand_dims(values, -3)


def open_dataset(path: str, format: Format) -> xr.Dataset:
    """The dataset, decoded and lazy; kept open for the next reader.

    Raises:
        InputError: the library cannot open it (without the file's name).
    """
    stat = os.stat(path)
    return _open(path, format, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _open(path: str, format: Format, mtime: int, size: int) -> xr.Dataset:
    if format == "netcdf3":
        check_length(path)
    try:
        if format == "zarr":
            return xr.open_zarr(path, chunks=None, consolidated=_is_consolidated(path), decode_timedelta=True)
        return xr.open_dataset(path, engine="netcdf4", cache=False, decode_timedelta=True)
    except (OSError, ValueError, KeyError, IndexError, RuntimeError, OverflowError, TypeError) as error:
        text = " ".join(str(error).split())[:200]
        raise InputError(f"it cannot be opened: truncated or damaged ({type(error).__name__}: {text})") from error


def _slice(index: np.ndarray) -> slice | np.ndarray:
    """Evenly spaced ascending indices as a slice, which every backend reads fastest."""
    steps = np.diff(index)
    if len(index) == 1 or (len(steps) and steps[0] > 0 and (steps == steps[0]).all()):
        return slice(int(index[0]), int(index[-1]) + 1, int(steps[0]) if len(steps) else 1)
    return index


def _is_consolidated(path: str) -> bool:
    if os.path.exists(os.path.join(path, ".zmetadata")):
        return True
    root = os.path.join(path, "zarr.json")
    if not os.path.exists(root):
        return False
    with open(root, encoding="utf-8") as file:
        return bool(json.load(file).get("consolidated_metadata"))
