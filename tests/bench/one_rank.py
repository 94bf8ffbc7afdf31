"""One real rank of a large layout on one device: what a step of it holds and how long its parts take.

Its peers are replaced by silence: collectives go to PyTorch's fake process group, buffers have the right shapes,
nothing is sent, values are rubbish. So the memory is that of a real rank, and the time is that of a step whose messages
cost nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from weatherfm.config import parse_settings
from weatherfm.training.parallel.build_model import meta_model
from weatherfm.training.parallel.mesh import build_mesh
from weatherfm.training.parallel.role import find_role
from weatherfm.training.plan.model_parts import telling
from weatherfm.training.plan.rank_step import made_up_batch
from weatherfm.training.plan.simulated_rank import simulate
from weatherfm.training.run_config import RunConfig
from weatherfm.training.stepping.loss import forecast_loss
from weatherfm.training.stepping.optimizer import build_optimizer
from weatherfm.training.stepping.step import Ground, compute_gradients, exchange, update_weights


@dataclass
class Figures:
    """Of one rank's step."""

    simulated: float
    """Bytes at the peak, by `weatherfm plan`."""
    allocated: float = float("nan")
    """Bytes of live tensors at the peak, by the GPU's allocator."""
    reserved: float = float("nan")
    """Bytes that the allocator has taken from the GPU for it."""
    seconds: float = float("nan")
    """Of a step."""
    parts: Counter = field(default_factory=Counter)
    """Seconds by part of the model, forward and backward."""
    flops: Counter = field(default_factory=Counter)
    """Operations of the model by part, nothing made again."""

    def utilisation(self, peak_flops: float, front: bool) -> float:
        """Share of the device's peak that the model's own operations reach; of the front end, or of all else."""
        total = sum(self.flops.values())
        flops = self.flops["front"] if front else total - self.flops["front"]
        seconds = self.parts["front"] if front else self.seconds - self.parts["front"]
        return flops / seconds / peak_flops


class _Clock:
    """Takes `moment` as `telling` gives it, and notes when."""

    def __init__(self, device: str) -> None:
        self._cuda, self._marks = device.startswith("cuda"), []

    def _mark(self, part: str) -> None:
        mark = time.perf_counter()
        if self._cuda:
            mark = torch.cuda.Event(enable_timing=True)
            mark.record()
        self._marks.append((part, mark))

    moment = property(fset=lambda self, moment: self._mark(moment[1]))

    def parts(self) -> Counter:
        """Seconds by part, the last mark being the end."""
        self._mark("end")
        if self._cuda:
            torch.cuda.synchronize()
        found: Counter = Counter()
        for (part, start), (_, end) in zip(self._marks, self._marks[1:], strict=False):
            found[part] += start.elapsed_time(end) / 1e3 if self._cuda else end - start
        return found


def measure_rank(config, domain, layout, device: str, repeats: int = 3, compile: bool = False) -> Figures:
    """Take some steps of the first rank of a layout on a device; raises torch.OutOfMemoryError."""
    torch._dynamo.reset()  # what was compiled for models before this one would count against it
    plain = config.model_dump(mode="json")
    plain["training"]["compile"] = compile
    config = parse_settings(RunConfig, plain, "one rank")
    plain["parallel"]["activation_checkpointing"] = "none"
    figures = Figures(simulate(config, domain, layout).peak)
    figures.flops = simulate(parse_settings(RunConfig, plain, "one rank"), domain, layout).total_flops()
    with _silent_peers(layout, device) as mesh:
        _measure(config, domain, mesh, device, repeats, figures)
    return figures


@contextmanager
def _silent_peers(layout, device: str):
    if layout.devices == 1:
        yield None
        return
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=layout.devices)
    try:
        yield build_mesh(layout, device)
    finally:
        dist.destroy_process_group()


def _measure(config, domain, mesh, device: str, repeats: int, figures: Figures) -> None:
    cuda, low = device.startswith("cuda"), torch.bfloat16
    role = find_role(config.parallel, config.model, domain, mesh)
    model = meta_model(config, domain, role, low)
    model.to_empty(device=device)
    model.set_statistics()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.to_local().fill_(0.01) if hasattr(parameter, "to_local") else parameter.fill_(0.01)
    loss = forecast_loss(config.model, domain, {}, None, role.share).to(device)
    optimizer = build_optimizer(model, config.training)
    batch = made_up_batch(config, model, role)

    def step() -> None:
        optimizer.zero_grad()
        scored = compute_gradients(model, [Ground(loss, role)], [batch], 1, low)
        update_weights(model, optimizer, exchange(model, scored, role, False).gradient_norm, config.training, 0)

    def timed() -> float:
        start = time.perf_counter()
        step()
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    step()  # kernels are chosen, memory is taken, blocks are compiled
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    figures.seconds = min(timed() for _ in range(repeats))
    if cuda:
        figures.allocated, figures.reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    clock = _Clock(device)
    with telling(model, clock):  # type: ignore[arg-type]  # it wants what has a moment
        compute_gradients(model, [Ground(loss, role)], [batch], 1, low)
        figures.parts = clock.parts()
