"""What a record of 40 years at 0.25 degrees costs beside its fields: files, records, opening, a task, a dry run.

python tests/bench/bench_large_record.py

The store is made without fields: every task writes the record it would write, with invented numbers, and no shard. What
is opened, and how large its files are, is therefore what a real store of that size has. Times are processor seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cloudpickle
import dask
import dask.array as da
import numpy as np
import xarray as xr

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.design.dry_run import to_text
from weatherfm.data_pipeline.design.store_design import StoreDesign, design_store
from weatherfm.data_pipeline.fields.positions import Readable, view
from weatherfm.data_pipeline.fields.regrid import place
from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.prepare import identity_of
from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.store.manifest import checksum
from weatherfm.data_pipeline.store.statistics import ChannelStatistics
from weatherfm.data_pipeline.store_config import DataConfig, RegridConfig
from weatherfm.data_pipeline.writing import writer as writing
from weatherfm.data_pipeline.writing.journal import Journal, write_record
from weatherfm.data_pipeline.writing.writer import Writing
from weatherfm.earth.grid import Grid

LEVELS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
UPPER = {"z": "geopotential", "t": "temperature", "u": "u_component_of_wind", "v": "v_component_of_wind",
         "q": "specific_humidity"}  # fmt: skip
SURFACE = {"t2m": "2m_temperature", "u10": "10m_u_component_of_wind", "v10": "10m_v_component_of_wind",
           "msl": "mean_sea_level_pressure"}  # fmt: skip
CHANNELS = [*SURFACE, *(f"{name}{level}" for name in UPPER for level in LEVELS)]
GRID = Grid(np.linspace(90, -90, 721), np.arange(1440) * 0.25)


class NoFields(Readable):
    """A record nobody reads."""

    def __init__(self, n_times: int) -> None:
        self.shape = (n_times, len(CHANNELS), *GRID.shape)


def times_of(n_times: int) -> np.ndarray:
    return np.datetime64("1979-01-01", "ns") + np.arange(n_times) * np.timedelta64(6, "h")


def record_of(n_times: int) -> SourceData:
    """As ARCO-ERA5 or WeatherBench2 at this resolution: one time and all levels of a variable in a chunk."""
    fields, blocks = NoFields(n_times), ((1,) * n_times, (4, *(13,) * 5))
    state = view(fields, times_of(n_times), CHANNELS, GRID, blocks)
    return SourceData(state, None, {"made": "for a benchmark"}, simulated=True, read_from=fields)


def config_of(store: Path, **settings) -> DataConfig:
    given = {"store": str(store), "source": {"kind": "planet"}, "channels": CHANNELS, "climatology_window": 61}
    return parse_settings(DataConfig, {**given, **settings}, "bench")


class Pretence(Writing):
    """Writes records where shards would be written."""

    def _write_state(self, records) -> None:
        for task in self.tasks.state():
            numbers = {"state": statistics(len(task.channels)), "tendency": None}  # pairs end in a later shard
            self._note(task, f"state/c/{task.block.row}/{task.block.column}/0/0", numbers)

    def _measure_changes(self, records) -> None:
        for task in self.tasks.tendency():
            self._note(task, None, statistics(task.block.channels.stop - task.block.channels.start))

    def _write_climatology(self, records, sums) -> None:
        for task in self.tasks.climatology():
            self._note(task, f"climatology/c/0/{task.hour}/{task.column}/0/0", None)

    def _note(self, task, key: str | None, payload) -> None:
        files = {} if key is None else {key: {"sha256": checksum(key.encode()), "bytes": 612_345_678}}
        write_record(self.root, task.name, files, payload, task.inputs)


def statistics(n_channels: int) -> dict:
    """As long, written out, as those of fields."""
    numbers = np.random.default_rng(n_channels).uniform(200, 300, (4, n_channels)) + 1e-3
    return ChannelStatistics(np.full(n_channels, 3114720.0), *numbers).to_dict()


def make_store(folder: Path, n_times: int) -> StoreDesign:
    os.fsync = lambda _: None  # what is measured is size, not this disk
    writing.check_space = lambda *_: None
    source = record_of(n_times)
    design = design_store(config_of(folder / "store.zarr"), source)
    journal = Journal(folder / "store.zarr", identity_of(design, source), source.identity)
    Pretence(folder / "store.zarr", design, source, None, journal, None).run(lambda *_: None)
    return design


def told_of_opening(store: Path) -> dict[str, float]:
    """Processor seconds and MB that opening takes in a process of its own, as every training process does it."""
    program = f"""
import json, resource, time
import weatherfm.data_pipeline.loader
from weatherfm.data_pipeline.store.training_store import open_store
grown = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, start = grown(), time.process_time()
store = open_store({str(store)!r})
seconds = time.process_time() - start
store.times, store.mean, store.shard_shape
print(json.dumps({{"seconds": seconds, "MB": grown() - before}}))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def seconds_a_task(source: SourceData, design: StoreDesign, count: int) -> tuple[float, float]:
    """(of a task as it is made and sent now, of one that carries the graph of the record along)."""
    stages = Writing(Path("nowhere"), design, source, None, None, None)  # type: ignore[arg-type]
    tasks = list(stages.tasks.state())
    start = time.process_time()
    for task in tasks[:: max(1, len(tasks) // count)][:count]:
        cloudpickle.dumps((task, stages._portion([task])))
    now = (time.process_time() - start) / count
    part = tasks[len(tasks) // 2].block
    start = time.process_time()
    lazy = source.state.isel(time=design.axis.indices[part.times], channel=part.channels).data
    cloudpickle.dumps(dask.optimize(dask.delayed(np.asarray, traverse=False)(lazy)))
    return now, time.process_time() - start


def write_headers(path: Path, n_times: int) -> None:
    """A Zarr store in WeatherBench2's form with all of its metadata and three chunks of each variable."""
    upper = da.zeros((n_times, 13, *GRID.shape), chunks=(1, 13, *GRID.shape), dtype=np.float32)
    surface = da.zeros((n_times, *GRID.shape), chunks=(1, *GRID.shape), dtype=np.float32)
    dims = ("time", "level", "latitude", "longitude")
    units = {"z": "m**2 s**-2", "t": "K", "q": "kg kg**-1", "t2m": "K", "msl": "Pa"}
    variables = {UPPER[name]: (dims, upper, {"units": units.get(name, "m s**-1")}) for name in UPPER}
    variables |= {
        SURFACE[name]: (("time", *dims[2:]), surface, {"units": units.get(name, "m s**-1")}) for name in SURFACE
    }
    axes = {"time": times_of(n_times), "level": list(LEVELS), "latitude": GRID.latitude, "longitude": GRID.longitude}
    xr.Dataset(variables, axes).to_zarr(path, zarr_format=2, consolidated=True, compute=False)
    for name in [*UPPER.values(), *SURFACE.values()]:
        for time_chunk in (0, n_times // 2, n_times - 1):
            (path / name / ".".join([str(time_chunk), *["0"] * (variables[name][1].ndim - 1)])).write_bytes(
                b"x" * 10**6
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=58_440, help="of the store; 58,440 are 40 years every 6 h")
    parser.add_argument("--tasks", type=int, default=200, help="to time the making of")
    parser.add_argument("--folder", help="where files go; by default a temporary folder")
    options = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        report(Path(folder), options.times, options.tasks)


def report(folder: Path, n_times: int, count: int) -> None:
    """Print the table."""
    start = time.process_time()
    design = make_store(folder, n_times)
    line("bookkeeping of a whole prepare", f"{time.process_time() - start:.1f} s without any field")
    line("store", f"{n_times} times, {design.sharding.n_channels} channels, {design.grid}")
    line("shard", f"{design.sharding.shard_times} times x {design.sharding.shard_channels} channels, "
         f"{design.sharding.shard_bytes / 1e6:.0f} MB before compression")  # fmt: skip
    line("files", f"{design.files:,}")
    line("memory of a writer", f"{(design.writer_bytes + design.reader_bytes) / 1e9:.2f} GB")
    line("memory stated for records", f"{design.records_bytes / 1e6:.0f} MB")
    for file in sorted((folder / "store.zarr").glob("*.json")):
        line(file.name, f"{file.stat().st_size / 1e6:.2f} MB")
    opened = told_of_opening(folder / "store.zarr")
    line("opening", f"{opened['seconds']:.3f} s, {opened['MB']:.0f} MB")
    for name, source in (("at 0.25 degrees", record_of(n_times)), ("to 5.625", regridded(n_times))):
        design = design_store(config_of(folder / "other.zarr"), source)
        now, before = seconds_a_task(source, design, count)
        line(f"making a task {name}", f"{now * 1e3:.2f} ms; with the record's graph {before * 1e3:.0f} ms")
        line("what tasks share, pickled", f"{len(cloudpickle.dumps(source.fields)) / 1e3:.1f} kB")
    dry_run(folder, n_times)


def regridded(n_times: int) -> SourceData:
    return place(record_of(n_times), None, RegridConfig(resolution=5.625))


def dry_run(folder: Path, n_times: int) -> None:
    write_headers(folder / "headers.zarr", n_times)
    config = config_of(folder / "dry.zarr", source={"kind": "files", "paths": [str(folder / "headers.zarr")]})
    start = time.process_time()
    source = open_source(config)
    opened = time.process_time() - start
    design = design_store(config, source)
    planned = time.process_time() - start - opened
    text = to_text(design)
    line("--dry-run", f"{opened:.2f} s to open the source, {planned:.2f} s to design, {len(text.splitlines())} lines")
    line("its source, pickled", f"{len(cloudpickle.dumps(source.fields)) / 1e3:.1f} kB")
    line("its memory", text.split("\nmemory", 1)[1].splitlines()[0].strip())


def line(name: str, told: str) -> None:
    print(f"{name:32} {told}", flush=True)


if __name__ == "__main__":
    main()
