"""What hiding patches saves: the encoder of a masked autoencoder, its front end included, by the share that is hidden.

    OMP_NUM_THREADS=1 python tests/bench/bench_reconstruction.py
    OMP_NUM_THREADS=1 python tests/bench/bench_reconstruction.py --channels 500 --width 512 --batch 8

Processor time of one thread, forward and backward, of the fastest of some rounds, and the operations that the counter
of `weatherfm plan` sees in the same call, a multiply-add as two. `front`: tokens and aggregation; `encoder`: these and
the blocks; `step`: with decoder, output and loss. At 0 nothing is hidden, and there is nothing to decode.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import process_time

import numpy as np
import torch

from weatherfm.config import parse_settings
from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import plane_of
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.hidden_patches import visible_in_batch
from weatherfm.model.model import WeatherViT
from weatherfm.training.plan.counter import counting
from weatherfm.training.stepping.reconstruction import reconstruction_loss

RATIOS = (0.0, 0.5, 0.75, 0.9)


def build(options: argparse.Namespace, evaluate: str, ratio: float) -> WeatherViT:
    ones = np.ones(options.channels)
    domain = Domain(
        tuple(f"refl{400 + i}" for i in range(options.channels)), plane_of((options.size, options.size)),
        0 * ones, ones, ones,
    )  # fmt: skip
    settings = {
        "patch_size": options.patch, "width": options.width, "depth": options.depth, "heads": 8, "forcings": [],
        "drop_path": 0.0, "aggregation": {"evaluate": evaluate},
        "reconstruction": {"mask_ratio": ratio or 0.5, "depth": 2, "width": options.width // 2},
    }  # fmt: skip
    return WeatherViT(parse_settings(ModelConfig, settings, "bench"), domain)


def measured(options: argparse.Namespace, run: Callable[[], torch.Tensor]) -> tuple[float, float]:
    """(ms, GFLOP) of a call and its backward pass."""

    def once() -> None:
        run().square().mean().backward()

    once()
    with counting() as counter:
        once()
    times = []
    for _ in range(options.rounds):
        begin = process_time()
        once()
        times.append(process_time() - begin)
    return min(times) * 1e3, sum(counter.flops.values()) / 1e9


def rows(options: argparse.Namespace, evaluate: str, ratio: float) -> list[tuple[float, float]]:
    """Of the front end, the encoder and the step."""
    model = build(options, evaluate, ratio)
    states = torch.randn(options.batch, 1, options.channels, options.size, options.size)
    forcings, leads = states[:, 0, :0], torch.zeros(options.batch)
    N = model.tokens[0] * model.tokens[1]
    visible = None
    if ratio:
        seen = model.config.reconstruction.visible(N)
        visible = torch.from_numpy(visible_in_batch(0, 0, options.batch, N, seen))
    loss = reconstruction_loss(model.config, model.domain, {})

    def front() -> torch.Tensor:
        return model._front(states, forcings, None, visible)

    def encoder() -> torch.Tensor:
        return model._through_blocks(front(), leads, None, None, visible)

    def step() -> torch.Tensor:
        return loss(model(states, forcings, leads, visible=visible), states[:, 0], visible)

    found = [measured(options, front), measured(options, encoder)]
    return [*found, measured(options, step)] if ratio else found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (
        ("channels", 256), ("size", 64), ("patch", 4), ("width", 256), ("depth", 6), ("batch", 4), ("rounds", 4),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.manual_seed(0)
    print(
        f"{options.channels} channels, {options.size} x {options.size} pixels, patch {options.patch}, width "
        f"{options.width}, depth {options.depth}, batch {options.batch}; ms and GFLOP, in brackets over nothing hidden"
    )
    for evaluate in ("folded", "tokens"):
        print(f"{evaluate:>7} hidden |            front               |           encoder              |     step")
        whole: list[tuple[float, float]] = []
        for ratio in RATIOS:
            found = rows(options, evaluate, ratio)
            whole = whole or found
            line = f"        {ratio:6.0%} |"
            for i, (ms, flops) in enumerate(found[:2]):
                line += f" {ms:7.0f} ({ms / whole[i][0]:4.2f}) {flops:7.1f} ({flops / whole[i][1]:4.2f}) |"
            line += "" if not ratio else f" {found[2][0]:7.0f} {found[2][1]:7.1f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
