"""One real rank of a large layout on one device: peak memory and time of a step, its peers replaced by silence.

    python tests/bench/bench_rank.py --device cuda                       1.7 B parameters, 1,024 channels, tp 8
    python tests/bench/bench_rank.py --width 128 --depth 2 --heads 4 --channels 64 --tp 4 --grid 32 64   on a CPU

Collectives go to PyTorch's fake process group: buffers have the right shapes, nothing is sent, values are rubbish. So
the memory is that of a real rank, and the time is that of a step whose messages cost nothing. Beside it stands the
peak that `weatherfm plan` simulates for the same rank (of one step; no optimizer kernels' workspace).
"""

from __future__ import annotations

import argparse
import gc
import time

import torch
import torch.distributed as dist
from paper_model import DEPTH, FORMS, HEADS, SHAPE, paper_model
from torch.testing._internal.distributed.fake_pg import FakeStore

from weatherfm.training.build import plan_model
from weatherfm.training.layout import Layout
from weatherfm.training.loss import forecast_loss
from weatherfm.training.mesh import build_mesh
from weatherfm.training.optimizer import build_optimizer
from weatherfm.training.plan.rank_step import made_up_batch
from weatherfm.training.plan.simulate import simulate
from weatherfm.training.role import find_role
from weatherfm.training.step import compute_gradients, exchange, update_weights


def measure(options, form):
    """Bytes at the peak, and seconds of a step."""
    layout = Layout(1, 1, options.tp)
    config, domain = paper_model(
        options.width,
        options.channels,
        layout,
        form,
        options.block_mib,
        options.checkpointing,
        depth=options.depth,
        heads=options.heads,
        shape=options.grid,
        samples=options.batch,
    )
    expected = simulate(config, domain, layout, torch.bfloat16).peak
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=layout.devices)
    try:
        role = find_role(config.parallel, config.model, domain, build_mesh(layout, options.device))
        model = plan_model(config, domain, role, torch.bfloat16)
        model.to_empty(device=options.device)
        model.set_statistics()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.to_local().fill_(0.01) if hasattr(parameter, "to_local") else parameter.fill_(0.01)
        loss = forecast_loss(config.model, domain, {}, None, role.share.channels).to(options.device)
        optimizer = build_optimizer(model, config.training)
        batch = made_up_batch(config, model, role)

        def step():
            optimizer.zero_grad()
            losses = compute_gradients(model, loss, [batch], 1, role, torch.bfloat16)
            update_weights(model, optimizer, exchange(model, losses, role, False).gradient_norm, config.training, 0)

        cuda = options.device.startswith("cuda")
        step()
        seconds = float("inf")
        for _ in range(options.repeats):
            start = time.perf_counter()
            step()
            if cuda:
                torch.cuda.synchronize()
            seconds = min(seconds, time.perf_counter() - start)
        return torch.cuda.max_memory_allocated() if cuda else float("nan"), expected, seconds
    finally:
        dist.destroy_process_group()


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
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS))
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {options}")
    print("form                   |  GB held  simulated | s a step  samples/s")
    for form in options.forms:
        try:
            held, expected, seconds = measure(options, form)
        except torch.OutOfMemoryError:
            print(f"{form:22} | out of memory", flush=True)
            continue
        finally:
            gc.collect()
            if options.device.startswith("cuda"):
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
        row = f"{form:22} | {held / 1e9:8.2f} {expected / 1e9:10.2f} | {seconds:8.3f} {options.batch / seconds:10.2f}"
        print(row, flush=True)


if __name__ == "__main__":
    main()
