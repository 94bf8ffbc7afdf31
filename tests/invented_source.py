"""Invented fields behind the face of a source, and what tests of the data pipeline compare."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import xarray as xr

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.config import DataConfig
from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.earth.grid import Grid, regular_grid

CHANNELS = ("z500", "t850", "t2m")
_MEAN, _SPREAD = np.array([5.4e4, 280.0, 285.0]), np.array([2e3, 9.0, 12.0])
_ROWS = 24  # times in one piece of the source


def times_every(step_hours: int, days: float, first: str = "2000-01-01") -> np.ndarray:
    """[time] datetime64[ns]."""
    return np.datetime64(first, "ns") + np.arange(int(days * 24 / step_hours)) * np.timedelta64(step_hours, "h")


def fields(times: np.ndarray, grid: Grid, seed: int = 0) -> np.ndarray:
    """[time, channel, lat, lon] float32: a season, a daily round and noise that knows its own time."""
    out = np.empty((len(times), len(CHANNELS), *grid.shape), np.float32)
    for i, hour in enumerate(times.astype("datetime64[h]").astype(np.int64)):
        noise = np.random.default_rng([seed, hour]).standard_normal(out.shape[1:])
        wave = np.sin(2 * np.pi * hour / 8766) + 0.3 * np.sin(2 * np.pi * hour / 24) + 0.1 * noise
        out[i] = _MEAN[:, None, None] + _SPREAD[:, None, None] * wave
    return out


def invented_source(
    times: np.ndarray,
    grid: Grid | None = None,
    static: tuple[str, ...] = (),
    spoil: Callable[[int, np.ndarray], np.ndarray] | None = None,
    seed: int = 0,
) -> SourceData:
    """A lazy source in pieces of 24 times; `spoil(number of the piece, values)` may change or fail one."""
    grid = grid or regular_grid((4, 8))

    def piece(start: int) -> np.ndarray:
        values = fields(times[start : start + _ROWS], grid, seed)
        return values if spoil is None else spoil(start // _ROWS, values)

    blocks = [
        da.from_delayed(
            dask.delayed(piece, pure=False)(start),
            (min(_ROWS, len(times) - start), len(CHANNELS), *grid.shape),
            np.float32,
        )
        for start in range(0, len(times), _ROWS)
    ]
    coordinates = {"time": times, "channel": list(CHANNELS), "latitude": grid.latitude, "longitude": grid.longitude}
    state = xr.DataArray(da.concatenate(blocks), dims=tuple(coordinates), coords=coordinates)
    constant = None
    if static:
        values = np.arange(len(static) * np.prod(grid.shape), dtype=np.float32).reshape(len(static), *grid.shape)
        constant = xr.DataArray(values, dims=("static", "latitude", "longitude"), coords={"static": list(static)})
    return SourceData(state, constant, {"made": "for a test"}, simulated=True)


def data_config(store: Path, **settings) -> DataConfig:
    """Small shards by default: blocks of 2 channels."""
    defaults = {
        "store": str(store),
        "source": {"kind": "planet"},
        "channels": list(CHANNELS),
        "climatology_window": None,
        "channel_block": 2,
        "shard_mib": 1,
    }
    return parse_settings(DataConfig, defaults | settings, "test")


def tree(path: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def assert_same_tree(path: Path, other: Path) -> None:
    """Same files with same bytes; names those that differ."""
    a, b = tree(path), tree(other)
    assert a.keys() == b.keys()
    assert [key for key in a if a[key] != b[key]] == []
