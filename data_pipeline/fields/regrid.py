"""Bring fields to another grid: conservative, bilinear or nearest, without ESMF, on reading, on one core a block."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from weatherfm.data_pipeline.fields.positions import BlockEnds, Readable, view
from weatherfm.data_pipeline.fields.regrid_weights import (
    LEAST_SHARE,
    conservative_weights,
    linear_columns,
    linear_rows,
    nearest_columns,
    nearest_rows,
    row_points,
)
from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.fields.target_grid import cut, target_grid
from weatherfm.data_pipeline.store_config import Area, RegridConfig
from weatherfm.earth.grid import Grid
from weatherfm.earth.variables import parse_channel

_log = logging.getLogger(__name__)
_COARSER = 2  # times: from here on, methods that look at points skip some
_VECTOR = ("eastward_wind", "northward_wind")
_ROUNDING = 1e-9  # of a share that is exactly the least one
_BAND_BYTES = 2**20  # of rows in float64 that are summed at once: they stay in a core's cache


@dataclass(frozen=True, eq=False)
class Regridder:
    """Fields of one grid -> fields of another, as one sparse matrix for each axis.

    Sums are float64 and in the same order whatever the number of threads and the shape of the block; the products
    release the interpreter lock. Beside input and output a call holds `workspace_bytes`. Missing values (NaN) get no
    weight; a target value with less than half of its weight on values that are there is missing.

    Raises:
        InputError: the target reaches beyond the source.
    """

    source: Grid
    target: Grid
    method: str
    """conservative, bilinear or nearest, as in `RegridConfig`."""
    _rows: Any = field(init=False, repr=False)
    _columns: Any = field(init=False, repr=False)
    """Sparse weights [target, source] of each axis; for nearest, the index of each target row and column."""
    _bands: list[tuple[slice, slice, Any]] = field(init=False, repr=False, default_factory=list)
    """(target rows, source rows that go into them, weights [target, source] between these), all of `_rows`."""

    def __post_init__(self) -> None:
        if self.method == "conservative":
            rows, columns = conservative_weights(self.source, self.target)
        elif self.method == "bilinear":
            rows, columns = linear_rows(self.source, self.target), linear_columns(self.source, self.target)
        elif self.method == "nearest":
            rows, columns = nearest_rows(self.source, self.target), nearest_columns(self.source, self.target)
        else:
            raise ValueError(f"method must be conservative, bilinear or nearest, got {self.method!r}")
        object.__setattr__(self, "_rows", rows)
        object.__setattr__(self, "_columns", columns)
        if self.method != "nearest":
            object.__setattr__(self, "_bands", list(_bands_of(rows, 8 * self.source.shape[1])))

    @property
    def workspace_bytes(self) -> int:
        """Bytes that a call holds at most beside its input and output: a few fields, more where values are missing."""
        (n_lat, n_lon), (target_lat, target_lon) = self.source.shape, self.target.shape
        if self.method == "nearest":
            return 4 * target_lat * (n_lon + target_lon)
        value = 8 if any(self._poles) else 4
        values_and_mask = (2 * value + 2) * (n_lat + 2) * n_lon
        band = 8 * n_lon * max(rows.stop - rows.start for _, rows, _ in self._bands)
        return values_and_mask + band + 8 * target_lat * (2 * n_lon + 4 * target_lon)

    def __call__(self, fields: np.ndarray, vector: np.ndarray | bool = False) -> np.ndarray:
        """[..., lat, lon] float32 on the source grid -> [..., lat, lon] float32 on the target grid.

        Args:
            fields: any leading dims; fields on equal grids come back bit by bit.
            vector: which fields are eastward or northward components, broadcast over the leading dims. Bilinear
                interpolation beyond the outermost row of a global grid needs a value at the pole: for a scalar the
                mean of that row, for a component its zonal wave 1, which is all that a smooth wind has there.
        """
        lead = fields.shape[:-2]
        if fields.shape[-2:] != self.source.shape:
            raise ValueError(f"fields must be [..., lat, lon] of the source {self.source.shape}, got {fields.shape}")
        if self.source == self.target:
            return fields.astype(np.float32)
        out = np.empty((*lead, *self.target.shape), np.float32)
        components = np.broadcast_to(vector, lead)
        for index in np.ndindex(lead):
            if self.method == "nearest":
                out[index] = fields[index][self._rows][:, self._columns]
            else:
                out[index] = self._weighted(self._with_poles(fields[index], bool(components[index])))
        return out

    def _with_poles(self, values: np.ndarray, component: bool) -> np.ndarray:
        """[lat, lon] -> [row, lon], as float64 with the rows that `row_points` adds, where it does."""
        north, south = self._poles
        if not north and not south:
            return values
        rows = np.empty((north + len(values) + south, values.shape[1]))
        rows[north : north + len(values)] = values
        if north:
            rows[0] = self._pole(rows[1], component)
        if south:
            rows[-1] = self._pole(rows[-2], component)
        return rows

    @property
    def _poles(self) -> tuple[int, int]:
        """Rows to add at the (north, south) end."""
        return row_points(self.source)[1:] if self.method == "bilinear" else (0, 0)

    def _weighted(self, values: np.ndarray) -> np.ndarray:
        """[row, lon] -> [target lat, target lon] float64."""
        result = self._product(values)
        if not np.isnan(result).any():
            return result
        there = ~np.isnan(values)
        total, share = self._product(np.where(there, values, np.zeros(1, values.dtype))), self._product(there)
        enough = share >= LEAST_SHARE - _ROUNDING
        return np.divide(total, share, out=np.full_like(total, np.nan), where=enough)

    def _product(self, values: np.ndarray) -> np.ndarray:
        """[row, lon] of any type -> [target lat, target lon] float64; few rows at a time are held as float64."""
        between = np.empty((self._rows.shape[0], values.shape[1]))  # [target lat, lon]
        for target, source, weights in self._bands:
            between[target] = weights @ values[source].astype(np.float64)
        product: np.ndarray = (self._columns @ between.T).T  # [target lat, target lon]
        return product

    def _pole(self, row: np.ndarray, component: bool) -> np.ndarray:
        """[lon] float64 values along the outermost row's meridians in the limit of the pole."""
        if component:
            angle = np.deg2rad(self.source.longitude)
            cosine, sine = np.cos(angle), np.sin(angle)
            wave: np.ndarray = 2 * (np.mean(row * cosine) * cosine + np.mean(row * sine) * sine)
            return wave  # missing wherever any of the row is
        there = row[~np.isnan(row)]
        return np.full(len(row), there.mean() if len(there) >= LEAST_SHARE * len(row) else np.nan)


def _bands_of(weights: Any, row_bytes: int) -> Iterator[tuple[slice, slice, Any]]:
    """`weights` [target, source] cut along target: a band's source rows take `_BAND_BYTES` at most, if it can be."""
    each = [(int(own.min()), int(own.max()) + 1) for own in np.split(weights.indices, weights.indptr[1:-1])]
    start, (first, stop) = 0, each[0]
    for row, (a, b) in enumerate([*each[1:], (0, 0)], 1):
        if row == len(each) or (max(stop, b) - min(first, a)) * row_bytes > _BAND_BYTES:
            yield slice(start, row), slice(first, stop), weights[start:row, first:stop]
            start, first, stop = row, a, b
        first, stop = min(first, a), max(stop, b)


def place(source: SourceData, area: Area | None, regrid: RegridConfig | None) -> SourceData:
    """The source on the grid the settings ask for; lazy as before, all but grid and provenance as it was.

    Args:
        source: global or a limited area.
        area: keep the points with centres in this box; of a global grid cut across the prime meridian the result
            starts below zero.
        regrid: bring fields to this grid, where source and box cover it (`target_grid`).

    Raises:
        InputError: fewer than two rows or columns would be left.
    """
    grid = source.grid
    told: dict[str, Any] = {} if area is None else {"area": area.model_dump(mode="json")}
    if regrid is not None:
        target = target_grid(grid, regrid, area)
        _warn_if_coarse(grid, target, regrid.method)
        regridder = Regridder(grid, target, regrid.method)
        told["regrid"] = {"from": str(grid), "method": regrid.method}
        return _moved(source, target, regridder, regridder.workspace_bytes, told)
    if area is not None:
        part = cut(grid, area)
        return _moved(source, part.grid, part, 0, told)
    return source


def bring_to(source: SourceData, target: Grid, method: str) -> SourceData:
    """The source on the grid of another; as it is where that is its own.

    Raises:
        InputError: the target reaches beyond the source.
    """
    grid = source.grid
    if grid == target:
        return source
    _warn_if_coarse(grid, target, method)
    regridder = Regridder(grid, target, method)
    told = {"regrid": {"from": str(grid), "method": method}}
    return _moved(source, target, regridder, regridder.workspace_bytes, told)


def _warn_if_coarse(source: Grid, target: Grid, method: str) -> None:
    if method != "conservative" and target.longitude_step > _COARSER * source.longitude_step:
        _log.warning(
            "%s from %s to %s looks at few of the source's points and aliases what lies between them; "
            "for means over cells choose regrid.method: conservative",
            method,
            source,
            target,
        )


class MovedFields(Readable):
    """Fields of another source, each brought to another grid as it is read."""

    def __init__(self, fields: Readable, channels: Sequence[str], grid: Grid, move: Callable[..., np.ndarray]) -> None:
        self._fields, self._move = fields, move
        self.shape = (*fields.shape[:2], *grid.shape)
        vector = [parse_channel(name).variable.standard_name in _VECTOR for name in channels]
        self._vector = np.array(vector) if isinstance(move, Regridder) else None  # [channel]: components of a wind

    def read(self, times: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """[len(times), len(channels), lat, lon] for positions on the two axes."""
        values = self._fields.read(times, channels)
        return self._move(values) if self._vector is None else self._move(values, self._vector[channels])


def _moved(
    source: SourceData, grid: Grid, move: Callable[..., np.ndarray], workspace: int, told: dict[str, Any]
) -> SourceData:
    """`source` with `move` applied to every field of its state and to its constant fields."""
    state, static = source.state, source.static
    channels = [str(name) for name in state["channel"].values]
    fields = MovedFields(source.fields, channels, grid, move)
    ends = BlockEnds.of(state)
    blocks = tuple(tuple(np.diff(one, prepend=0).tolist()) for one in (ends.times, ends.channels))
    lazy = view(fields, state["time"].values, channels, grid, blocks).data
    return replace(
        source,
        state=_on_grid(state, lazy, grid),
        static=None if static is None else _on_grid(static, _moved_static(static.data, grid, move), grid),
        attributes={**source.attributes, **told},
        block_bytes=source.block_bytes + 4 * int(np.prod([*ends.largest(), *state.shape[2:]])) + workspace,
        read_from=fields,
    )


def _moved_static(data: Any, grid: Grid, move: Callable[..., np.ndarray]) -> Any:
    """[static, lat, lon], lazy where `data` is: a source may yet have to fetch it."""
    if not isinstance(data, da.Array):
        return move(np.asarray(data))
    chunks = (data.chunks[0], (grid.shape[0],), (grid.shape[1],))
    return da.map_blocks(move, data, dtype=np.float32, chunks=chunks, meta=np.empty((0,) * 3, np.float32))


def _on_grid(old: xr.DataArray, values: Any, grid: Grid) -> xr.DataArray:
    """`old` with other values on `grid`; coordinates along its other dims stay."""
    kept = {name: c for name, c in old.coords.items() if not {"latitude", "longitude"} & set(c.dims)}
    coordinates = {**kept, "latitude": grid.latitude, "longitude": grid.longitude}
    return xr.DataArray(values, coords=coordinates, dims=old.dims, name=old.name, attrs=old.attrs)
