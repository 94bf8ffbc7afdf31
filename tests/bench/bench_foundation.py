"""What a step costs: with channels of a mix that a store lacks, more model steps of a rollout, members of an ensemble.

    python tests/bench/bench_foundation.py                      a model of 64 channels on 32 x 64 points, width 256
    python tests/bench/bench_foundation.py --width 1024 --depth 8

First table: the whole step (forward, backward, clipping, AdamW) of a model of 64 channels on a store that has 8 of
them, beside a model of these 8 alone, and on a store that has all. Second: one, two and four model steps a sample.
Then, of few channels and of many: one forecast a sample, and two and four that differ by noise (`training.loss: crps`).
Time is that of the processor, forms in turn, the fastest of each; memory is what `weatherfm plan` counts of the same
step.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from weatherfm.config import parse_settings
from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import regular_grid
from weatherfm.training.parallel.build_model import build_model
from weatherfm.training.parallel.layout import Layout
from weatherfm.training.parallel.role import find_role
from weatherfm.training.plan.rank_step import made_up_batch, planned_ground
from weatherfm.training.plan.simulated_rank import simulate
from weatherfm.training.run_config import RunConfig
from weatherfm.training.stepping.optimizer import build_optimizer
from weatherfm.training.stepping.step import compute_gradients, exchange, update_weights
from weatherfm.training.stepping.untouched_rows import UntouchedRows

LEVELS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
CHANNELS = [f"{name}{level}" for level in LEVELS for name in "zuvtq"][:64]
MANY = [f"{name}{level}" for level in (*range(25, 1001, 25), 10) for name in "zuvtqrw"][:256]
CPU = torch.device("cpu")


def config_of(options, channels, steps, members):
    crps = {"loss": "crps", "members": members} if members > 1 else {}
    adaptive = {"conditioning": "adaln", "noise": 16 * (members > 1)} if members else {}
    settings = {
        "run": "unused",
        "data": {"store": "unused", "source": {"kind": "planet"}, "channels": list(channels)},
        "model": {"width": options.width, "depth": options.depth, "heads": 8, "drop_path": 0.0, "position": "place"}
        | adaptive,
        "training": {"batch_size": options.batch, "lead_times": ["24h"], "rollout": {"steps": {0: steps}}} | crps,
    }
    return parse_settings(RunConfig, settings, "bench")


def domain_of(options, channels, stores=()):
    count = len(channels)
    ones, grid = np.ones(count), regular_grid(tuple(options.grid))
    return Domain(tuple(channels), grid, 0 * ones, ones, ones, stores=stores)


class Form:
    """A model, and the step that is timed."""

    def __init__(self, options, name, channels, stores=(), steps=1, members=0):
        self.name, self.config = name, config_of(options, channels, steps, members)
        self.domain = domain_of(options, channels, stores)
        role = find_role(self.config.parallel, self.config.model, self.domain, None)
        self.model = build_model(self.config, self.domain, role, CPU, torch.float32).train()
        self.ground = planned_ground(self.config, self.model, self.domain, role, CPU)
        self.ground.enter(self.model)
        self.optimizer = build_optimizer(self.model, self.config.training)
        self.batch = made_up_batch(self.config, self.model, self.ground.role)
        self.kept = UntouchedRows(self.model, self.optimizer, [self.ground.role.share]) if stores else None
        self.best = float("inf")

    def step(self):
        self.optimizer.zero_grad()
        start = time.process_time()
        scored = compute_gradients(self.model, [self.ground], [self.batch], 1, torch.float32)
        norm = exchange(self.model, scored, self.ground.role, False).gradient_norm
        untouched = None if self.kept is None else self.kept.kept([0])
        update_weights(self.model, self.optimizer, norm, self.config.training, 0, untouched)
        self.best = min(self.best, time.process_time() - start)

    def peak(self):
        """GiB of a step by plan, in float32."""
        return simulate(self.config, self.domain, Layout(1, 1, 1), torch.float32).peak / 2**30


def table(title, forms, rounds):
    for _ in range(rounds):
        for form in forms:
            form.step()
    print(f"\n{title}\n{'':<34}{'ms a step':>10}{'x':>7}{'GiB':>8}{'x':>7}")
    peaks = [form.peak() for form in forms]
    for form, peak in zip(forms, peaks, strict=True):
        times = form.best / forms[0].best, peak / peaks[0]
        print(f"{form.name:<34}{1000 * form.best:>10.0f}{times[0]:>7.2f}{peak:>8.3f}{times[1]:>7.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--grid", type=int, nargs=2, default=(32, 64))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    some = tuple(CHANNELS[3::8])
    mixed = [
        Form(options, "8 channels, a model of these", some),
        Form(options, "8 of 64, a model of 64 in a mix", CHANNELS, (some, tuple(CHANNELS))),
        Form(options, "64 of 64 in a mix", CHANNELS, (tuple(CHANNELS), some)),
    ]
    table("Stores of a mix", mixed, options.rounds)
    del mixed
    rollouts = [Form(options, f"{steps} model steps a sample", some, steps=steps) for steps in (1, 2, 4)]
    table("Rollout", rollouts, options.rounds)
    for channels in (some, MANY):
        forms = [Form(options, f"{members} of a sample", channels, members=members) for members in (1, 2, 4)]
        table(f"Members, {len(channels)} channels", forms, options.rounds)
    blocks = [peak_with_checkpointing(form) for form in rollouts]
    print("\nrollouts with activation_checkpointing: block, GiB: " + ", ".join(f"{peak:.3f}" for peak in blocks))


def peak_with_checkpointing(form):
    parallel = form.config.parallel.model_copy(update={"activation_checkpointing": "block"})
    config = form.config.model_copy(update={"parallel": parallel})
    return simulate(config, form.domain, Layout(1, 1, 1), torch.float32).peak / 2**30


if __name__ == "__main__":
    main()
