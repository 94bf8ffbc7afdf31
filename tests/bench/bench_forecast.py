"""Throughput of forecasts from a store to disk against a plain loop of the model, with one process and with two.

    python tests/bench/bench_forecast.py --width 128 --depth 4 --channels 20 --inits 96

The plain loop calls the model on states that are in memory and normalised, and writes nothing: what no forecast can
beat. A forecast reads its states from a store of this machine's disk, makes forcings, checks every value and writes
compressed Zarr. Every process computes with one thread; the time to start it is left out. Fields a second of processor
time, over all threads and processes, tell what a forecast costs where other work keeps the cores busy.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

from spawn_ranks import spawn

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store.states import StoreStates
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.earth.forcings import forcing_fields
from weatherfm.earth.grid import regular_grid
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.on_disk import choose_init_times, make_forecast
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.loading import load_weights
from weatherfm.model.model import WeatherViT
from weatherfm.model.weights import save_weights
from weatherfm.training.forecast_on_ranks import forecast_together
from weatherfm.training.run_config import ParallelConfig

LEVELS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)


def channels(count: int) -> list[str]:
    return [f"{name}{level}" for name in "ztuvq" for level in LEVELS][:count]


def make_store(folder: Path, names: list[str], times: int, shape: tuple[int, int]) -> None:
    grid, rng = regular_grid(shape), np.random.default_rng(0)
    hours = np.datetime64("2000-01-01", "ns") + np.arange(times) * np.timedelta64(6, "h")
    state = rng.normal(250, 20, (times, len(names), *grid.shape)).astype(np.float32)
    coordinates = {"time": hours, "channel": names, "latitude": grid.latitude, "longitude": grid.longitude}
    array = xr.DataArray(state, dims=tuple(coordinates), coords=coordinates).chunk({"time": 20})
    settings = {
        "store": str(folder / "store.zarr"),
        "source": {"kind": "planet"},
        "channels": names,
        "climatology_window": None,
    }
    prepare(parse_settings(DataConfig, settings, "bench"), SourceData(array, None, {"kind": "noise"}, simulated=True))


def settings(arguments: argparse.Namespace) -> ForecastConfig:
    leads = [f"{6 * (i + 1)}h" for i in range(arguments.leads)]
    mode = {"mode": "rollout", "rollout_step": "6h"}
    return ForecastConfig(
        lead_times=leads,
        init="2000",
        init_every="6h",
        batch_size=arguments.batch,
        device="cpu",
        precision="float32",
        **mode,
    )


Speed = tuple[float, float]
"""Fields a second, and fields a second of processor time."""


def plain_loop(folder: Path, arguments: argparse.Namespace) -> Speed:
    torch.set_num_threads(1)
    store, config = open_store(folder / "store.zarr"), settings(arguments)
    model = load_weights(folder / "w.safetensors")
    inits = choose_init_times(store, config, [0])
    states = model.normalize(torch.from_numpy(StoreStates(store).read(inits, store.channels)[:, 0]))
    forcings = torch.from_numpy(forcing_fields(model.forcings, inits, store.grid))
    lead = torch.full((config.batch_size,), 6)
    start, busy = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        for first in range(0, len(inits), config.batch_size):
            part = slice(first, first + config.batch_size)
            state = states[part]
            for _ in config.lead_times:
                state = model(state[:, None], forcings[part], lead[: len(state)])
    count = len(inits) * len(config.lead_times)
    return count / (time.perf_counter() - start), count / (time.process_time() - busy)


def one_process(folder: Path, arguments: argparse.Namespace) -> Speed:
    torch.set_num_threads(1)
    store, config = open_store(folder / "store.zarr"), settings(arguments)
    model = load_weights(folder / "w.safetensors")
    inits = choose_init_times(store, config, [0])
    start, busy = time.perf_counter(), time.process_time()
    make_forecast(model, store, inits, config, folder / "one.zarr", {})
    spent, busy = time.perf_counter() - start, time.process_time() - busy
    shutil.rmtree(folder / "one.zarr")
    count = len(inits) * len(config.lead_times)
    return count / spent, count / busy


def _rank(rank: int, folder: Path, arguments: argparse.Namespace) -> tuple[float, float]:
    config = settings(arguments)
    dist.barrier()
    start, busy = time.perf_counter(), time.process_time()
    forecast_together(folder / "w.safetensors", folder / "store.zarr", config, ParallelConfig(), folder / "two.zarr")
    return time.perf_counter() - start, time.process_time() - busy


def two_processes(folder: Path, arguments: argparse.Namespace) -> Speed:
    """Weights and store are opened among it."""
    inits = len(choose_init_times(open_store(folder / "store.zarr"), settings(arguments), [0]))
    spent = spawn(2, _rank, folder, arguments)
    shutil.rmtree(folder / "two.zarr")
    count = inits * arguments.leads
    return count / max(wall for wall, _ in spent), count / sum(busy for _, busy in spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"width": 128, "depth": 4, "channels": 20, "inits": 96, "leads": 4, "batch": 16}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_store(folder, channels(arguments.channels), arguments.inits, (32, 64))
        config = ModelConfig(width=arguments.width, depth=arguments.depth, heads=8, patch_size=2)
        model = WeatherViT(config, open_store(folder / "store.zarr").domain())
        save_weights(folder / "w.safetensors", model, {})
        count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        print(f"{count:.1f} M parameters, {arguments.channels} channels on 32 x 64, {arguments.inits} initial times")
        rows: dict[str, list[Speed]] = {"plain loop": [], "forecast, 1 process": [], "forecast, 2 processes": []}
        for _ in range(arguments.rounds):  # in turns: what else this machine does reaches all alike
            for name, measure in zip(rows, (plain_loop, one_process, two_processes), strict=True):
                rows[name].append(measure(folder, arguments))
        best = {name: [max(speeds) for speeds in zip(*measured, strict=True)] for name, measured in rows.items()}
        for name, (wall, busy) in best.items():
            loop, busy_loop = best["plain loop"]
            print(
                f"{name:<24} {wall:8.1f} fields/s ({wall / loop:4.2f} of the plain loop)"
                f" {busy:8.1f} fields/processor second ({busy / busy_loop:4.2f})"
            )


if __name__ == "__main__":
    main()
