"""Folded against token evaluation of cross-channel aggregation: time and peak memory, forward + backward.

    python tests/bench/bench_aggregation.py                 the table of the README (about ten minutes on 2 cores)
    python tests/bench/bench_aggregation.py --device cuda   on a GPU
    python tests/bench/bench_aggregation.py --channels 48 --width 512 --patch 4

Both forms run side by side in one process, same parameters, same input; time is the best of some repeats, on a CPU that
of the processor, which other work on the machine does not count into.
Peak memory is what the step allocates beyond parameters, gradients and input: the allocator's own count on a
GPU, a count of live tensors on a CPU.
"""

from __future__ import annotations

import argparse
import gc
import time
from itertools import accumulate

import torch

from weatherfm.model.aggregation import AggregationConfig, ChannelAttention
from weatherfm.model.tokenizer import ChannelTokenizer
from weatherfm.training.plan.counter import counting


def build(form, channels, width, heads, patch_values, block_mib, device):
    torch.manual_seed(0)
    tokenizer = ChannelTokenizer(channels, patch_values, width)
    config = AggregationConfig(evaluate=form, block_mib=block_mib)
    attention = ChannelAttention(width, heads, config, channels)
    for parameter in (attention.latent, tokenizer.weight, tokenizer.embedding):
        torch.nn.init.normal_(parameter)
    return tokenizer.to(device), attention.to(device)


def step(tokenizer, attention, patches):
    for parameter in [*tokenizer.parameters(), *attention.parameters()]:
        parameter.grad = None
    attention(patches, tokenizer).square().mean().backward()


def measure(tokenizer, attention, patches, repeats):
    cuda = patches.is_cuda
    step(tokenizer, attention, patches)
    best = float("inf")
    clock = time.perf_counter if cuda else time.process_time
    for _ in range(repeats):
        start = clock()
        step(tokenizer, attention, patches)
        if cuda:
            torch.cuda.synchronize()
        best = min(best, clock() - start)
    gc.collect()
    for parameter in [*tokenizer.parameters(), *attention.parameters()]:
        parameter.grad = None
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(tokenizer, attention, patches)
        return best, torch.cuda.max_memory_allocated() - before
    with counting() as counter:
        counter.hold("given", [*tokenizer.parameters(), *attention.parameters(), patches])
        given = sum(event.change for event in counter.events)
        step(tokenizer, attention, patches)
    return best, max(accumulate(event.change for event in counter.events)) - given


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 48, 80, 256])
    parser.add_argument("--width", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--patch", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--grid", type=int, nargs=2, default=[32, 64])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--block-mib", type=float, help="by default auto")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options}")
    print("   C     D patch |  tokens s      MiB |  folded s      MiB |  faster  less memory")
    for width in options.width:
        for patch in options.patch:
            for channels in options.channels:
                positions = options.grid[0] * options.grid[1] // patch**2
                patches = torch.randn(options.batch, positions, channels, patch**2, device=options.device)
                rows = {}
                for form in ("tokens", "folded"):
                    modules = build(
                        form, channels, width, width // 64, patch**2, options.block_mib or "auto", options.device
                    )
                    rows[form] = measure(*modules, patches, options.repeats)
                (slow, much), (fast, little) = rows["tokens"], rows["folded"]
                row = f"{channels:4} {width:5} {patch:5} | {slow:9.3f} {much / 2**20:8.0f} | "
                row += f"{fast:9.3f} {little / 2**20:8.0f} | {slow / fast:6.1f}x {much / little:11.1f}x"
                print(row, flush=True)


if __name__ == "__main__":
    main()
