"""Reading GRIB on one and two threads, and indexing it cold and kept, side by side in one run.

    python tests/bench/bench_grib.py

Fields are 0.25 degrees (721 x 1440), 16 bits, in the packings of ERA5's and GFS's files, and lie in the page cache.
"Under one lock" is the same reading with a lock around each field, as it was before. Headers are those of small files
of `--messages` fields each; "asked of ecCodes" reads every header as cfgrib does, a message at a time. Ratios are of
wall time; processor time stands beside it, since other work on the machine stretches the former, and how much of the
time two threads are awake, which it does not touch.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import weatherfm.data_pipeline.formats.grib.codes  # noqa: F401 - before ecCodes

# isort: split
import eccodes
import numpy as np

from weatherfm.data_pipeline.formats.file_index import index_files
from weatherfm.data_pipeline.formats.grib import kept_index
from weatherfm.data_pipeline.formats.grib.headers import _read
from weatherfm.data_pipeline.formats.grib.index import read_grib_index
from weatherfm.data_pipeline.formats.grib.reader import GribReader
from weatherfm.data_pipeline.formats.meaning.names import NameRules
from weatherfm.data_pipeline.formats.wanted_times import Span
from weatherfm.data_pipeline.source_config import FilesSource

LEVELS = [50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000]
KEYS = ["shortName", "typeOfLevel", "level", "stepType", "dataDate", "dataTime", "endStep", "units", "gridType"]


def message(edition: int, packing: str, step: float, name: str, level: int, date: int) -> bytes:
    handle = eccodes.codes_grib_new_from_samples(f"regular_ll_pl_grib{edition}")
    rows, columns = round(180 / step) + 1, round(360 / step)
    settings = {
        "Ni": columns, "Nj": rows, "latitudeOfFirstGridPointInDegrees": 90.0, "latitudeOfLastGridPointInDegrees": -90.0,
        "longitudeOfFirstGridPointInDegrees": 0.0, "longitudeOfLastGridPointInDegrees": 360 - step,
        "iDirectionIncrementInDegrees": step, "jDirectionIncrementInDegrees": step, "shortName": name,
        "level": level, "dataDate": date, "bitsPerValue": 16, "packingType": packing,
    }  # fmt: skip
    for key, value in settings.items():
        eccodes.codes_set(handle, key, value)
    latitude, longitude = np.deg2rad(np.linspace(90, -90, rows))[:, None], np.deg2rad(np.arange(columns) * step)
    noise = np.random.default_rng(level).normal(size=(rows, columns))
    eccodes.codes_set_values(handle, (280 + 20 * np.sin(latitude) + 3 * np.cos(5 * longitude) + noise).ravel())
    content = bytes(eccodes.codes_get_message(handle))
    eccodes.codes_release(handle)
    return content


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """(wall, processor) seconds."""
    wall, spent = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - spent


def awake(workers: int, one: Callable[[int], None], fields: int) -> float:
    """Share of the time in which each thread runs or waits for a processor, and not for another thread.

    Where two threads are awake all the time they use two processors, however busy the machine is (Linux only).
    """

    def work(worker: int) -> float:
        before, start = _scheduled(), time.monotonic_ns()
        for slot in range(worker, 2 * fields, workers):
            one(slot % fields)
        return (_scheduled() - before) / (time.monotonic_ns() - start)

    with ThreadPoolExecutor(workers) as threads:
        return float(np.mean(list(threads.map(work, range(workers)))))


def _scheduled() -> int:
    """Nanoseconds that this thread ran or waited for a processor."""
    return sum(map(int, Path("/proc/thread-self/schedstat").read_text().split()[:2]))


def reading(folder: Path, edition: int, packing: str, fields: int, repeats: int) -> None:
    path = folder / "fields.grib"
    path.write_bytes(b"".join(message(edition, packing, 0.25, "t", 1 + i, 20200101) for i in range(fields)))
    index, lock = read_grib_index(str(path)), threading.Lock()
    reader = GribReader(str(path), index.offsets, index.lengths, index.numbers)

    def read(slot: int) -> None:
        reader.read(np.array([slot]), [0])

    def locked(slot: int) -> None:
        with lock:
            read(slot)

    def run(workers: int, one: Callable[[int], None]) -> tuple[float, float]:
        with ThreadPoolExecutor(workers) as threads:
            return timed(lambda: list(threads.map(one, [*range(fields)] * 2)))

    ways = {"one": (1, read), "two": (2, read), "locked": (2, locked)}
    runs = {way: [] for way in ways}
    for _ in range(repeats):  # in turn, and the best of each: others use this machine too
        for way, (workers, one) in ways.items():
            runs[way].append(run(workers, one))
    (alone, spent), (two, both), (one_lock, _) = (min(runs[way]) for way in ways)
    print(
        f"GRIB{edition} {packing}: {alone / fields / 2 * 1e3:.1f} ms a field on one thread; two threads "
        f"{alone / two:.2f} x as fast (processor time {both / spent:.2f} x), "
        f"two under one lock {alone / one_lock:.2f} x; of two threads each is awake "
        f"{awake(2, read, fields):.0%} of the time, under one lock {awake(2, locked, fields):.0%}"
    )


def indexing(folder: Path, edition: int, files: int, messages: int) -> None:
    paths = []
    names = [(name, level) for name in "tuvqz" for level in LEVELS][:messages]
    parts = [message(edition, "grid_simple", 10.0, name, level, 20200101) for name, level in names]
    for i in range(files):
        date = np.datetime64("2000-01-01") + i
        paths.append(str(folder / f"{date}.grib"))
        Path(paths[-1]).write_bytes(b"".join(_dated(part, edition, date) for part in parts))
    store, rules = folder / "store", NameRules(FilesSource(kind="files", paths=["x"]))
    wanted = {f"{name}{level}" for name, level in names}

    def index() -> None:
        index_files(paths, rules, wanted, Span(), store)

    kept_index._WORTH = 1
    few = paths[: max(1, files // 20)]
    by_hand = timed(lambda: [_asked(path) for path in few])[1] * files / len(few)
    _read.cache_clear()
    cold, kept = timed(index), timed(index)
    size = sum(file.stat().st_size for file in kept_index.file_beside(store).parent.iterdir())
    count = files * len(names)
    print(
        f"GRIB{edition}, {files} files of {len(names)} fields: {by_hand / count * 1e6:.0f} us of processor a field "
        f"asked of ecCodes one by one; indexed cold {cold[1] / count * 1e6:.0f} us ({by_hand / cold[1]:.1f} x "
        f"as fast), kept {kept[1] / count * 1e6:.0f} us ({by_hand / kept[1]:.1f} x); "
        f"wall {cold[0]:.2f} and {kept[0]:.2f} s; "
        f"{size / count:.0f} bytes a field are kept"
    )


def _dated(content: bytes, edition: int, date: np.datetime64) -> bytes:
    year, month, day = (int(part) for part in str(date).split("-"))
    if edition == 1:
        century, of_century = divmod(year - 1, 100)
        return content[:20] + bytes([of_century + 1, month, day]) + content[23:32] + bytes([century + 1]) + content[33:]
    return content[:28] + year.to_bytes(2, "big") + bytes([month, day]) + content[32:]


def _asked(path: str) -> None:
    with open(path, "rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file, headers_only=True)) is not None:
            for key in KEYS:
                eccodes.codes_get_string(handle, key)
            eccodes.codes_release(handle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--messages", type=int, default=40)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for edition, packing in ((1, "grid_simple"), (2, "grid_ccsds"), (2, "grid_complex_spatial_differencing")):
            reading(Path(name), edition, packing, given.fields, given.repeats)
        for edition in (1, 2):
            folder = Path(name) / str(edition)
            folder.mkdir()
            indexing(folder, edition, given.files, given.messages)


if __name__ == "__main__":
    main()
