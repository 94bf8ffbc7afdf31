"""One real rank of a large layout on one device: peak memory and time of a step, its peers replaced by silence.

    python tests/bench/bench_rank.py --device cuda                       1.7 B parameters, 1,024 channels, tp 8
    python tests/bench/bench_rank.py --width 128 --depth 2 --heads 4 --channels 64 --tp 4 --grid 32 64   on a CPU

Beside the memory stands the peak that `weatherfm plan` simulates for the same rank (of one step; no optimizer kernels'
workspace). `reserved` is what a GPU's allocator takes for it, which is what must fit.
"""

from __future__ import annotations

import argparse
import gc

import torch
from one_rank import measure_rank
from paper_model import DEPTH, FORMS, HEADS, SHAPE, paper_model

from weatherfm.training.parallel.layout import Layout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=1024)
    parser.add_argument("--tp", type=int, default=8)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--depth", type=int, default=DEPTH)
    parser.add_argument("--heads", type=int, default=HEADS)
    parser.add_argument("--grid", type=int, nargs=2, default=list(SHAPE))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--block-mib", type=float, default=64.0)
    parser.add_argument("--checkpointing", default="block")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS))
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {options}")
    print("form                   |  GB held  reserved  simulated | s a step  samples/s | s front end")
    layout = Layout(1, 1, options.tp)
    for form in options.forms:
        changed = {"depth": options.depth, "heads": options.heads, "shape": options.grid, "samples": options.batch}
        config, domain = paper_model(
            options.width, options.channels, layout, form, options.block_mib, options.checkpointing, **changed
        )
        try:
            found = measure_rank(config, domain, layout, options.device, options.repeats, options.compile)
        except torch.OutOfMemoryError:
            print(f"{form:22} | out of memory", flush=True)
            continue
        finally:
            gc.collect()
            if options.device.startswith("cuda"):
                torch.cuda.empty_cache()
        row = f"{form:22} | {found.allocated / 1e9:8.2f} {found.reserved / 1e9:9.2f} {found.simulated / 1e9:10.2f} | "
        row += f"{found.seconds:8.3f} {options.batch / found.seconds:10.2f} | {found.parts['front']:10.3f}"
        print(row, flush=True)


if __name__ == "__main__":
    main()
