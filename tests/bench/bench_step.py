"""A whole training step with folded and with token aggregation, beside the counted bound 1 + C / (6 depth).

    python tests/bench/bench_step.py                              C = 48 to 1,024 on a CPU
    python tests/bench/bench_step.py --device cuda --width 1024 --grid 64 128 --batch 8

Both forms run side by side in one process, same parameters, same input: forward, backward and AdamW; on a CPU in time
of the processor, which other work on the machine does not count into. `front` is the time of tokenizer and aggregation,
forward and backward, as a share of the step. `bound` counts multiply-adds of matrix products per position, 2 C D^2 for
keys and values against 12 depth D^2 for the blocks, and nothing else; `counted` is the ratio of all products of a step,
those of the folded form, of multiplying the parameters out, and of the head among them.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import regular_grid
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.model import WeatherViT
from weatherfm.training.plan.counter import counting


def build(options, channels, form):
    grid = regular_grid(tuple(options.grid))
    names = tuple(f"c{i}" for i in range(channels))
    domain = Domain(names, grid, np.zeros(channels), np.ones(channels), np.ones(channels))
    config = ModelConfig(
        patch_size=options.patch,
        width=options.width,
        depth=options.depth,
        heads=options.width // 64,
        drop_path=0.0,
        forcings=[],
        aggregation={"evaluate": form, "block_mib": options.block_mib or "auto"},
    )
    model = WeatherViT(config, domain).to(options.device)
    torch.nn.init.normal_(model.aggregation.latent)
    return model


def synchronise(device):
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def timed(work, device, repeats):
    work()
    best = float("inf")
    clock = time.perf_counter if device.startswith("cuda") else time.process_time
    for _ in range(repeats):
        synchronise(device)
        start = clock()
        work()
        synchronise(device)
        best = min(best, clock() - start)
    return best


def measure(options, channels, form):
    """Seconds of a whole step and of its front end, and the operations of its matrix products."""
    torch.manual_seed(0)
    model, device = build(options, channels, form), options.device
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    H, W = options.grid
    history = torch.randn(options.batch, 1, channels, H, W, device=device)
    forcings, lead = torch.zeros(options.batch, 0, H, W, device=device), torch.full((options.batch,), 24, device=device)
    positions = model.tokens[0] * model.tokens[1]
    patches = torch.randn(options.batch, positions, channels, options.patch**2, device=device)
    low = torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=options.bfloat16)

    def step():
        optimizer.zero_grad()
        with low:
            loss = model(history, forcings, lead).square().mean()
        loss.backward()
        optimizer.step()

    def front():
        for parameter in (*model.tokenizer.parameters(), *model.aggregation.parameters()):
            parameter.grad = None
        with low:
            out = model.aggregation(patches, model.tokenizer)
        out.backward(torch.ones_like(out))

    seconds = timed(step, device, options.repeats), timed(front, device, options.repeats)
    with counting() as counter:
        step()
    return *seconds, sum(counter.flops.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[48, 128, 256, 512, 1024])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--patch", type=int, default=4)
    parser.add_argument("--grid", type=int, nargs=2, default=[32, 64])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--block-mib", type=float, help="by default auto")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options}")
    print("    C | tokens s  front | folded s  front |  faster counted  bound")
    for channels in options.channels:
        slow, slow_front, many = measure(options, channels, "tokens")
        fast, fast_front, few = measure(options, channels, "folded")
        row = f"{channels:5} | {slow:8.3f} {slow_front / slow:5.0%}  | {fast:8.3f} {fast_front / fast:5.1%} | "
        bound = 1 + channels / (6 * options.depth)
        print(f"{row}{slow / fast:6.2f}x {many / few:6.2f}x {bound:6.2f}x", flush=True)


if __name__ == "__main__":
    main()
