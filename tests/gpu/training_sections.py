"""Training on a GPU: graphs, memory beside the plan, samples a second of every form, share of the peak, blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from one_rank import Figures, measure_rank
from paper_model import paper_model
from table import GB, Row, Settings
from torch._dynamo.utils import counters

from weatherfm.model.aggregation import AggregationConfig, ChannelAttention
from weatherfm.model.tokenizer import ChannelTokenizer
from weatherfm.training.parallel.layout import Layout

FORMS = ("tp alone", "D-CHAG-C", "D-CHAG-L", "flat folded")


def measured(settings: Settings, channels: int, tp: int, form: str, compile: bool = False, **changed) -> Figures:
    """One rank of `tp` of the 1.7 B model (D 2048, depth 32, 2,048 positions, two samples), peers replaced."""
    sizes = settings.size({}, {"depth": 4, "heads": 8, "shape": (32, 64)}) | changed
    width, checkpointing = settings.size(2048, 128), sizes.pop("checkpointing", "block")
    config, domain = paper_model(width, channels, Layout(1, 1, tp), form, "auto", checkpointing, **sizes)
    return measure_rank(config, domain, Layout(1, 1, tp), settings.device, settings.size(5, 1), compile)


def forms(settings: Settings, channels: int, tp: int) -> Iterator[tuple[str, str, Figures | None]]:
    """(form, what the table calls it, figures) of every form; None where the device's memory is too small."""
    for form in FORMS:
        try:
            found = measured(settings, channels, tp, form)
        except torch.OutOfMemoryError:
            found = None
        yield form, f"{form}, C {channels}, tp {tp}", found


def graphs(settings: Settings) -> Iterator[Row]:
    """Compiled graphs in every mode of checkpointing, and what compilation gives."""
    for mode in ("none", "block", "selective"):
        torch._dynamo.reset()
        counters.clear()
        sizes = {"checkpointing": mode, "depth": settings.size(8, 2)}
        compiled = measured(settings, settings.size(128, 8), 1, "flat folded", True, **sizes)
        count, breaks = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
        eager = measured(settings, settings.size(128, 8), 1, "flat folded", False, **sizes)
        value = f"{count} graphs, {breaks} breaks, {eager.seconds / compiled.seconds:.2f} times eager's speed"
        yield Row(mode, value, "at least 1 graph, no break", count >= 1 and not breaks)


def memory(settings: Settings) -> Iterator[Row]:
    """Peak of one `tp` rank of the 1.7 B model of 1,024 channels, beside what the plan says."""
    channels, tp = settings.size(1024, 32), settings.size(8, 4)
    for _, what, found in forms(settings, channels, tp):
        if found is None:
            yield Row(what, "out of memory")
            continue
        ratio = found.allocated / found.simulated
        held = [found.allocated / GB, found.reserved / GB, found.simulated / GB]
        value = "{:.2f} GB live, {:.2f} reserved, {:.2f} planned".format(*held)
        yield Row(what, value, "live within 10 % of the plan", 0.9 < ratio < 1.1)


def speed(settings: Settings) -> Iterator[Row]:
    """Samples a second of a rank whose messages cost nothing, every form at three numbers of channels."""
    tp = settings.size(8, 4)
    for channels in settings.size((128, 512, 1024), (8, 16, 32)):
        alone = None
        for form, what, found in forms(settings, channels, tp):
            if found is None:
                yield Row(what, "out of memory")
                continue
            rate = 2 / found.seconds
            alone = rate if form == "tp alone" else alone
            shares = [found.utilisation(settings.peak_flops, front) for front in (False, True)]
            value = f"{rate:.2f} samples/s, MFU {shares[0]:.0%} without the front end, {shares[1]:.0%} in it"
            times = "" if alone is None or form == "tp alone" else f"; {rate / alone:.2f} times tp alone"
            aimed = form == "flat folded" and channels >= 512 and alone is not None
            good = rate / alone >= 3 if aimed and alone else None
            yield Row(what, value + times, "3 times tp alone" if aimed else "", good)


def utilisation(settings: Settings) -> Iterator[Row]:
    """Share of the peak on one device: D 2048, depth 32, 2,048 positions, bfloat16."""
    for compile, mode in ((False, "block"), (True, "block"), (True, "none")):
        sizes = {"checkpointing": mode, "samples": settings.size(2 if mode == "none" else 8, 1)}
        try:
            found = measured(settings, settings.size(128, 8), 1, "flat folded", compile, **sizes)
        except torch.OutOfMemoryError:
            yield Row(f"compile {compile}, checkpointing {mode}", "out of memory")
            continue
        total = sum(found.flops.values()) / found.seconds / settings.peak_flops
        value = f"MFU {total:.1%}, {found.utilisation(settings.peak_flops, False):.1%} without the front end"
        value += f", {found.utilisation(settings.peak_flops, True):.1%} in it; {found.seconds * 1e3:.0f} ms a step"
        good = total >= 0.5 if compile and total == total else None  # unknown on a device of unknown peak
        yield Row(f"compile {compile}, checkpointing {mode}", value, "50 %" if compile else "", good)


def block_sizes(settings: Settings) -> Iterator[Row]:
    """Milliseconds of the front end, forward and backward, by `model.aggregation.block_mib`."""
    C, D, N = settings.size((128, 2048, 4096), (16, 64, 128))
    device = torch.device(settings.device)
    tokenizer = ChannelTokenizer(C, 16, D).to(device)
    patches = torch.randn(1, N, C, 16, device=device)
    for mib in settings.size((8, 16, 32, 64, 128, 256, 512), (0.1, 1)):
        attention = ChannelAttention(D, D // 64, AggregationConfig(block_mib=mib), C).to(device)
        torch.nn.init.normal_(attention.latent)

        def step(attention=attention) -> None:
            with torch.autocast(device.type, torch.bfloat16):
                out = attention(patches, tokenizer)
            out.backward(torch.ones_like(out))

        yield Row(f"C {C}, D {D}, {N} positions, {mib:g} MiB", f"{milliseconds(step, device):.2f} ms")


def milliseconds(work, device: torch.device, repeats: int = 5) -> float:
    """The best of some repeats."""
    best = float("inf")
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best * 1e3
