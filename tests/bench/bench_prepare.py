"""Throughput and memory of `prepare` on ERA5-shaped input, beside the same work by plain xarray and dask.

python tests/bench/bench_prepare.py
python tests/bench/bench_prepare.py --times 96 --variables 5 --workers 1 2 --repeats 2

By default a short record of many channels and a long one of few, so that what grows with the record shows. Input:
0.25 degrees (721 x 1440), 6-hourly, one Zarr store in WeatherBench2's names with all levels of a variable and one
time in a chunk. Output: the store at `--resolution`, with statistics, changes over a day and climatology. The obvious
way opens the input with xarray, multiplies by the same two conservative matrices (dense, as xarray.dot wants them;
float64, which keeps constants and area means as ours does, or float32), writes with to_zarr, and takes mean, standard
deviation and climatology from what it wrote. Every method runs in a process of its own, which imports before the
clock starts; a cluster starts before it too. Memory is what that process and its children hold beyond an idle one;
processor seconds are of that process alone. Input lies in the page cache for all of them: a few times are written,
and the rest are hard links to their chunks.
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
from collections.abc import Iterable
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import psutil
import xarray as xr
from distributed import LocalCluster

import weatherfm.data_pipeline.sources.files  # noqa: F401 - imported before the clock starts
from weatherfm.config import parse_settings
from weatherfm.data_pipeline.fields.plausible import plausible_bounds
from weatherfm.data_pipeline.fields.regrid_weights import conservative_weights
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.earth.variables import parse_channel

LEVELS = (300, 500, 700, 850, 925)
UPPER = {"geopotential": "z", "temperature": "t", "u_component_of_wind": "u"}
SURFACE = {"2m_temperature": "t2m", "mean_sea_level_pressure": "msl"}
METHODS = ("obvious", "obvious, float32", "weatherfm", "weatherfm, processes")
ALL = {**UPPER, **SURFACE}
DISTINCT = 8
"""Times with fields of their own."""
UNITS = {"z": "m**2 s**-2", "t": "K", "u": "m s**-1", "t2m": "K", "msl": "Pa"}


def names_of(count: int) -> list[str]:
    """The last `count` variables: those of the surface come first, for they are one channel each."""
    return list(ALL)[-count:]


def channels_of(count: int) -> list[str]:
    """Their channels."""
    return [channel for name in names_of(count) for channel in channels_in(name)]


def channels_in(name: str) -> list[str]:
    """Those of one variable."""
    return [f"{ALL[name]}{level}" for level in LEVELS] if name in UPPER else [ALL[name]]


def write_input(path: Path, n_times: int, n_variables: int) -> int:
    """Smooth fields with some noise in their last digits, as reanalyses have; returns bytes before compression."""
    latitude, longitude = np.linspace(90, -90, 721), np.arange(1440) * 0.25
    times = np.datetime64("2020-01-01", "ns") + np.arange(n_times) * np.timedelta64(6, "h")
    waves = np.cos(np.deg2rad(latitude))[:, None] * np.sin(np.deg2rad(longitude) * 3)  # [lat, lon]
    noise = np.random.default_rng(0).standard_normal((721, 1440))

    def block(name: str, time: int) -> np.ndarray:
        field = np.roll(waves, 11 * time, axis=1) + 0.02 * np.roll(noise, 7 * time, axis=1)
        bounds = [plausible_bounds(parse_channel(channel)) for channel in channels_in(name)]
        stack = np.stack([(low + high) / 2 + (high - low) / 5 * field for low, high in bounds])
        return (stack if name in UPPER else stack[0])[None].astype(np.float32)

    variables, first, n_bytes = {}, {}, 0
    for name in names_of(n_variables):
        shape = (1, *((len(LEVELS),) if name in UPPER else ()), 721, 1440)
        dims = ("time", *(("level",) if name in UPPER else ()), "latitude", "longitude")
        empty = da.zeros((n_times, *shape[1:]), chunks=shape, dtype=np.float32)
        variables[name] = (dims, empty, {"units": UNITS[ALL[name]]})
        first[name] = (dims, np.concatenate([block(name, t) for t in range(min(DISTINCT, n_times))]))
        n_bytes += n_times * int(np.prod(shape)) * 4
    coords = {"time": times, "level": list(LEVELS), "latitude": latitude, "longitude": longitude}
    xr.Dataset(variables, coords).to_zarr(path, zarr_format=2, consolidated=True, compute=False)
    xr.Dataset(first).to_zarr(path, region={"time": slice(0, min(DISTINCT, n_times))})
    repeat_chunks(path, first, n_times)
    return n_bytes


def repeat_chunks(path: Path, variables: Iterable[str], n_times: int) -> None:
    """Further times as hard links to the chunks of the first ones."""
    for name in variables:
        rest = ".0.0.0" if name in UPPER else ".0.0"
        for time_chunk in range(DISTINCT, n_times):
            os.link(path / name / f"{time_chunk % DISTINCT}{rest}", path / name / f"{time_chunk}{rest}")


def config_of(options: argparse.Namespace, store: Path) -> DataConfig:
    settings = {
        "store": str(store),
        "source": {"kind": "files", "paths": [options.input]},
        "channels": channels_of(options.variables),
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
        for name in names_of(options.variables):
            coarse = xr.dot(xr.dot(source[name], rows_in, dim="latitude"), columns_in, dim="longitude")
            coarse = coarse.astype(np.float32).rename(row="latitude", column="longitude")
            coarse = coarse.rename(level="channel") if name in UPPER else coarse.expand_dims("channel", 1)
            fields.append(
                coarse.assign_coords(channel=channels_in(name)).transpose("time", "channel", "latitude", "longitude")
            )
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
    parser.add_argument("--times", type=int, nargs="+", default=[60, 6000])
    parser.add_argument("--variables", type=int, nargs="+", default=[5, 1], help="one number for each of --times")
    parser.add_argument("--resolution", type=float, default=5.625)
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--methods", nargs="+", default=["obvious", "weatherfm"], choices=METHODS)
    parser.add_argument("--folder", help="where input and stores go; by default a temporary one")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    parser.add_argument("--input", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.method:
        options.workers, options.variables = options.workers[0], options.variables[0]
        run = run_ours if options.method.startswith("weatherfm") else run_obvious
        begin = time.process_time()
        seconds = 0.0 if options.method == "idle" else run(options, Path(options.folder) / "store.zarr")
        print(seconds, time.process_time() - begin)
        return
    for n_times, n_variables in zip(options.times, options.variables, strict=True):
        with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
            compare(options, Path(temporary), n_times, n_variables)


def compare(options: argparse.Namespace, folder: Path, n_times: int, n_variables: int) -> None:
    """Print the table of one record."""
    options.input, options.now = str(folder / "era5.zarr"), n_variables
    n_bytes = write_input(Path(options.input), n_times, n_variables)
    n_fields = n_times * len(channels_of(n_variables))
    idle = measure(options, folder, "idle", 1)[2]
    print(
        f"{n_times} times, {n_fields} fields of 721 x 1440, {n_bytes / 1e9:.2f} GB as float32 -> "
        f"{options.resolution:g} degrees"
    )
    print("method                 workers |  seconds  GB/s in  fields/s |  memory MB |    cpu s | times faster (cpu)")
    obvious = {}
    for workers in options.workers:
        for method in options.methods:  # repeats of all methods in turn, so that a slow minute hits each
            found = [measure(options, folder, method, workers) for _ in range(options.repeats)]
            seconds, cpu, memory = min(f[0] for f in found), min(f[1] for f in found), max(f[2] for f in found)
            first = obvious.setdefault(workers, (seconds, cpu))
            print(
                f"{method:22} {workers:7} | {seconds:8.1f} {n_bytes / 1e9 / seconds:8.2f} {n_fields / seconds:9.0f} | "
                f"{(memory - idle) / 1e6:10.0f} | {cpu:8.1f} | {first[0] / seconds:.2f} ({first[1] / cpu:.2f})",
                flush=True,
            )


def measure(options: argparse.Namespace, folder: Path, method: str, workers: int) -> tuple[float, float, float]:
    """(seconds without imports, processor seconds, most bytes held at any time) of a method in a process of its own."""
    place = folder / "work"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    command = [sys.executable, __file__, "--method", method, "--workers", str(workers), "--folder", str(place)]
    command += ["--resolution", str(options.resolution), "--input", options.input, "--variables", str(options.now)]
    one_thread = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    environment = {**os.environ, **one_thread, "TQDM_DISABLE": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    peak = [0.0]
    watcher = threading.Thread(target=watch, args=(process.pid, peak), daemon=True)
    watcher.start()
    said, _ = process.communicate()
    watcher.join()
    assert process.returncode == 0, f"{method} failed"
    seconds, cpu = said.split()[-2:]
    return float(seconds), float(cpu), peak[0]


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
