"""`prepare` on threads beside a cluster of as many processes, in one run.

python tests/bench/bench_cluster.py

The record is hourly fields of 32 x 64 points in one small Zarr chunk a time and variable, where finding, opening and
unpacking chunks in Python takes longer than all arithmetic: if processes win on one machine, it should be here. On
large fields, whose work is numpy's and the compressor's, threads are as fast. A few times are written, the rest are
hard links to their chunks. Both start with everything imported and every process at hand.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import dask.array as da
import numpy as np
import psutil
import xarray as xr
from distributed import Client, LocalCluster

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.config import DataConfig
from weatherfm.data_pipeline.plausible import plausible_bounds
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.grid import regular_grid
from weatherfm.variables import parse_channel

LEVELS = (50, 250, 500, 600, 700, 850, 925)
NAMES = {"geopotential": ("z", "m**2 s**-2"), "temperature": ("t", "K"), "u_component_of_wind": ("u", "m s**-1"),
         "v_component_of_wind": ("v", "m s**-1"), "specific_humidity": ("q", "kg kg**-1")}  # fmt: skip
DISTINCT = 64
"""Times with fields of their own; a file may have so many links that 60,000 times need more than one."""
GRID = regular_grid((32, 64))


def write_input(path: Path, n_times: int) -> None:
    """A store in WeatherBench2's form, one time in a chunk."""
    shape, dims = (n_times, len(LEVELS), *GRID.shape), ("time", "level", "latitude", "longitude")
    empty = da.zeros(shape, chunks=(1, *shape[1:]), dtype=np.float32)
    times = np.datetime64("2000-01-01", "ns") + np.arange(n_times) * np.timedelta64(1, "h")
    axes = {"time": times, "level": list(LEVELS), "latitude": GRID.latitude, "longitude": GRID.longitude}
    lazy = {name: (dims, empty, {"units": units}) for name, (_, units) in NAMES.items()}
    xr.Dataset(lazy, axes).to_zarr(path, zarr_format=2, consolidated=True, compute=False)
    noise = np.random.default_rng(0).standard_normal((DISTINCT, *shape[1:]), np.float32)
    first = {name: (dims, plausible(short, noise)) for name, (short, _) in NAMES.items()}
    xr.Dataset(first).to_zarr(path, region={"time": slice(0, DISTINCT)})
    for name in NAMES:
        for time_chunk in range(DISTINCT, n_times):
            os.link(path / name / f"{time_chunk % DISTINCT}.0.0.0", path / name / f"{time_chunk}.0.0.0")


def plausible(short: str, noise: np.ndarray) -> np.ndarray:
    """`noise` [time, level, lat, lon] as values that the levels of a variable can have."""
    low, high = np.array([plausible_bounds(parse_channel(f"{short}{level}")) for level in LEVELS], np.float32).T
    wide = (high - low)[:, None, None] / 20
    return ((low + high)[:, None, None] / 2 + wide * np.clip(noise, -5, 5)).astype(np.float32)


def cost(process: psutil.Process) -> float:
    """Processor seconds of a process and of its children so far."""
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))


def seconds_of(source: Path, store: Path, **how) -> tuple[float, float]:
    """(seconds, processor seconds of this process and its children) of one `prepare`."""
    settings = {
        "store": str(store),
        "source": {"kind": "files", "paths": [str(source)]},
        "channels": [f"{short}{level}" for short, _ in NAMES.values() for level in LEVELS],
        "climatology_window": None,
        "shard_mib": 16,
    }
    here = psutil.Process()
    start, before = time.perf_counter(), cost(here)
    prepare(parse_settings(DataConfig, settings, "bench"), **how)
    return time.perf_counter() - start, cost(here) - before


def warm() -> None:
    """Import what reading takes."""
    import weatherfm.data_pipeline.sources.files
    import weatherfm.data_pipeline.writing  # noqa: F401


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=40_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", help="where input and stores go; by default a temporary one")
    options = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    how = {"n_workers": options.workers, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary, LocalCluster(**how) as cluster:
        folder = Path(temporary)
        write_input(folder / "input.zarr", options.times)
        with Client(cluster) as client:
            client.run(warm)
        warm()
        threads = seconds_of(folder / "input.zarr", folder / "threads.zarr", workers=options.workers)
        address = cluster.scheduler_address
        processes = seconds_of(folder / "input.zarr", folder / "processes.zarr", scheduler=address)
        chunks = options.times * len(NAMES)
        print(f"{options.times} times, {chunks} chunks, {options.workers} workers")
        for name, (seconds, cpu) in (("threads", threads), ("cluster of processes", processes)):
            told = f"{seconds:7.1f} s {chunks / seconds:8.0f} chunks/s {cpu:7.1f} CPU s, {cpu / seconds:.2f} cores busy"
            print(f"{name:22} {told}, {threads[0] / seconds:.2f} times as fast")


if __name__ == "__main__":
    main()
