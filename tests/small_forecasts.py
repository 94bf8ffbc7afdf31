"""Forecasts from a small store, for tests: their settings, their values on disk, and small blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from small_store import CHANNELS, SmallStore

from weatherfm.evaluation.config import ForecastConfig
from weatherfm.evaluation.forecasts import writer as forecast_store
from weatherfm.evaluation.forecasts.reader import ForecastFile

ROUNDING = 1e-5  # relative: normalising and back in single precision


def settings(*lead_times: str, **others) -> ForecastConfig:
    return ForecastConfig(lead_times=list(lead_times), **others)


def small_blocks(monkeypatch, store: SmallStore, count: int) -> None:
    monkeypatch.setattr(forecast_store, "_BLOCK_BYTES", count * store.state[0].nbytes)


def values(path: Path, lead_time: int) -> np.ndarray:
    file = ForecastFile(path)
    return file.read(np.arange(len(file.init_times)), lead_time, CHANNELS)
