"""Memory a rank and bytes it sends a step from 1 to 16,384 ranks, all simulated, against the least there can be.

    python tests/bench/bench_plan_scaling.py              6.6 B parameters, 512 channels (a minute or two)
    python tests/bench/bench_plan_scaling.py --width 2048

Weak scaling: two samples for each group of `tp` ranks; tp to 8, then dp_shard to 128, then dp_replicate. Image
128 x 256, patch 4, depth 32, block checkpointing, bfloat16, flat folded aggregation. The least, by definition here:

    memory  16 bytes a weight (weight, gradient, two moments) over the ranks that split it, every weight over all
            tp x dp_shard; the inputs of all blocks at the rank's own positions, in float32; one batch of own channels
    sent    weights gathered twice in bfloat16 and gradients summed once in float32, over dp_shard; gradients summed in
            float32 over dp_replicate; eight messages a block over tp (two gathers and two reduce-scatters each way)
            in bfloat16. Checkpointing sends the four of the forward pass again: it is beyond the least.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from paper_model import DEPTH, PATCH, SHAPE, paper_model

from weatherfm.model.model import WeatherViT
from weatherfm.training.parallel.layout import Layout
from weatherfm.training.plan.machine import GB
from weatherfm.training.plan.simulated_rank import simulate


def layout_of(ranks, most_tp, most_shard):
    tp = min(most_tp, ranks)
    shard = min(most_shard, ranks // tp)
    return Layout(ranks // tp // shard, shard, tp)


def least(config, domain, layout):
    """(memory, sent) in bytes."""
    with torch.device("meta"):
        weights = sum(p.numel() for p in WeatherViT(config.model, domain).parameters())
    positions = SHAPE[0] * SHAPE[1] // PATCH**2
    stream = 2 * positions * config.model.width  # b N D
    batch = 2 * 2 * np.prod(SHAPE) * len(domain.channels) / layout.tp * 4
    memory = 16 * weights / (layout.tp * layout.dp_shard) + DEPTH * stream / layout.tp * 4 + batch
    part = {n: (n - 1) / n for n in (layout.tp, layout.dp_shard, layout.dp_replicate)}
    sent = part[layout.dp_shard] * weights / layout.tp * (2 + 2 + 4)
    sent += 2 * part[layout.dp_replicate] * weights / (layout.tp * layout.dp_shard) * 4
    return memory, sent + DEPTH * 8 * part[layout.tp] * stream * 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument(
        "--ranks", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384]
    )
    parser.add_argument("--tp", type=int, default=8)
    parser.add_argument("--shard", type=int, default=128)
    options = parser.parse_args()
    print(f"width {options.width}, {options.channels} channels; GB a rank")
    print(" ranks layout                      |    held   least ratio |    sent   least ratio | simulated in")
    for ranks in options.ranks:
        layout = layout_of(ranks, options.tp, options.shard)
        config, domain = paper_model(options.width, options.channels, layout)
        start = time.perf_counter()
        count = simulate(config, domain, layout)
        seconds = time.perf_counter() - start
        memory, traffic = least(config, domain, layout)
        sent = sum(count.total_sent().values())
        ratio = f"{sent / traffic:5.2f}" if traffic else "    -"
        row = f"{ranks:6} {layout!s:<27} | {count.peak / GB:7.2f} {memory / GB:7.2f} {count.peak / memory:5.2f} "
        print(f"{row}| {sent / GB:7.2f} {traffic / GB:7.2f} {ratio} | {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
