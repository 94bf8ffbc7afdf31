"""Peak memory a rank for the configurations of the D-CHAG paper (arXiv 2506.21411, their figures in brackets).

    python tests/bench/bench_plan_paper.py            the table (a minute or two; no GPU, no ranks: all are simulated)
    python tests/bench/bench_plan_paper.py --parts    and what the peak consists of, and FLOPs by part

Image 128 x 256, patch 4, micro-batch 2, depth 32, 32 heads, MLP ratio 4, bfloat16, Adam, block checkpointing, tensor
parallelism only. Counted are live tensors of the heaviest rank; the paper gives memory reserved by the allocator, which
is more: gaps between tensors, kernels' workspaces. `flat tokens` distributes the channels and makes their tokens all
the same, so that what distribution saves stands apart from what folding does.

Below stands their masked autoencoder of 7 B weights on pictures of 500 channels (`paper_model.py`), at the two layouts
that they give figures of. They make tokens of all patches and hide some after the aggregation; here tokens are made of
those alone that are seen. The last number is of their form where (nearly) all patches are seen: what making tokens of
all takes, since most is held in the front end.
"""

from __future__ import annotations

import argparse

from paper_model import PICTURES, paper_model

from weatherfm.training.parallel.layout import Layout
from weatherfm.training.plan.machine import GB
from weatherfm.training.plan.plan_as_text import memory_groups
from weatherfm.training.plan.simulated_rank import simulate

SHOWN = ("tp alone", "D-CHAG-C", "D-CHAG-L", "flat tokens", "flat folded")
PAPER = [  # width, channels, tp; GB of tensor parallelism alone, D-CHAG-C, D-CHAG-L
    (2048, 512, 2, 52.5, 52.8, 32.4),
    (2048, 1024, 8, 62.0, 24.1, 14.0),
    (4096, 512, 16, 61.0, 24.4, 18.3),
    (6144, 256, 16, 62.8, 35.5, 28.4),
    (8192, 128, 16, 62.7, 50.6, 43.9),
    (8192, 256, 32, None, 39.2, 33.8),
]
MASKED = [(Layout(1, 2, 8), "tp alone", 62.7), (Layout(1, 4, 2), "D-CHAG-L", 48.2)]  # their form; GB


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--block-mib", type=float, default=16.0)
    parser.add_argument("--parts", action="store_true")
    options = parser.parse_args()
    print(f"GB a rank, in brackets the paper's; folded in blocks of {options.block_mib:g} MiB")
    print(
        "    D     C  tp |      tp alone |     D-CHAG-C |     D-CHAG-L | flat tokens | flat folded  saved | "
        "front end: memory FLOPs"
    )
    for width, channels, tp, *published in PAPER:
        layout = Layout(1, 1, tp)
        runs = {form: paper_model(width, channels, layout, form, options.block_mib) for form in SHOWN}
        counts = {form: simulate(*run, layout) for form, run in runs.items()}
        row = f"{width:5} {channels:5} {tp:3} |"
        for name, paper in zip(SHOWN[:3], published, strict=True):
            cell = f"{counts[name].peak / GB:.1f} ({'-' if paper is None else paper})"
            row += f"{cell:>{14 if name == 'tp alone' else 13}} |"
        row += f"{counts['flat tokens'].peak / GB:12.1f} |"
        flat = counts["flat folded"]
        flops = flat.total_flops()
        row += f"{flat.peak / GB:12.2f} {1 - flat.peak / counts['tp alone'].peak:6.0%} |"
        row += f"{memory_groups(flat)['front'] / flat.peak:18.1%} {flops['front'] / sum(flops.values()):5.1%}"
        print(row, flush=True)
        if options.parts:
            for name, counted in counts.items():
                parts = ", ".join(f"{k} {v / GB:.2f}" for k, v in memory_groups(counted).items())
                tera = ", ".join(f"{k} {v / 1e12:.2f}" for k, v in sorted(counted.total_flops().items()) if v > 1e9)
                sent = ", ".join(f"{kind} {v / GB:.2f}" for (_, kind), v in sorted(counted.total_sent().items()) if v)
                print(f"        {name}: {parts}; TFLOP {tera}; GB sent {sent}; peak in {counted.peak_moment[:2]}")
    print("masked autoencoder: 192 x 384 pixels, patch 6, 500 channels, width 4096, a quarter of the patches seen")
    for layout, theirs, published in MASKED:
        runs = {form: paper_model(4096, 500, layout, form, options.block_mib, **PICTURES) for form in SHOWN}
        counts = {form: simulate(*run, layout) for form, run in runs.items()}
        cells = [
            f"{form} {count.peak / GB:.1f}{f' ({published})' if form == theirs else ''}"
            for form, count in counts.items()
        ]
        whole = PICTURES | {"masked": PICTURES["masked"] | {"mask_ratio": 8 / 2048}}
        config, domain = paper_model(4096, 500, layout, theirs, options.block_mib, **whole)
        tokens = config.model.aggregation.model_copy(update={"evaluate": "tokens"})
        config = config.model_copy(update={"model": config.model.model_copy(update={"aggregation": tokens})})
        cells.append(f"{theirs} with tokens of all patches {simulate(config, domain, layout).peak / GB:.1f}")
        print(f"  tp {layout.tp} x fsdp {layout.dp_shard}: {', '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
