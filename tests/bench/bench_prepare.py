"""Throughput and memory of `prepare` on ERA5-shaped input, beside the same work by plain xarray and dask.

python tests/bench/bench_prepare.py --repeats 2

Input: 0.25 degrees (721 x 1440), 6-hourly, one Zarr store in WeatherBench2's names with all levels of a variable and
one time in a chunk. Output: the store at `--resolution`, with statistics, changes over a day and climatology. The
obvious way opens the input with xarray, multiplies by the same two conservative matrices (dense, as xarray.dot wants
them; float64, which keeps constants and area means as ours does, or float32), writes with to_zarr, and takes mean,
standard deviation and climatology from what it wrote. Every method runs in a process of its own, which imports before
the clock starts; a cluster starts before it too. Memory is what that process and its children hold beyond an idle one.
Input lies in the page cache for all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import psutil
import xarray as xr
from distributed import LocalCluster

import weatherfm.data_pipeline.sources.files  # noqa: F401 - imported before the clock starts
from weatherfm.config import parse_settings
from weatherfm.data_pipeline.config import DataConfig
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.regrid_weights import conservative_weights
from weatherfm.grid import Grid, regular_grid

LEVELS = (300, 500, 700, 850, 925)
UPPER = {"geopotential": ("z", 5e4, 2e3), "temperature": ("t", 270, 15), "u_component_of_wind": ("u", 5, 12)}
SURFACE = {"2m_temperature": ("t2m", 285, 15), "mean_sea_level_pressure": ("msl", 1.01e5, 1e3)}
METHODS = ("obvious", "obvious, float32", "weatherfm", "weatherfm, processes")
UNITS = {"z": "m**2 s**-2", "t": "K", "u": "m s**-1", "t2m": "K", "msl": "Pa"}
CHANNELS = [*(f"{short}{level}" for short, *_ in UPPER.values() for level in LEVELS), "t2m", "msl"]


def write_input(path: Path, n_times: int) -> int:
    """Smooth fields with some noise in their last digits, as reanalyses have; returns bytes before compression."""
    latitude, longitude = np.linspace(90, -90, 721), np.arange(1440) * 0.25
    times = np.datetime64("2020-01-01", "ns") + np.arange(n_times) * np.timedelta64(6, "h")
    waves = np.cos(np.deg2rad(latitude))[:, None] * np.sin(np.deg2rad(longitude) * 3)  # [lat, lon]
    noise = np.random.default_rng(0).standard_normal((721, 1440))

    def block(mean: float, spread: float, levels: int, time: int) -> np.ndarray:
        field = mean + spread * (np.roll(waves, 11 * time, axis=1) + 0.02 * np.roll(noise, 7 * time, axis=1))
        stack = np.stack([field * (1 + 0.05 * level) for level in range(levels)]) if levels else field
        return stack[None].astype(np.float32)

    variables, n_bytes = {}, 0
    for name, (short, mean, spread) in {**UPPER, **SURFACE}.items():
        levels = len(LEVELS) if name in UPPER else 0
        shape = (1, *((levels,) if levels else ()), 721, 1440)
        blocks = [
            da.from_delayed(dask.delayed(block)(mean, spread, levels, t), shape, np.float32) for t in range(n_times)
        ]
        dims = ("time", *(("level",) if levels else ()), "latitude", "longitude")
        variables[name] = (dims, da.concatenate(blocks), {"units": UNITS[short]})
        n_bytes += n_times * int(np.prod(shape)) * 4
    coords = {"time": times, "level": list(LEVELS), "latitude": latitude, "longitude": longitude}
    xr.Dataset(variables, coords).to_zarr(path, zarr_format=2, consolidated=True)
    return n_bytes


def config_of(options: argparse.Namespace, store: Path) -> DataConfig:
    settings = {
        "store": str(store),
        "source": {"kind": "files", "paths": [options.input]},
        "channels": CHANNELS,
        "regrid": {"resolution": options.resolution},
        "climatology_window": None,
        "shard_mib": 4,  # a bench is short: some shards for every writer
    }
    return parse_settings(DataConfig, settings, "bench")


def run_ours(options: argparse.Namespace, store: Path) -> float:
    with contextlib.ExitStack() as stack:
        settings: dict = {"workers": options.workers}
        if options.method == "weatherfm, processes":
            cluster = LocalCluster(options.workers, threads_per_worker=1, processes=True, dashboard_address=None)
            settings = {"scheduler": stack.enter_context(cluster).scheduler_address}
        start = time.perf_counter()
        prepare(config_of(options, store), **settings)
        return time.perf_counter() - start


def run_obvious(options: argparse.Namespace, store: Path) -> float:
    """Open, multiply, write, then read what was written for statistics and climatology."""
    start = time.perf_counter()
    rows = round(180 / options.resolution)
    target = regular_grid((rows, 2 * rows))
    with dask.config.set(scheduler="threads", num_workers=options.workers):
        source = xr.open_zarr(options.input)
        grid = Grid(source.latitude.values, source.longitude.values)
        kind = np.float32 if "float32" in options.method else np.float64
        latitude, longitude = (np.asarray(w.todense(), kind) for w in conservative_weights(grid, target))
        rows_in = xr.DataArray(latitude, dims=("row", "latitude"))
        columns_in = xr.DataArray(longitude, dims=("column", "longitude"))
        fields = []
        for name, (short, *_) in {**UPPER, **SURFACE}.items():
            coarse = xr.dot(xr.dot(source[name], rows_in, dim="latitude"), columns_in, dim="longitude")
            coarse = coarse.astype(np.float32).rename(row="latitude", column="longitude")
            names = [f"{short}{level}" for level in LEVELS] if name in UPPER else [short]
            coarse = coarse.rename(level="channel") if name in UPPER else coarse.expand_dims("channel", 1)
            fields.append(coarse.assign_coords(channel=names).transpose("time", "channel", "latitude", "longitude"))
        state = xr.concat(fields, "channel", coords="minimal", compat="override")
        state = state.assign_coords(latitude=target.latitude, longitude=target.longitude)
        state.chunk(time=1, channel=-1).to_dataset(name="state").drop_encoding().to_zarr(store, zarr_format=3)
        written = xr.open_zarr(store)["state"]
        dims = ("time", "latitude", "longitude")
        changes = written.shift(time=-4) - written
        climatology = written.groupby("time.hour").mean("time")
        results = [written.mean(dims), written.std(dims), written.min(dims), written.max(dims), changes.std(dims)]
        dask.compute(*results, climatology)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=96)
    parser.add_argument("--resolution", type=float, default=5.625)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", help="where input and stores go; by default a temporary one")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    parser.add_argument("--input", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.method:
        options.workers = options.workers[0]
        run = run_ours if options.method.startswith("weatherfm") else run_obvious
        print(0.0 if options.method == "idle" else run(options, Path(options.folder) / "store.zarr"))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        compare(options, Path(temporary))


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Print the table."""
    options.input = str(folder / "era5.zarr")
    n_bytes = write_input(Path(options.input), options.times)
    n_fields = options.times * len(CHANNELS)
    idle = measure(options, folder, "idle", 1)[1]
    print(f"{n_fields} fields of 721 x 1440, {n_bytes / 1e9:.2f} GB as float32 -> {options.resolution:g} degrees")
    print("method                 workers |  seconds  GB/s in  fields/s |  memory MB | times faster than obvious")
    obvious = {}
    for workers in options.workers:
        for method in METHODS:  # repeats of all methods in turn, so that a slow minute hits each
            found = [measure(options, folder, method, workers) for _ in range(options.repeats)]
            seconds, memory = min(s for s, _ in found), max(m for _, m in found)
            obvious.setdefault(workers, seconds)
            print(
                f"{method:22} {workers:7} | {seconds:8.1f} {n_bytes / 1e9 / seconds:8.2f} {n_fields / seconds:9.0f} | "
                f"{(memory - idle) / 1e6:10.0f} | {obvious[workers] / seconds:.2f}",
                flush=True,
            )


def measure(options: argparse.Namespace, folder: Path, method: str, workers: int) -> tuple[float, float]:
    """(seconds without imports, most bytes held at any time) of a method in a process of its own."""
    place = folder / "work"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    command = [sys.executable, __file__, "--method", method, "--workers", str(workers), "--folder", str(place)]
    command += ["--resolution", str(options.resolution), "--input", options.input]
    one_thread = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    environment = {**os.environ, **one_thread, "TQDM_DISABLE": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    peak = [0.0]
    watcher = threading.Thread(target=watch, args=(process.pid, peak), daemon=True)
    watcher.start()
    said, _ = process.communicate()
    watcher.join()
    assert process.returncode == 0, f"{method} failed"
    return float(said.split()[-1]), peak[0]


def watch(pid: int, peak: list[float]) -> None:
    """Note the most that a process and its children hold together."""
    while True:
        try:
            process = psutil.Process(pid)
            held = sum(p.memory_full_info().uss for p in (process, *process.children(recursive=True)))
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            return
        peak[0] = max(peak[0], held)
        time.sleep(0.05)


if __name__ == "__main__":
    main()
