"""Kill `prepare`, `append` and `repair` at random moments, start them again until they end, and compare every byte with
a quiet run.

python tests/kills/kill_prepare.py --kills 20

Each attempt is a process of its own, forked from this one, which has imported everything and holds no threads: so a
kill costs as long as the work it kills. Sources are NetCDF files, regridded on the way.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

import weatherfm.data_pipeline.sources.files
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append, repair
from weatherfm.data_pipeline.store_config import DataConfig

CHANNELS = ["z500", "t850", "msl"]
_NAMES = {"z": ("m2 s-2", 5.4e4, 2e3), "t": ("K", 280.0, 9.0), "msl": ("Pa", 1.01e5, 8e2)}
_DAYS = 240


def write_files(folder: Path) -> None:
    """Eight months of invented 6-hourly fields as NetCDF, one file a variable."""
    latitude, longitude = np.linspace(60, 30, 31), np.linspace(-20, 15, 36)
    times = np.datetime64("2000-01-01", "ns") + np.arange(4 * _DAYS) * np.timedelta64(6, "h")
    for i, (name, (units, mean, spread)) in enumerate(_NAMES.items()):
        noise = np.random.default_rng(i).standard_normal((len(times), 31, 36))
        values = (mean + spread * noise).astype(np.float32)
        coordinates = {"time": times, "latitude": latitude, "longitude": longitude}
        field = xr.DataArray(values, dims=tuple(coordinates), coords=coordinates, attrs={"units": units})
        field.to_dataset(name=name).to_netcdf(folder / f"{name}.nc")


def settings(files: Path, store: Path, last: str = "2000-08-27") -> DataConfig:
    """Small shards in 2 channel blocks, so that there is much to interrupt."""
    return DataConfig.model_validate(
        {
            "store": str(store),
            "source": {"kind": "files", "paths": [str(files / "*.nc")], "levels": {"z": 500, "t": 850}},
            "channels": CHANNELS,
            "regrid": {"resolution": 1.5},
            "period": f"2000-01-01/{last}",
            "climatology_window": None,
            "channel_block": 2,
            "shard_mib": 1,
        }
    )


def attempt(work: Callable[[], object], delay: float | None) -> bool:
    """Do `work` in a process of its own and kill it after `delay` seconds; True when it ended by itself."""
    child = os.fork()
    if child == 0:
        os._exit(_status_of(work))
    deadline = None if delay is None else time.perf_counter() + delay
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0, f"it ended with {os.waitstatus_to_exitcode(status)}"
            return True
        if deadline is not None and time.perf_counter() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.002)


def _status_of(work: Callable[[], object]) -> int:
    try:
        work()
    except Exception:  # noqa: BLE001 - told here, counted by the parent
        traceback.print_exc()
        return 1
    return 0


def tree(path: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def timed(work: Callable[[], object]) -> float:
    """Seconds of an undisturbed run."""
    start = time.perf_counter()
    attempt(work, None)
    return time.perf_counter() - start


class Case:
    """One verb: how a store is before it, what it does, and what must come out."""

    def __init__(self, name: str, before: Callable[[Path], object], work: Callable[[Path], object]) -> None:
        self.name, self.before, self.work = name, before, work

    def run(self, folder: Path, kills: int, rng: random.Random) -> None:
        """Kill it so often; raises when a byte differs from a run that nothing disturbed."""
        quiet = folder / f"{self.name}-quiet.zarr"
        self.before(quiet)
        longest = timed(lambda: self.work(quiet))
        expected, killed, stores = tree(quiet), 0, 0
        while killed < kills:
            stores += 1
            store = folder / f"{self.name}.zarr"
            self.before(store)
            while True:
                delay = rng.uniform(0, longest) if killed < kills else None
                if attempt(lambda store=store: self.work(store), delay):
                    break
                killed += 1
            found = tree(store)
            different = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
            assert not different, f"{self.name}, store {stores} differs in {different}"
            left = [p.name for p in folder.glob(f".{store.name}*")]
            assert not left, f"{self.name} left {left}"
            shutil.rmtree(store)
        print(
            f"{self.name:8} {killed:4d} kills over {stores:3d} stores of {len(expected)} files: same bytes", flush=True
        )


def cases(folder: Path) -> list[Case]:
    """The three verbs on one set of files."""
    files = folder / "files"
    files.mkdir()
    write_files(files)
    half, whole = folder / "half.zarr", folder / "whole.zarr"
    for store, last in ((half, "2000-05-15"), (whole, "2000-08-27")):
        attempt(lambda store=store, last=last: prepare(settings(files, store, last)), None)
    bad = {"state/c/1/0/0/0", "state/c/2/1/0/0", "climatology/c/0/2/0/0/0"}

    def harm(store: Path) -> None:
        shutil.copytree(whole, store)
        for key in bad:
            (store / key).unlink()

    return [
        Case("prepare", lambda store: None, lambda store: prepare(settings(files, store))),
        Case("append", lambda store: shutil.copytree(half, store), lambda store: append(settings(files, store))),
        Case("repair", harm, lambda store: repair(store, _missing(store, bad), settings(files, store))),
    ]


def _missing(store: Path, bad: set[str]) -> set[str]:
    """As `verify` would name them: none once the repaired store is in place."""
    return {key for key in bad if store.exists() and not (store / key).exists()}


def main(kills: int, seed: int) -> None:
    """Kill the verbs in turn, half of the kills on prepare."""
    assert weatherfm.data_pipeline.sources.files.open_source  # imported before anything is forked
    logging.disable(logging.WARNING)
    os.environ["TQDM_DISABLE"] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        for case, share in zip(cases(Path(temporary)), (0.5, 0.3, 0.2), strict=True):
            case.run(Path(temporary), max(1, round(kills * share)), random.Random(seed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    main(arguments.kills, arguments.seed)
