"""Memory and operations of windows against global attention at 0.25 degrees, and on up to 16,384 simulated ranks.

    python tests/bench/bench_windows.py              both tables (some ten seconds of processor time a row)
    python tests/bench/bench_windows.py --width 1024

Grid 721 x 1440, 84 channels in and out, flat folded aggregation, bfloat16, one sample a device or group of `tp`; blocks
of width 1024, 16 deep, 16 heads by default. All is counted by the simulation behind `weatherfm plan`: live tensors of
the heaviest rank at the peak, and operations (a multiply-add is two) of one step of one device, with checkpointing
`block` those of the second forward pass too. A kernel of attention is taken to keep no scores, as flash attention does.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from weatherfm.config import parse_settings
from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import regular_grid
from weatherfm.training.parallel.layout import Layout, check_layout
from weatherfm.training.plan.machine import GB
from weatherfm.training.plan.simulated_rank import simulate
from weatherfm.training.run_config import RunConfig

SHAPE = (721, 1440)
ATTENTION = {
    "global": {},
    "8 x 8": {"backbone": "windows", "windows": {"size": 8}},
    "8 x 8, every 4th global": {"backbone": "windows", "windows": {"size": 8, "global_every": 4}},
    "16 x 16": {"backbone": "windows", "windows": {"size": 16}},
}


def model_at_a_quarter_degree(options, patch, attention, layout, checkpointing):
    """A run and its domain."""
    settings = {
        "run": "unused",
        "data": {"store": "unused", "source": {"kind": "planet"}, "channels": ["z500"]},
        "model": {
            "patch_size": patch,
            "width": options.width,
            "depth": options.depth,
            "heads": options.heads,
            "forcings": [],
            "drop_path": 0.0,
        }
        | ATTENTION[attention],
        "training": {"batch_size": layout.dp},
        "parallel": {"activation_checkpointing": checkpointing},
    }
    config, ones = parse_settings(RunConfig, settings, attention), np.ones(options.channels)
    domain = Domain(tuple(f"c{i}" for i in range(options.channels)), regular_grid(SHAPE), ones, ones, ones)
    check_layout(layout, config.parallel, config.model, domain, config.training.batch_size)
    return config, domain


def counted(*arguments):
    """(the count, seconds that it took)."""
    config, domain = model_at_a_quarter_degree(*arguments)
    start = time.perf_counter()
    return simulate(config, domain, arguments[3]), time.perf_counter() - start


def against_global_attention(options):
    print("| patch | positions | attention | checkpointing | GB | blocks TFLOP | step TFLOP | of global |")
    print("|---|---|---|---|---|---|---|---|")
    for patch in (4, 8):
        positions = -(-SHAPE[0] // patch) * (SHAPE[1] // patch)
        for checkpointing in ("none", "block"):
            whole = None
            for attention in ATTENTION:
                count, _ = counted(options, patch, attention, Layout(1, 1, 1), checkpointing)
                flops = count.total_flops()
                step = sum(flops.values()) / 1e12
                whole = whole or step
                row = f"| {patch} | {positions:,} | {attention} | {checkpointing} | {count.peak / GB:.1f} "
                print(f"{row}| {flops['blocks'] / 1e12:.1f} | {step:.1f} | {step / whole:.0%} |", flush=True)


def on_many_ranks(options):
    print("| ranks | layout | attention | GB | TFLOP | sent, GB | simulated in |")
    print("|---|---|---|---|---|---|---|")
    for layout in (Layout(1, 1, 1), Layout(1, 1, 8), Layout(1, 16, 8), Layout(16, 128, 8)):
        for attention in ("global", "8 x 8"):
            count, seconds = counted(options, 4, attention, layout, "block")
            sent = sum(count.total_sent().values()) / GB
            flops = sum(count.total_flops().values()) / 1e12
            row = f"| {layout.devices:,} | {layout} | {attention} | {count.peak / GB:.1f} | {flops:.1f} "
            print(f"{row}| {sent:.1f} | {seconds:.0f} s |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--channels", type=int, default=84)
    options = parser.parse_args()
    against_global_attention(options)
    print()
    on_many_ranks(options)


if __name__ == "__main__":
    main()
