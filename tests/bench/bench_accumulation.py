"""What gradient accumulation costs: bytes between copies of the weights in a step, waiting for data, batches in memory.

    python tests/bench/bench_accumulation.py

Bytes are of a simulated rank on `dp_replicate` 2 (a test holds the simulation to ranks that run). Waiting is the share
of a real training's time on this machine, fields read from disk for every batch (`training.cache: off`).
"""

from __future__ import annotations

import json
import tempfile
import weakref
from pathlib import Path

import numpy as np
import torch
from bench_forecast import make_store

from weatherfm.config import parse_settings
from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import regular_grid
from weatherfm.training.feeding import ready_batches
from weatherfm.training.parallel.layout import Layout
from weatherfm.training.plan.simulated_rank import simulate
from weatherfm.training.run_config import RunConfig
from weatherfm.training.trainer import train

CHANNELS, SHAPE = 20, (32, 64)


class Watched(ready_batches.ReadyBatch):
    """A batch that can be watched."""


def settings(folder: Path, accumulate: int) -> RunConfig:
    plain = {
        "run": str(folder / f"run{accumulate}"),
        "data": {
            "store": str(folder / "store.zarr"),
            "source": {"kind": "planet"},
            "channels": [f"{name}{level}" for name in "zt" for level in range(100, 1001, 100)],
            "climatology_window": None,
        },
        "model": {"width": 64, "depth": 2, "heads": 4, "patch_size": 4},
        "training": {
            "steps": 96 // accumulate,
            "accumulate": accumulate,
            "batch_size": 16,
            "lead_times": ["6h"],
            "device": "cpu",
            "cache": "off",
            "workers": 1,
            "log_every": 96 // accumulate,
            "checkpoint_every": 1000,
            "wandb": {"mode": "disabled"},
        },
    }
    return parse_settings(RunConfig, plain, "bench")


def sent(config: RunConfig) -> float:
    ones = np.ones(len(config.data.channels))
    domain = Domain(tuple(config.data.channels), regular_grid(SHAPE), 0 * ones, ones, ones)
    counted = simulate(config, domain, Layout(2, 1, 1)).total_sent()
    return sum(size for (axis, _), size in counted.items() if axis == "dp_replicate")


def train_and_watch(config: RunConfig) -> tuple[float, int]:
    """Share of the time spent waiting, and most batches alive at once."""
    alive: weakref.WeakSet = weakref.WeakSet()
    most, make_ready = 0, ready_batches.make_ready

    def watched(*arguments):
        nonlocal most
        ready = make_ready(*arguments)
        held = Watched(ready.batch, ready.forcings)
        alive.add(held)
        most = max(most, len(alive))
        return held

    ready_batches.make_ready = watched
    try:
        train(config)
    finally:
        ready_batches.make_ready = make_ready
    lines = (Path(config.run) / "metrics.jsonl").read_text().splitlines()
    return json.loads(lines[-1])["data_wait_share"], most


def main():
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        config = settings(folder, 1)
        make_store(folder, list(config.data.channels), 400, SHAPE)
        print("accumulate | bytes to copies a step | waiting | batches in memory")
        for accumulate in (1, 2, 4, 8):
            config = settings(folder, accumulate)
            waiting, most = train_and_watch(config)
            print(f"{accumulate:10} | {sent(config):22,.0f} | {waiting:6.1%} | {most:17}", flush=True)


if __name__ == "__main__":
    main()
