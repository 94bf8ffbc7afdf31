"""Data to and from a GPU: forecasts from states in memory to disk, and how long training waits for batches."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from table import Row, Settings, make_domain

from weatherfm.data_pipeline.loader import SampleLoader
from weatherfm.earth.domain import Domain
from weatherfm.earth.forcings import forcing_fields
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.on_disk import make_forecast
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.model import WeatherViT
from weatherfm.training.feeding.ready_batches import read_ahead
from weatherfm.training.stepping.loss import predict
from weatherfm.training.upkeep.speed import Speed

HOURS = np.timedelta64(6, "h")


class InventedStore:
    """Noise in memory with what training and forecasting ask of a store."""

    name, path, simulated, source, numbers, step_hours = "noise", Path("noise"), True, None, None, 6

    def __init__(self, domain: Domain, times: int) -> None:
        self.channels, self.grid = domain.channels, domain.grid
        self.times = np.datetime64("2000-01-01", "s") + np.arange(times) * HOURS
        rng = np.random.default_rng(0)
        self._fields = rng.standard_normal((64, len(self.channels), *self.grid.shape), np.float32)

    def index_of(self, times: np.ndarray) -> np.ndarray:
        return (np.asarray(times).astype("datetime64[s]") - self.times[0]) // HOURS

    def read(self, times, channels=None, out=None) -> np.ndarray:
        """Of positions as a store, or of times as states."""
        positions = np.asarray(times)
        if positions.dtype.kind == "M":
            return self._fields[self.index_of(positions) % 64][:, None]
        return np.take(self._fields, positions % 64, axis=0, out=out, mode="clip")


def make_model(settings: Settings) -> WeatherViT:
    """About 100 M weights at 5.625 degrees with 70 channels."""
    domain = make_domain(settings.size(70, 6), settings.size((32, 64), (8, 16)))
    sizes = settings.size({"width": 1024, "depth": 8, "heads": 16}, {"width": 32, "depth": 2, "heads": 4})
    return WeatherViT(ModelConfig(patch_size=2, drop_path=0.0, **sizes), domain).to(settings.device)


def forecasts(settings: Settings) -> Iterator[Row]:
    """Fields a second of forecasts from memory to disk, beside a loop of the model that reads and writes nothing."""
    model = make_model(settings).eval()
    device, count, leads = torch.device(settings.device), settings.size(256, 16), settings.size(20, 2)
    store = InventedStore(model.domain, count)
    config = ForecastConfig(
        lead_times=[f"{6 * (i + 1)}h" for i in range(leads)],
        mode="rollout",
        rollout_step="6h",
        batch_size=settings.size(64, 8),
        device=settings.device,
    )
    for _ in range(2):  # the first finds its kernels
        loop = _plain_loop(model, store, config, device)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        make_forecast(model, store, store.times, config, Path(folder) / "f.zarr", {})
        made = time.perf_counter() - start
    fields = count * leads
    value = f"{fields / made:.0f} fields/s to disk, {fields / loop:.0f} by the loop: {loop / made:.2f} of it"
    yield Row(f"{count} starts x {leads} steps of 6 h", value, "half of the loop's speed", loop / made > 0.5)


def _plain_loop(model, store, config, device) -> float:
    states = torch.from_numpy(store.read(store.times)[:, 0]).to(device)
    forcings = torch.from_numpy(forcing_fields(model.forcings, store.times, store.grid)).to(device)
    low = torch.bfloat16 if device.type == "cuda" else torch.float32
    start, lead = time.perf_counter(), torch.full((config.batch_size,), 6, device=device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=low == torch.bfloat16):
        for first in range(0, len(states), config.batch_size):
            part = slice(first, first + config.batch_size)
            state = states[part]
            for _ in config.lead_times:
                state = model(state[:, None], forcings[part], lead[: len(state)])
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def data_wait(settings: Settings) -> Iterator[Row]:
    """Share of a step that training waits for batches that are in memory: copying, forcings, the way to the device."""
    model, device = make_model(settings), torch.device(settings.device)
    low = torch.bfloat16 if device.type == "cuda" else torch.float32
    store, size, steps = InventedStore(model.domain, 2000), settings.size(64, 4), settings.size(40, 4)
    for workers in (0, 2):
        loader = SampleLoader(store, None, [0], [6, 24], size, 0, workers, None, device.type == "cuda")
        clock, stream = Speed(), read_ahead(loader.iterate(0, steps), model, device)
        for i in range(steps):
            with clock.step(size):
                with clock.waiting():
                    ready = next(stream)
                predict(model, ready, low).square().mean().backward()
                if device.type == "cuda":
                    torch.cuda.synchronize()  # a step is as long as its work, not as its launch
            if i == steps // 4:
                clock.take()  # the first steps find their kernels
        stream.close()
        report = clock.take()
        value = f"{report['data_wait_share']:.1%} of {report['samples_per_second']:.0f} samples/s"
        yield Row(f"batch {size}, {workers} workers", value, "below 5 %", report["data_wait_share"] < 0.05)
