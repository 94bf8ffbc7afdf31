"""Invented weather that moves: waves on a gradient from pole to pole, so that a turned field is told apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import xarray as xr
from invented_source import data_config, times_every

from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.earth.grid import Grid, regular_grid

CHANNELS = ("z500", "t850", "msl")
GRID = regular_grid((8, 16))
TIMES = times_every(6, 75)  # 2000-01-01 to 2000-03-15: a leap day is among them
_MEAN, _GRADIENT, _WAVE = np.array([5.5e4, 275, 1.01e5]), np.array([3e3, 20, 1.2e3]), np.array([8e2, 5.0, 6e2])


def weather(times: np.ndarray = TIMES, grid: Grid = GRID) -> np.ndarray:
    """[time, channel, lat, lon] float32: cold poles (the southern colder), a wave that goes round in five days."""
    lat, lon = np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)[None]
    gradient = np.cos(2 * lat) + 0.4 * np.sin(lat)  # the halves differ
    hours = times.astype("datetime64[h]").astype(np.int64)[:, None, None]
    season = np.cos(2 * np.pi * (hours / 24 - 200) / 365.25) * np.sin(lat)
    moving = np.cos(lat) * np.sin(2 * lon + 0.5 * np.sin(lon) - 2 * np.pi * hours / 120)
    wave = moving + 0.4 * np.sin(lon) + 0.3 * season
    noise = np.random.default_rng(0).standard_normal((len(times), len(CHANNELS), *grid.shape))
    shape = (slice(None), None, None)
    fields = _MEAN[shape] + _GRADIENT[shape] * gradient + _WAVE[shape] * (wave[:, None] + 0.05 * noise)
    return fields.astype(np.float32)


def weather_store(
    path: Path,
    spoil: Callable[[np.ndarray], None] | None = None,
    times: np.ndarray = TIMES,
    simulated: bool = False,
    **settings,
) -> Path:
    """A prepared store of this weather, after `spoil` has changed its fields in place."""
    values = weather(times)
    if spoil is not None:
        spoil(values)
    coordinates = {"time": times, "channel": list(CHANNELS), "latitude": GRID.latitude, "longitude": GRID.longitude}
    state = xr.DataArray(values, dims=tuple(coordinates), coords=coordinates).chunk({"time": 40})
    defaults = {"train": "2000-01-01/2000-02-20", "test": "2000-02-22/2000-03-15"}
    source = SourceData(state, None, {"made": "for a test"}, simulated=simulated)
    with patch("weatherfm.data_pipeline.prepare.probe"):  # it would refuse what verification is to find
        prepare(data_config(path, channels=list(CHANNELS), **(defaults | settings)), source)
    return path
