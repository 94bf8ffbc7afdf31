"""`prepare` on threads beside a cluster of as many processes, in one run.

python tests/bench/bench_cluster.py [netcdf|zarr]

`netcdf`: hourly fields of 0.25 degrees in files of ten days as the CDS hands them out, deflated, put on 5.625 degrees.
The HDF5 library unpacks under one lock a process, so that threads share one core and processes do not: a cluster wins.

`zarr`: hourly fields of 32 x 64 points in one small chunk a time and variable, each found, opened and unpacked in
Python. No lock stands in the way, and what a cluster adds (a scheduler, results that travel) is felt: threads win.

A few times are written, the rest are copies or links of them. Both start with everything imported and every process at
hand.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import netCDF4
import numpy as np
import psutil
import xarray as xr
from distributed import Client, LocalCluster

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.fields.plausible import plausible_bounds
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.earth.grid import regular_grid
from weatherfm.earth.variables import parse_channel

LEVELS = (50, 250, 500, 600, 700, 850, 925)
NAMES = {"geopotential": ("z", "m**2 s**-2"), "temperature": ("t", "K"), "u_component_of_wind": ("u", "m s**-1"),
         "v_component_of_wind": ("v", "m s**-1"), "specific_humidity": ("q", "kg kg**-1")}  # fmt: skip
DISTINCT = 64
"""Times with fields of their own; a file may have so many links that 60,000 times need more than one."""
GRID = regular_grid((32, 64))
FILE_HOURS = 240
START = np.datetime64("2000-01-01", "h")


def write_zarr(folder: Path, n_times: int) -> dict[str, Any]:
    """A store in WeatherBench2's form, one time in a chunk; returns what `prepare` is to do with it."""
    path = folder / "input.zarr"
    shape, dims = (n_times, len(LEVELS), *GRID.shape), ("time", "level", "latitude", "longitude")
    empty = da.zeros(shape, chunks=(1, *shape[1:]), dtype=np.float32)
    times = START.astype("datetime64[ns]") + np.arange(n_times) * np.timedelta64(1, "h")
    axes = {"time": times, "level": list(LEVELS), "latitude": GRID.latitude, "longitude": GRID.longitude}
    lazy = {name: (dims, empty, {"units": units}) for name, (_, units) in NAMES.items()}
    xr.Dataset(lazy, axes).to_zarr(path, zarr_format=2, consolidated=True, compute=False)
    noise = np.random.default_rng(0).standard_normal((DISTINCT, *shape[1:]), np.float32)
    first = {name: (dims, plausible(short, noise)) for name, (short, _) in NAMES.items()}
    xr.Dataset(first).to_zarr(path, region={"time": slice(0, DISTINCT)})
    for name in NAMES:
        for time_chunk in range(DISTINCT, n_times):
            os.link(path / name / f"{time_chunk % DISTINCT}.0.0.0", path / name / f"{time_chunk}.0.0.0")
    channels = [f"{short}{level}" for short, _ in NAMES.values() for level in LEVELS]
    return {"source": {"kind": "files", "paths": [str(path)]}, "channels": channels, "shard_mib": 16}


def plausible(short: str, noise: np.ndarray) -> np.ndarray:
    """`noise` [time, level, lat, lon] as values that the levels of a variable can have."""
    low, high = np.array([plausible_bounds(parse_channel(f"{short}{level}")) for level in LEVELS], np.float32).T
    wide = (high - low)[:, None, None] / 20
    return ((low + high)[:, None, None] / 2 + wide * np.clip(noise, -5, 5)).astype(np.float32)


def write_netcdf(folder: Path, n_times: int) -> dict[str, Any]:
    """Files of ten days, deflated at the first level after the shuffle; returns what `prepare` is to do with them."""
    latitude, longitude = np.linspace(90, -90, 721), np.arange(0, 360, 0.25)
    n_files = max(2, round(n_times / FILE_HOURS))
    first = folder / "t2m_000.nc"
    with netCDF4.Dataset(first, "w") as file:
        for name, values, units in (
            ("time", np.arange(FILE_HOURS), f"hours since {START}:00"),
            ("latitude", latitude, "degrees_north"),
            ("longitude", longitude, "degrees_east"),
        ):
            file.createDimension(name, len(values))
            file.createVariable(name, "f8", (name,)).units = units
            file[name][:] = values
        field = file.createVariable(
            "t2m", "f4", ("time", "latitude", "longitude"), zlib=True, complevel=1, chunksizes=(1, 721, 1440)
        )
        field.units, noise = "K", np.random.default_rng(0)
        mean = 288 - 40 * np.sin(np.deg2rad(latitude))[:, None] ** 2
        for hour in range(FILE_HOURS):  # in steps of 1/64 K, so that it packs about as measured fields do
            wave = 8 * np.sin(np.deg2rad(3 * longitude - 5 * hour)) + noise.standard_normal((721, 1440)) / 4
            field[hour] = np.round((mean + wave) * 64) / 64
    for number in range(1, n_files):
        path = shutil.copy(first, folder / f"t2m_{number:03}.nc")
        with netCDF4.Dataset(path, "a") as file:
            file["time"][:] = np.arange(FILE_HOURS) + number * FILE_HOURS
    regrid = {"resolution": 5.625}
    return {"source": {"kind": "files", "paths": [f"{folder}/t2m_*.nc"]}, "channels": ["t2m"], "regrid": regrid}


INPUTS: dict[str, tuple[Callable[[Path, int], dict[str, Any]], int]] = {
    "netcdf": (write_netcdf, 9600),
    "zarr": (write_zarr, 40_000),
}
"""What writes it, and its times where none are asked for."""


def cost(process: psutil.Process) -> float:
    """Processor seconds of a process and of its children so far."""
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))


def seconds_of(settings: dict[str, Any], store: Path, **how) -> tuple[float, float]:
    """(seconds, processor seconds of this process and its children) of one `prepare`."""
    settings = {"store": str(store), "climatology_window": None, **settings}
    here = psutil.Process()
    start, before = time.perf_counter(), cost(here)
    prepare(parse_settings(DataConfig, settings, "bench"), **how)
    return time.perf_counter() - start, cost(here) - before


def warm() -> None:
    """Import what reading takes."""
    import netCDF4  # noqa: F401

    import weatherfm.data_pipeline.fields.regrid
    import weatherfm.data_pipeline.sources.files
    import weatherfm.data_pipeline.writing.writer  # noqa: F401


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", nargs="?", choices=list(INPUTS), default="netcdf")
    parser.add_argument("--times", type=int)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", help="where input and stores go; by default a temporary one")
    options = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    write, default = INPUTS[options.input]
    n_times = options.times or default
    how = {"n_workers": options.workers, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary, LocalCluster(**how) as cluster:
        folder = Path(temporary)
        settings = write(folder, n_times)
        with Client(cluster) as client:
            client.run(warm)
        warm()
        threads = seconds_of(settings, folder / "threads.zarr", workers=options.workers)
        processes = seconds_of(settings, folder / "processes.zarr", scheduler=cluster.scheduler_address)
        print(f"{options.input}: {n_times} times, {len(settings['channels'])} channels, {options.workers} workers")
        for name, (seconds, cpu) in (("threads", threads), ("cluster of processes", processes)):
            told = f"{seconds:7.1f} s {n_times / seconds:8.0f} times/s {cpu:7.1f} CPU s, {cpu / seconds:.2f} cores busy"
            print(f"{name:22} {told}, {threads[0] / seconds:.2f} times as fast")


if __name__ == "__main__":
    main()
