"""Constant fields of files: orography and land-sea mask, checked to be what their names say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.fields.positions import STATE_DIMS
from weatherfm.data_pipeline.fields.source_data import ReadCost, SourceData
from weatherfm.data_pipeline.formats.files.identity import identities_of
from weatherfm.data_pipeline.formats.files.paths import find_files
from weatherfm.data_pipeline.formats.pieces import Piece
from weatherfm.data_pipeline.formats.reading.selection import common_grid
from weatherfm.data_pipeline.source_config import FilesSource
from weatherfm.earth.constants import GRAVITY
from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError

_LOWEST = 1000 * GRAVITY
"""m2 s-2, of the lowest point of any belt of latitudes."""


def constant_fields(
    names: Sequence[str], source: FilesSource, pieces: Sequence[Piece], beside: Piece | None
) -> tuple[xr.DataArray | None, set[str]]:
    """([static, lat, lon] float32 in canonical units or None without names, the files they are from).

    Args:
        names: of the fields, all held by `pieces`.
        source: those of its `static_paths` go before others.
        pieces: of all files.
        beside: a field whose grid all must have; without one, all must have the same.

    Raises:
        InputError: other grids, or a field that is not what its name says.
    """
    if not names:
        return None, set()
    chosen = _chosen(names, source, pieces)
    grid = common_grid([*([] if beside is None else [beside]), *chosen])
    coords = {"static": list(names), "latitude": grid.latitude, "longitude": grid.longitude}
    stacked = np.stack([_constant_field(piece) for piece in chosen])
    paths = {piece.path for piece in chosen}
    return xr.DataArray(stacked, dims=("static", "latitude", "longitude"), coords=coords, name="static"), paths


def only_constant(names: Sequence[str], source: FilesSource, pieces: Sequence[Piece]) -> SourceData:
    """A source of constant fields alone, without a channel, for joining.

    Raises:
        InputError: as `constant_fields`.
    """
    static, paths = constant_fields(names, source, pieces, None)
    assert static is not None
    grid = Grid(static["latitude"].values, static["longitude"].values)
    axes = {"time": np.zeros(1, "datetime64[ns]"), "channel": np.zeros(0, str)}
    coords = {**axes, "latitude": grid.latitude, "longitude": grid.longitude}
    empty = xr.DataArray(np.zeros((1, 0, *grid.shape), np.float32), coords, STATE_DIMS)
    return SourceData(
        empty,
        static,
        {"files": len(paths)},
        simulated=False,
        cost=lambda times: ReadCost(),
        identity=identities_of(dict.fromkeys(paths, source.access)),
    )


def _chosen(names: Sequence[str], source: FilesSource, pieces: Sequence[Piece]) -> list[Piece]:
    preferred = set(find_files(source.static_paths, (), "source.static_paths")) if source.static_paths else set()
    candidates = [[piece for piece in pieces if piece.channel == name] for name in names]
    return [min(found, key=lambda piece: (piece.path not in preferred, piece.path)) for found in candidates]


def _constant_field(piece: Piece) -> np.ndarray:
    """[lat, lon] float32; a field that changes with time is not what its name says."""
    ends = np.unique(piece.slots.index[[0, -1]])
    values = piece.conversion.apply(piece.orientation.arrange(piece.reader.read(ends, [piece.level])[:, 0]))
    spread = float(np.nanmax(values) - np.nanmin(values)) if np.isfinite(values).any() else 0.0
    change = float(np.nanmax(np.abs(values[-1] - values[0]))) if spread else 0.0
    if change > 1e-3 * spread:
        raise InputError(
            f"{piece.path}: {piece.name} was taken for {piece.channel}, but it changes with time (by {change:g}); "
            f"if it lies on a pressure level, give it: source.levels: {{{piece.name}: 500}}"
        )
    lowest = float(np.nanmin(values[0])) if np.isfinite(values[0]).any() else 0.0
    if piece.channel == "orography" and piece.orientation.grid.periodic and lowest > _LOWEST:
        raise InputError(
            f"{piece.path}: {piece.name} was taken for orography, but its lowest point is {lowest:.0f} m2 s-2 "
            f"({lowest / GRAVITY:.0f} m): it is the geopotential of a pressure level; give it: source.levels: "
            f"{{{piece.name}: 500}}, and name the file of the orography"
        )
    return values[0]
