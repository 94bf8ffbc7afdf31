"""Kill `prepare` at random moments, start it again until it ends, and compare every byte with a quiet run.

python tests/kill_prepare.py --kills 20
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr

CHANNELS = ["z500", "t850", "msl"]
_NAMES = {"z": ("m2 s-2", 5.4e4, 2e3), "t": ("K", 280.0, 9.0), "msl": ("Pa", 1.01e5, 8e2)}


def write_files(folder: Path) -> None:
    """Two years of invented 6-hourly fields as NetCDF, one file a variable and year."""
    latitude, longitude = np.linspace(60, 30, 21), np.linspace(-20, 14.5, 24)
    for year in (2000, 2001):
        days = 366 if year == 2000 else 365
        times = np.datetime64(f"{year}-01-01", "ns") + np.arange(4 * days) * np.timedelta64(6, "h")
        for i, (name, (units, mean, spread)) in enumerate(_NAMES.items()):
            noise = np.random.default_rng([year, i]).standard_normal((len(times), 21, 24))
            values = (mean + spread * noise).astype(np.float32)
            coordinates = {"time": times, "latitude": latitude, "longitude": longitude}
            field = xr.DataArray(values, dims=tuple(coordinates), coords=coordinates, attrs={"units": units})
            field.to_dataset(name=name).to_netcdf(folder / f"{name}_{year}.nc")


def settings(files: Path, store: Path) -> dict:
    """Small shards (24 of `state` in 2 channel blocks), so that there is much to interrupt."""
    return {
        "store": str(store),
        "source": {"kind": "files", "paths": [str(files / "*.nc")], "levels": {"z": 500, "t": 850}},
        "channels": CHANNELS,
        "train": "2000",
        "test": "2001",
        "channel_block": 2,
        "shard_mib": 1,
    }


def run_prepare(text: str) -> None:
    """What the killed process does; says on stdout when its imports are done."""
    from weatherfm.data_pipeline.config import DataConfig
    from weatherfm.data_pipeline.prepare import prepare
    from weatherfm.data_pipeline.sources import files

    assert files.open_source
    print("ready", flush=True)
    prepare(DataConfig.model_validate(json.loads(text)))


def attempt(data: dict, delay: float | None) -> bool:
    """Start prepare, kill it `delay` seconds after its imports; True when it ended by itself."""
    command = [sys.executable, __file__, "--run", json.dumps(data)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n", "prepare failed before it began"
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    assert process.returncode == 0, f"prepare ended with {process.returncode}"
    return True


def tree(path: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def state_at_kill(store: Path) -> str:
    """How far it had come."""
    done = [p.stem.split("-")[0] for p in (store / ".progress" / "done").glob("*.json")]
    counts = {kind: done.count(kind) for kind in ("state", "tendency", "climatology")}
    finished = ", manifest written" if (store / "manifest.json").exists() else ""
    return ", ".join(f"{kind} {count}" for kind, count in counts.items()) + finished


def main(kills: int, seed: int, folder: Path) -> None:
    """Print one line a kill; raise when a byte differs."""
    rng = random.Random(seed)
    files = folder / "files"
    files.mkdir()
    write_files(files)
    start = time.perf_counter()
    attempt(settings(files, folder / "quiet.zarr"), None)
    longest = time.perf_counter() - start
    start = time.perf_counter()
    attempt(settings(files, folder / "second.zarr"), None)
    longest = min(longest, time.perf_counter() - start)
    expected = tree(folder / "quiet.zarr")
    assert tree(folder / "second.zarr") == expected, "two quiet runs differ"
    print(f"quiet run: {len(expected)} files, {longest:.1f} s with imports; the same bytes twice")
    print(f"{'store':>5} {'kill':>4} {'after s':>8}  records written by then")
    killed, store_number = 0, 0
    while killed < kills:
        store_number += 1
        store = folder / f"killed{store_number}.zarr"
        while True:
            delay = rng.uniform(0, 0.6 * longest) if killed < kills else None
            if attempt(settings(files, store), delay):
                break
            killed += 1
            print(f"{store_number:5d} {killed:4d} {delay:8.2f}  {state_at_kill(store)}", flush=True)
        found = tree(store)
        different = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
        assert not different, f"store {store_number} differs in {different}"
        print(f"{store_number:5d} done: all {len(found)} files have the bytes of the quiet run", flush=True)
    print(f"{killed} kills over {store_number} stores: nothing lost, same bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run_prepare(arguments.run)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(arguments.kills, arguments.seed, Path(temporary))
