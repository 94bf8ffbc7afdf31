"""A store of ten simulated years: written, verified, appended to, repaired and read, with figures.

python tests/bench/bench_ten_years.py --years 10

Fields are invented on the fly (32 x 64, every 6 hours): travelling waves, a season and noise, a function of their time
alone, so that the last year can be appended and a shard be repaired. Each step runs in a process of its own; memory is
what that process holds at most, beyond one that only imports.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import xarray as xr

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.loader import SampleLoader
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append, repair
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.data_pipeline.verify import verify
from weatherfm.earth.grid import regular_grid

FIRST_YEAR, PIECE = 2000, 124
GRID = regular_grid((32, 64))
LEVELS = (50, 100, 200, 300, 400, 500, 600, 700, 850, 925)
NORMAL = {"z": (5e4, 2e3), "t": (255.0, 8.0), "u": (5.0, 9.0), "v": (0.0, 8.0)}


def channels(count: int) -> list[str]:
    return [f"{name}{level}" for level in LEVELS for name in NORMAL][:count]


def fields(start: int, count: int, names: list[str]) -> np.ndarray:
    """[time, channel, lat, lon] float32 of `count` times from position `start` on."""
    hours = 6 * np.arange(start, start + count)[:, None, None]
    latitude, longitude = np.deg2rad(GRID.latitude)[:, None], np.deg2rad(GRID.longitude)
    out = np.empty((count, len(names), *GRID.shape), np.float32)
    noise = np.random.default_rng(start).standard_normal((count, *GRID.shape), np.float32)
    for i, name in enumerate(names):
        mean, spread = NORMAL[name[0]]
        wave = np.cos(latitude) * np.sin((3 + i % 4) * longitude - 2 * np.pi * hours / (90 + 3 * i))
        season = np.sin(2 * np.pi * hours / 8766) * np.sin(latitude)
        out[:, i] = mean + spread * (wave + season + 0.1 * np.roll(noise, 5 * i, axis=-1))
    return out


def source(years: int, names: list[str]) -> SourceData:
    """A lazy source of whole years."""
    first = np.datetime64(f"{FIRST_YEAR}-01-01", "ns")
    n_times = int((np.datetime64(f"{FIRST_YEAR + years}-01-01") - first) / np.timedelta64(6, "h"))
    blocks = [
        da.from_delayed(
            dask.delayed(fields, pure=False, traverse=False)(start, min(PIECE, n_times - start), names),
            (min(PIECE, n_times - start), len(names), *GRID.shape),
            np.float32,
        )
        for start in range(0, n_times, PIECE)
    ]
    times = first + np.arange(n_times) * np.timedelta64(6, "h")
    coordinates = {"time": times, "channel": names, "latitude": GRID.latitude, "longitude": GRID.longitude}
    state = xr.DataArray(da.concatenate(blocks), dims=tuple(coordinates), coords=coordinates)
    block_bytes = 4 * PIECE * len(names) * GRID.shape[0] * GRID.shape[1]
    return SourceData(state, None, {"made": "for a benchmark"}, simulated=True, block_bytes=2 * block_bytes)


def config(store: Path, names: list[str], years: int) -> DataConfig:
    train = f"{FIRST_YEAR}-{FIRST_YEAR + years - 3}"
    settings = {"store": str(store), "source": {"kind": "planet"}, "channels": names, "train": train}
    return parse_settings(DataConfig, settings, "bench")


def step(name: str, work: Callable[[], str]) -> None:
    """Do `work` in a forked process and print its time, memory and what it says."""
    reader, writer = os.pipe()
    start = time.perf_counter()
    if (child := os.fork()) == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        said = work()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        os.write(writer, f"{grown:9.0f} MiB | {said}".encode())
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    seconds = time.perf_counter() - start
    assert status == 0, f"{name} failed"
    print(f"{name:26} | {seconds:7.1f} s | {os.read(reader, 4096).decode()}", flush=True)


def read(store: Path, seconds: float) -> str:
    opened = open_store(store)
    loader = SampleLoader(opened, None, [0], [24], 32, 0, workers=2)
    start, samples = time.perf_counter(), 0
    for batch in loader.iterate(0, 10**6):
        samples += len(batch)
        if time.perf_counter() - start > seconds:
            break
    rate = samples / (time.perf_counter() - start)
    return f"{rate:.0f} samples/s, {2 * rate * opened.grid.shape[0] * 64 * len(opened.channels) * 4 / 1e6:.0f} MB/s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--years", type=int, default=10)
    parser.add_argument("--channels", type=int, default=40, help="at most 40")
    parser.add_argument("--folder", help="where the store goes; by default a temporary folder")
    options = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        run(Path(folder) / "store.zarr", options.years, channels(options.channels))


def run(store: Path, years: int, names: list[str]) -> None:
    def size() -> str:
        files = [p for p in store.rglob("*") if p.is_file()]
        n_bytes = sum(p.stat().st_size for p in files)
        return f"{len(open_store(store).times)} times, {n_bytes / 1e9:.2f} GB in {len(files)} files"

    def prepared() -> str:
        prepare(config(store, names, years), source(years - 1, names))
        return size()

    def verified() -> str:
        report = verify(store)
        return f"sound: {report.ok}, {len(report.problems)} findings"

    def appended() -> str:
        before = {p: p.stat().st_ino for p in (store / "state").rglob("c/*/*/*/*")}
        append(config(store, names, years), source(years, names))
        kept = sum(p.exists() and p.stat().st_ino == inode for p, inode in before.items())
        return f"{kept} of {len(before)} shards of the state untouched; {size()}"

    def repaired() -> str:
        bad = "state/c/3/0/0/0"
        (store / bad).write_bytes(b"damaged")
        repair(store, {bad}, config(store, names, years), source(years, names))
        return f"one shard: sound again: {verify(store, sample=10).ok}"

    step(f"prepare {years - 1} years", prepared)
    step("verify", verified)
    step("append 1 year", appended)
    step("verify", verified)
    step("repair (with quick verify)", repaired)
    step("read batches of 32", lambda: read(store, 10))


if __name__ == "__main__":
    main()
