"""What it costs to append to a long store and to go on with an interrupted one: seconds, bytes read, memory.

python tests/bench/bench_append.py --times 60000

The store is made without fields: at 0.25 degrees with 69 channels, every shard is a hard link to one of a store of a
few days, with the records that such a store has; so it takes no room. Fields are zeros, which cost nothing to read but
are checked, summed and compressed like others: the row `prepare three days` tells what that alone takes. Bytes are
those that the process asked the system for (`rchar` of /proc/self/io), whether they came from a disk or from memory.
Each row is a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from weatherfm.data_pipeline.design.store_design import design_store
from weatherfm.data_pipeline.fields.positions import Readable, view
from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.prepare import identity_of, prepare
from weatherfm.data_pipeline.revise import append
from weatherfm.data_pipeline.store.swap import place_of_next
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.data_pipeline.writing.journal import Journal, write_record
from weatherfm.data_pipeline.writing.writer import Writing
from weatherfm.earth.grid import Grid

LEVELS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
CHANNELS = ["t2m", "u10", "v10", "msl", *(f"{name}{level}" for name in "ztuvq" for level in LEVELS)]
LATITUDE, LONGITUDE = np.linspace(90, -90, 721), np.arange(1440) * 0.25
FIRST, A_DAY, SHORT = np.datetime64("1980-01-01", "ns"), 4, 12


class Zeros(Readable):
    """Fields of zeros; none can be read once the file `fail` is there."""

    def __init__(self, n_times: int, fail: Path | None) -> None:
        self.shape, self._fail = (n_times, len(CHANNELS), len(LATITUDE), len(LONGITUDE)), fail

    def read(self, times: np.ndarray, channels: np.ndarray) -> np.ndarray:
        if self._fail is not None and self._fail.is_file():
            raise OSError("the source went away")
        return np.zeros((len(times), len(channels), *self.shape[2:]), np.float32)


def source(n_times: int, fail: Path | None = None) -> SourceData:
    """As ARCO-ERA5: one time and all levels of a variable in a chunk."""
    fields, times = Zeros(n_times, fail), FIRST + np.arange(n_times) * np.timedelta64(6, "h")
    blocks = ((1,) * n_times, (4, *(len(LEVELS),) * 5))
    state = view(fields, times, CHANNELS, Grid(LATITUDE, LONGITUDE), blocks)
    files = {f"era5_{i:05d}.nc": "1234567890 bytes, changed 1700000000000000000" for i in range(n_times)}
    return SourceData(state, None, {"made": "for a benchmark"}, simulated=True, identity=files, read_from=fields)


def config(store: Path) -> DataConfig:
    """Few training days, so that the statistics stay as the record grows."""
    return DataConfig.model_validate(
        {
            "store": str(store),
            "source": {"kind": "planet"},
            "channels": CHANNELS,
            "train": "1980-01-01/1980-01-03",
            "climatology_window": None,
        }
    )


def fabricate(root: Path, short: Path, n_times: int, finished: bool) -> int:
    """A store of `n_times`, or one of which all but the last shards are written; returns how many files it links."""
    given = source(n_times)
    design = design_store(config(root), given)
    journal = Journal(root, identity_of(design, given), given.identity)
    writing = Writing(root, design, given, None, journal, None)
    records, n_files = {}, 0
    held = _held_records(short)
    for task in writing.tasks.all():
        row, column = task.name.split("-")[1:]
        kind = task.name.split("-")[0]
        model = held.get(task.name) or held[f"{kind}-00000-{column}"]
        files = {key.replace("state/c/0/", f"state/c/{int(row)}/", 1): entry for key, entry in model["files"].items()}
        for key, old in zip(files, model["files"], strict=True):
            (root / key).parent.mkdir(parents=True, exist_ok=True)
            os.link(short / old, root / key)
            n_files += 1
        records[task.name] = {"files": files, "payload": model["payload"], "inputs": task.inputs}
    if finished:
        journal.adopt(records)
        writing.run(lambda *_: None)
        return n_files
    last = max(name for name in records if name.startswith("state"))
    for name, record in records.items():
        if name != last:
            write_record(root, name, record["files"], record["payload"], record["inputs"])
    return n_files


def _held_records(short: Path) -> dict:
    from weatherfm.data_pipeline.store.store_files import read_shards

    return read_shards(short, open_store(short).manifest)


def _read_bytes() -> int:
    text = Path("/proc/self/io").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("rchar")))


def row(label: str, work: Callable[[], object]) -> None:
    """Do `work` in a process of its own and print what it took."""
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0, label
        return
    logging.disable(logging.CRITICAL)
    before, cpu, start = _read_bytes(), time.process_time(), time.perf_counter()
    work()
    wall, spent, read = time.perf_counter() - start, time.process_time() - cpu, _read_bytes() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{label:58} {wall:7.1f} {spent:7.1f} {read / 2**20:9.1f} {peak:8.0f}", flush=True)
    os._exit(0)


@contextlib.contextmanager
def without_waiting_for_the_disk() -> Iterator[None]:
    """While stores are made up; never while they are measured."""
    real, os.fsync = os.fsync, lambda handle: None
    try:
        yield
    finally:
        os.fsync = real


def failing_append(store: Path, n_times: int) -> None:
    """An append whose source fails once the successor is begun and all that stays is linked."""
    linked = place_of_next(store) / ".progress" / "adopted"
    with contextlib.suppress(OSError):
        append(config(store), source(n_times, fail=linked))
    assert linked.is_file()


def measure(folder: Path, n_times: int) -> None:
    """All rows for one length."""
    short, long, half = (folder / f"{name}-{n_times}.zarr" for name in ("short", "long", "half"))

    def make() -> None:
        with without_waiting_for_the_disk():
            prepare(config(short), source(SHORT))
            n_files = fabricate(long, short, n_times, finished=True)
            fabricate(half, short, n_times, finished=False)
        sizes = {name: (long / f"{name}.json").stat().st_size / 1e3 for name in ("manifest", "files", "shards")}
        told = ", ".join(f"{name}.json {size:,.0f} kB" for name, size in sizes.items())
        print(f"{n_times} times: {n_files} files of fields, {told}", flush=True)

    child = os.fork()
    if not child:
        logging.disable(logging.CRITICAL)
        make()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    row(f"{SHORT} times: prepare three days", lambda: prepare(config(folder / "other.zarr"), source(SHORT)))
    row(f"{n_times} times: open for training (times, statistics)", lambda: _open(long))
    row(f"{n_times} times: prepare goes on, one shard missing", lambda: prepare(config(half), source(n_times)))
    row(f"{n_times} times: append that its source interrupts", lambda: failing_append(long, n_times + A_DAY))
    row(f"{n_times} times: it goes on, one day", lambda: append(config(long), source(n_times + A_DAY)))
    row(f"{n_times} times: append one more day", lambda: append(config(long), source(n_times + 2 * A_DAY)))
    row(f"{n_times} times: append ten days", lambda: append(config(long), source(n_times + 12 * A_DAY)))
    row(f"{n_times} times: append nothing", lambda: append(config(long), source(n_times + 12 * A_DAY)))


def _open(path: Path) -> None:
    store = open_store(path)
    assert len(store.times)
    assert store.mean.shape == (len(CHANNELS),)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, nargs="+", default=[6000, 60000])
    arguments = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    print(f"{'':58} {'seconds':>7} {'CPU s':>7} {'MiB read':>9} {'MiB held':>8}")
    with tempfile.TemporaryDirectory() as temporary:
        for count in arguments.times:
            measure(Path(temporary), count // SHORT * SHORT)
