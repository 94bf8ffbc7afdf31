"""A tiny store on disk and a run that trains on it in seconds, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.config import DataConfig
from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.earth.grid import regular_grid
from weatherfm.training.config import RunConfig

CHANNELS = ["z500", "t850", "u10"]


def data_settings(folder: Path) -> dict:
    return {
        "store": str(folder / "store.zarr"),
        "source": {"kind": "planet"},
        "channels": CHANNELS,
        "train": "2000-01-01/2000-01-20",
        "validation": "2000-01-21/2000-01-25",
        "climatology_window": None,
    }


def waves(days: int = 25, step_hours: int = 6, hole: int | None = None) -> SourceData:
    """Waves that travel east: the same everywhere but for their place, and so easy to learn."""
    grid = regular_grid((4, 8))
    times = np.datetime64("2000-01-01", "ns") + np.arange(days * 24 // step_hours) * np.timedelta64(step_hours, "h")
    hours = np.arange(len(times)) * step_hours
    phase = np.deg2rad(grid.longitude)[None, :] - 2 * np.pi * hours[:, None] / 96  # [time, longitude]
    mean, size = np.array([54000, 280, 5.0]), np.array([1000, 8, 6.0])
    shape = np.cos(np.deg2rad(grid.latitude))[:, None]  # [latitude, 1]
    wave = np.stack([np.sin((c + 1) * phase) for c in range(3)], axis=1)[:, :, None, :]  # [time, channel, 1, longitude]
    state = (mean[:, None, None] + size[:, None, None] * shape * wave).astype(np.float32)
    if hole is not None:
        state = np.delete(state, hole, axis=0)
        times = np.delete(times, hole)
    coordinates = {
        "time": times,
        "channel": CHANNELS,
        "latitude": grid.latitude,
        "longitude": grid.longitude,
    }
    array = xr.DataArray(state, dims=tuple(coordinates), coords=coordinates)
    return SourceData(array.chunk({"time": 20}), None, {"kind": "waves"}, simulated=True)


def make_store(folder: Path) -> None:
    prepare(parse_settings(DataConfig, data_settings(folder), "toy run"), waves())


def run_settings(folder: Path, run: str = "run", **training) -> dict:
    """Plain settings of a run in `folder / run` on the store that `make_store(folder)` wrote."""
    defaults = {
        "steps": 24,
        "batch_size": 4,
        "lead_times": ["6h", "12h"],
        "learning_rate": 3e-3,
        "warmup_steps": 4,
        "ema_decay": 0.9,
        "validate_every": 8,
        "validation_samples": 4,
        "checkpoint_every": 5,
        "log_every": 3,
        "device": "cpu",
    }
    return {
        "run": str(folder / run),
        "data": data_settings(folder),
        "model": {"patch_size": 2, "width": 16, "depth": 2, "heads": 2, "dropout": 0.1},
        "training": defaults | training,
    }


def make_run(folder: Path, run: str = "run", **training) -> RunConfig:
    return parse_settings(RunConfig, run_settings(folder, run, **training), "toy run")
