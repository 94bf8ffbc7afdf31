"""Make the sample files of `test_kept_formats.py` with the code that is installed, and pack them.

    git worktree add ../then e84197f && cd ../then && python -m venv .venv && .venv/bin/pip install -e .
    .venv/bin/python HERE/make_samples.py FOLDER HERE/samples.tar.gz

e84197f is the code before its modules were moved into rooms. New samples go beside these, not over them: what an older
version wrote is what today's must open.
"""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import xarray as xr
import yaml

CHANNELS = {"z500": ("z500", "m2 s-2", 54000.0, 900.0), "t2m": ("t2m", "K", 280.0, 9.0)}
"""Name and units in the file, mean and size of the wave."""
PARTS = ("store.zarr", "checkpoints/step-00000039", "forecast.zarr")
FILES = ("weights.safetensors", "scores.nc", "metrics.jsonl")
SETTINGS = {
    "run": "run",
    "data": {
        "store": "run/store.zarr",
        "source": {"kind": "files", "paths": ["waves.nc"]},
        "channels": list(CHANNELS),
        "static": ["lsm"],
        "train": "2000-01-01/2000-01-10",
        "validation": "2000-01-11/2000-01-12",
        "test": "2000-01-13/2000-01-16",
        "climatology_window": None,
    },
    "model": {"patch_size": 2, "width": 8, "depth": 1, "heads": 2, "drop_path": 0.0},
    "training": {
        "steps": 40,
        "batch_size": 4,
        "lead_times": ["6h", "12h"],
        "learning_rate": 3.0e-2,
        "min_learning_rate": 1.0e-2,
        "warmup_steps": 0,
        "ema_decay": 0.5,
        "validate_every": 20,
        "checkpoint_every": 39,
        "log_every": 10,
        "device": "cpu",
        "wandb": {"mode": "disabled"},
    },
    "forecast": {"lead_times": ["6h", "12h"], "device": "cpu"},
    "evaluation": {"resamples": 100},
}


def wave(channel: str, hours: np.ndarray, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """[time, latitude, longitude]: a wave that goes round the Earth in four days, largest at the equator."""
    _, _, mean, size = CHANNELS[channel]
    count = 1 + list(CHANNELS).index(channel)
    phase = count * (np.deg2rad(longitude)[None, None, :] - 2 * np.pi * hours[:, None, None] / 96)
    return mean + size * np.cos(np.deg2rad(latitude))[None, :, None] * np.sin(phase)


def write_source(path: Path) -> None:
    """Sixteen days, every six hours, on 4 x 8 points."""
    latitude, longitude = np.array([67.5, 22.5, -22.5, -67.5]), np.arange(0, 360, 45.0)
    hours = np.arange(64) * 6
    dims = ("time", "latitude", "longitude")
    fields = {
        name: (dims, wave(channel, hours, latitude, longitude).astype(np.float32), {"units": units})
        for channel, (name, units, _, _) in CHANNELS.items()
    }
    land = np.zeros((4, 8), np.float32)
    land[:, :4] = 1
    coordinates = {
        "time": np.datetime64("2000-01-01", "ns") + hours * np.timedelta64(1, "h"),
        "latitude": latitude,
        "longitude": longitude,
    }
    xr.Dataset(fields | {"lsm": (dims[1:], land, {"units": "1"})}, coordinates).to_netcdf(path)


def pack(folder: Path, archive: Path) -> None:
    """The run's results and settings; neither times nor owners of files."""
    run = folder / "run"
    paths = [folder / "run.yaml", *(run / name for name in FILES)]
    paths += [path for part in PARTS for path in sorted((run / part).rglob("*")) if path.is_file()]
    with gzip.GzipFile(archive, "wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for path in paths:
            content = path.read_bytes()
            entry = tarfile.TarInfo(str(path.relative_to(folder)))
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def main() -> None:
    folder, archive = Path(sys.argv[1]), Path(sys.argv[2]).resolve()
    folder.mkdir(parents=True)
    write_source(folder / "waves.nc")
    (folder / "run.yaml").write_text(yaml.safe_dump(SETTINGS, sort_keys=False))
    for verb in ("prepare", "train", "forecast", "evaluate"):
        command = [sys.executable, "-P", "-m", "weatherfm.cli", verb, "run.yaml"]
        subprocess.run(command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    pack(folder, archive)
    print(f"{archive}: {archive.stat().st_size} bytes")


if __name__ == "__main__":
    main()
