"""Random batches from a store: our loader beside tensorstore alone, np.memmap, zarr-python, xarray and xarray + dask.

    python tests/bench/bench_loader.py --quick      under a minute: small stores, 24 channels at 0.25 degrees
    python tests/bench/bench_loader.py              ten minutes, 4 GiB of disk and of memory
    python tests/bench/bench_loader.py --cold       files leave the system's cache before every measurement
    python tests/bench/bench_loader.py --resolutions 5.625 --channels 1024 --batch 8 --shares 1 8
                                                    as many channels as you like: those beyond ERA5's are invented

Stores are written by `prepare` from smooth invented fields, which compress about as ERA5 does. All ways read the same
batches: for each sample the field at one random time and at another, a lead later. `x` is the speed beside that of
tensorstore alone (`array.oindex[times, channels].read()`) for the same chunks with as many reads at a time; the line
below is of tensorstore writing into memory that is used again and again, which is the most it can do. Ways are
measured in turn, `--rounds` times, and the fastest of each way counts: other work on the machine slows a round, nothing
makes it faster. Values are compared, too. Without `--cold` files are in the system's cache: what is measured is
decompression and copying, not the disk.

`--need` is how many samples a second a GPU would take: 1,300 for configs/era5_5p625deg.yaml (6 x 100 M weights x 512
positions a sample at 4e14 operations a second, which is generous) and 160 for one rank of
configs/era5_1p40625deg_16gpus.yaml (1.6 billion weights, 2,048 positions, 8 GPUs at a sample, each with one eighth of
the channels). The second table is of a consumer that sleeps for a step at that speed and then asks for a batch.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import tensorstore as ts
import xarray as xr
import zarr

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.loader import SampleLoader
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.earth.grid import regular_grid

LEVELS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
CHANNELS = [f"{name}{level}" for level in LEVELS for name in "zuvtq"] + ["t2m", "u10", "v10", "msl", "sp"]
OWN = {"long_name": "invented_field", "units": "1", "bounds": [-1e6, 1e6]}
ALONE = ("tensorstore alone", "... memory reused")
SLOW = ("zarr-python", "xarray", "xarray + dask")  # read one eighth of the batches
BATCH, NEED = {5.625: 64, 1.40625: 16, 0.25: 1}, {5.625: 1300, 1.40625: 160}
GRIDS = {5.625: (32, 64), 1.40625: (128, 256), 0.25: (721, 1440)}


def channels_of(count):
    """(short names, `data.variables` that define those beyond the table's)."""
    own = [f"made{i:04d}x" for i in range(max(0, count - len(CHANNELS)))]
    return [*CHANNELS[:count], *own], {name: OWN | {"long_name": f"invented_field_{name}"} for name in own}


def smooth(rng, shape):
    """[lat, lon] of variance 1, with the steep spectrum of weather."""
    rows, columns = shape
    wave = np.hypot(np.fft.fftfreq(rows)[:, None] * rows, np.fft.rfftfreq(columns) * columns)
    wave[0, 0] = np.inf
    spectrum = (rng.standard_normal(wave.shape) + 1j * rng.standard_normal(wave.shape)) * wave**-2.0
    field = np.fft.irfft2(spectrum, s=shape)
    return (field / field.std()).astype(np.float32)


def invent(shape, channels, times):
    """Waves that travel east over waves that travel west, other ones in each channel."""
    rng = np.random.default_rng(0)
    base = [smooth(rng, shape) for _ in range(3)]

    def state(t):
        out = np.empty((1, len(channels), *shape), np.float32)
        for c in range(len(channels)):
            out[0, c] = 280 - c + (8 + 0.1 * c) * np.roll(base[c % 3], t + c, -1) + np.roll(base[(c + 1) % 3], -t, -1)
        return out

    pieces = [da.from_delayed(dask.delayed(state)(t), (1, len(channels), *shape), np.float32) for t in range(times)]
    return da.concatenate(pieces)


def make_store(folder, resolution, channels, times, variables):
    shape = GRIDS[resolution]
    grid = regular_grid(shape)
    moments = np.datetime64("2000-01-01", "ns") + np.arange(times) * np.timedelta64(6, "h")
    axes = {"time": moments, "channel": channels, "latitude": grid.latitude, "longitude": grid.longitude}
    state = xr.DataArray(invent(shape, channels, times), dims=tuple(axes), coords=axes)
    settings = {"store": str(folder / f"{resolution:g}.zarr"), "source": {"kind": "planet"}, "channels": channels}
    settings |= {"climatology_window": None, "tendency_lead": "6h", "variables": variables}
    return prepare(parse_settings(DataConfig, settings, "benchmark"), SourceData(state, None, {}, simulated=True))


def forget(path):
    """Let the system drop what it holds of these files."""
    for file in (f for f in Path(path).rglob("*") if f.is_file()):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def in_turn(read, keys, workers):
    """As many reads at a time as workers, results in order: what the loader does, for any way to read."""
    if workers == 0:
        yield from map(read, keys)
        return
    with ThreadPoolExecutor(workers) as pool:
        ahead = deque()
        for key in keys:
            ahead.append(pool.submit(read, key))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


class Bench:
    """One store, one share of its channels, one batch size."""

    def __init__(self, store, n_channels, options, batch_size, steps):
        self.store, self.options, self.steps = store, options, steps
        self.n_channels, self.channels = n_channels, store.channels[:n_channels]
        self.batch_size = batch_size
        loader = self._loader(store, batch_size, 0)
        inits = [loader.samples(step) for step in range(steps)]
        hours = np.timedelta64(1, "h")
        self.batches = [store.index_of(np.concatenate([a, a + leads * hours])) for a, leads in inits]
        self.bytes = 4 * 2 * batch_size * n_channels * np.prod(store.grid.shape) * steps
        self.folder = store.path.parent

    def _loader(self, store, batch_size, workers):
        return SampleLoader(store, None, [0], [6], batch_size, 0, workers, self.channels)

    def ways(self):
        """Name -> iterator over the batches, given the workers."""
        path, part = self.store.path, slice(0, self.n_channels)
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/state"}}
        array = ts.open(spec, open=True, read=True).result()
        python = zarr.open_array(path / "state", mode="r")
        lazy, chunked = xr.open_zarr(path, chunks=None)["state"], xr.open_zarr(path, chunks={})["state"]
        mapped = np.load(self.folder / "values.npy", mmap_mode="r")
        kept = open_store(path)
        kept.keep(np.arange(len(kept.times)), self.channels)
        in_memory = kept._kept.fields
        spare = []

        def reuse(indices):  # nobody looks at what it returns after the next read
            shape = (len(indices), self.n_channels, *self.store.grid.shape)
            memory = spare.pop() if spare else np.empty(shape, np.float32)
            ts.array(memory).write(array.oindex[indices, part]).result()
            spare.append(memory)
            return memory

        reads = {
            "... memory reused": reuse,
            "tensorstore alone": lambda i: array.oindex[i, part].read().result(),
            "np.memmap": lambda i: mapped[i, part],
            "np.take in memory": lambda i: np.take(in_memory, i, axis=0),
            "zarr-python": lambda i: np.stack([python[int(t), part] for t in i]),  # up to 14 times faster than oindex
            "xarray": lambda i: np.stack([lazy[int(t), part].values for t in i]),
            "xarray + dask": lambda i: chunked[i, part].values,
        }
        ways = {
            name: lambda workers, steps, read=read: in_turn(read, self.batches[:steps], workers)
            for name, read in reads.items()
        }
        for name, store in {"loader, cache": kept, "loader": self.store}.items():
            loaders = {w: self._loader(store, self.batch_size, w) for w in {0, *self.options.workers}}
            way = {name: lambda workers, steps, loaders=loaders: loaders[workers].iterate(0, steps)}
            ways = {**{name: ways[name] for name in ALONE}, **way, **ways}  # next to what it is compared with
        return ways

    def measure(self):
        """{(way, workers): seconds}, the fastest of all rounds."""
        ways, best = self.ways(), {}
        self.compare(ways)
        for _ in range(self.options.rounds):
            for name, way in ways.items():
                for workers in self.options.workers:
                    steps = max(1, self.steps // 8) if name in SLOW else self.steps
                    if self.options.cold:
                        forget(self.folder)
                    start = time.perf_counter()
                    for _batch in way(workers, steps):
                        pass
                    seconds = (time.perf_counter() - start) * self.steps / steps
                    best[name, workers] = min(seconds, best.get((name, workers), np.inf))
        return best

    def compare(self, ways):
        """All ways must give the same values."""
        expected = next(ways["tensorstore alone"](0, 1))
        for name, way in ways.items():
            found = next(way(0, 1))
            if name.startswith("loader"):
                found = np.concatenate([found.history[:, 0], found.target])
            assert np.array_equal(found, expected), name

    def consume(self, step_seconds, cached, workers):
        """Share of its time that a consumer waits, once the first batches are there."""
        store = self.store
        if cached:
            store = open_store(store.path)
            store.keep(np.arange(len(store.times)), self.channels)
        waited = 0.0
        stream = self._loader(store, self.batch_size, workers).iterate(0, self.steps + 2)
        for _ in range(2):
            next(stream)
            time.sleep(step_seconds)
        begin = time.perf_counter()
        for _ in range(self.steps):
            start = time.perf_counter()
            next(stream)
            waited += time.perf_counter() - start
            time.sleep(step_seconds)
        return waited / (time.perf_counter() - begin)


def show(bench, resolution, best, workers):
    alone = {w: best["tensorstore alone", w] for w in workers}
    for name in dict.fromkeys(name for name, _ in best):
        row = f"{resolution:7g} {bench.n_channels:4} {name:18}"  # as many reads at a time as workers
        for w in workers:
            seconds = best[name, w]
            samples, rate = bench.steps * bench.batch_size / seconds, bench.bytes / seconds / 1e6
            row += f" | {samples:8.1f} {rate:7.0f} {alone[w] / seconds:5.2f}x"
        print(row, flush=True)


def run(options, folder, resolution, batch_size, need):
    channels, variables = channels_of(options.fine_channels if resolution < 1 else options.channels)
    sample = 4 * len(channels) * np.prod(GRIDS[resolution])  # bytes of one time
    times = max(6, batch_size + 1, int(options.mib * 2**20 / sample))
    place = folder / f"{resolution:g}"
    place.mkdir()
    store = make_store(place, resolution, channels, times, variables)
    np.save(place / "values.npy", store.read(range(times)))
    waits = []
    for share in options.shares:
        n = max(1, len(channels) // share)
        steps = max(3, int(options.read_mib * 2**20 / (2 * batch_size * sample / min(share, 4))))  # less for a share
        bench = Bench(store, n, options, batch_size, steps)
        show(bench, resolution, bench.measure(), options.workers)
        if need and (share == 8 if resolution == 1.40625 else share == 1):
            for cached in (False, True):
                shares = [bench.consume(batch_size / need, cached, w) for w in options.workers]
                waits.append((resolution, n, need, cached, batch_size, shares))
    return waits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolutions", type=float, nargs="+", default=list(GRIDS), choices=list(GRIDS))
    parser.add_argument("--channels", type=int, default=70)
    parser.add_argument("--fine-channels", type=int, default=70, help="channels at 0.25 degrees")
    parser.add_argument("--shares", type=int, nargs="+", default=[1, 2, 8], help="read one of so many parts")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--mib", type=float, default=600, help="of each store before compression, at least 6 times")
    parser.add_argument("--batch", type=int, help="samples; without it, 64, 16 and 1 by resolution")
    parser.add_argument("--read-mib", type=float, default=700, help="read in one measurement with all channels")
    parser.add_argument("--need", type=float, help="samples/s; without it, 1300 at 5.625 and 160 at 1.40625 degrees")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.mib, options.read_mib, options.fine_channels, options.rounds = 150, 150, 8, 2
        options.shares, options.workers = [1, 8], [0, 2]
    state = "files dropped from the system's cache before each" if options.cold else "files in the system's cache"
    print(f"tensorstore, zarr {zarr.__version__}, xarray {xr.__version__}, {os.cpu_count()} cores, {state}")
    print(f"{'deg':>7} {'C':>4} {'workers':18}" + "".join(f" | {w:<3} samples/s  MB/s   x" for w in options.workers))
    waits = []
    with tempfile.TemporaryDirectory(prefix="bench_loader") as folder:
        for resolution in options.resolutions:
            batch_size, need = options.batch or BATCH[resolution], options.need or NEED.get(resolution)
            waits += run(options, Path(folder), resolution, batch_size, need)
    if waits:
        print("share of its time that a consumer of `need` samples/s waits")
    for resolution, n, need, cached, batch_size, shares in waits:
        row = f"{resolution:7g} {n:3} need {need:g}, batch {batch_size}, {'cache' if cached else 'disk'}:"
        print(row + "".join(f" | {w} workers {s:4.0%}" for w, s in zip(options.workers, shares, strict=True)))


if __name__ == "__main__":
    main()
