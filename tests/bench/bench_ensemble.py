"""An ensemble by noise against as many single forecasts, side by side, for few channels and for hundreds.

    python tests/bench/bench_ensemble.py --channels 20 100 400 --members 16

Both start from the same states in memory and end in memory. Members share the reading of states and, in the first step,
the front end (tokenizer and aggregation over channels); single forecasts make all of it anew. Seconds are processor
time of one thread, the least of some rounds in turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import weatherfm
from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import regular_grid
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.model import WeatherViT


class Noise:
    """Two states of random numbers."""

    name, simulated, source, numbers = "noise", True, {"kind": "noise"}, None

    def __init__(self, domain: Domain) -> None:
        self.channels, self.grid = domain.channels, domain.grid
        self.times = np.array(["2000-01-01", "2000-01-02"], "datetime64[s]")
        self.state = np.random.default_rng(0).normal(250, 20, (1, 1, len(self.channels), *self.grid.shape))
        self.state = self.state.astype(np.float32)

    def read(self, times: np.ndarray, channels: Any) -> np.ndarray:
        return np.repeat(self.state, len(times), 0)


def make_model(channels: int, width: int, depth: int) -> WeatherViT:
    names = tuple(f"{'ztuvq'[i % 5]}{i // 5 + 1}" for i in range(channels))
    statistics = [np.full(channels, value) for value in (250.0, 20.0, 7.0)]
    domain = Domain(names, regular_grid((32, 64)), *statistics)
    return WeatherViT(
        ModelConfig(patch_size=2, width=width, depth=depth, heads=8, conditioning="adaln", noise=16), domain
    )


def seconds(act: Callable[[], object]) -> float:
    start = time.process_time()
    act()
    return time.process_time() - start


def compare(model: WeatherViT, members: int, rounds: int, leads: list[str], rollout: str | None) -> tuple[float, float]:
    """Seconds of the ensemble, and of single forecasts."""
    states = Noise(model.domain)

    def make(**more: Any) -> None:
        weatherfm.forecast(model, states, leads, "2000-01-01", rollout, **more)

    def singles() -> None:
        for _ in range(members):
            make()

    spent = [(seconds(lambda: make(members=members)), seconds(singles)) for _ in range(rounds)]
    together, alone = (min(times) for times in zip(*spent, strict=True))
    return together, alone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[20, 100, 400])
    for name, default in {"members": 16, "width": 128, "depth": 4, "rounds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    members = arguments.members
    print(f"{members} members, 32 x 64, patches of 2, width {arguments.width}, depth {arguments.depth}")
    for channels in arguments.channels:
        model = make_model(channels, arguments.width, arguments.depth)
        for how, leads, rollout in (("one step", ["6h"], None), ("four steps", ["24h"], "6h")):
            together, alone = compare(model, members, arguments.rounds, leads, rollout)
            print(
                f"{channels:4} channels, {how:10}  ensemble {together:6.2f} s   {members} forecasts {alone:6.2f} s   "
                f"ratio {together / alone:.2f}"
            )


if __name__ == "__main__":
    main()
