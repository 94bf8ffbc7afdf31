"""How fast a run trains here: its own steps on its own store, timed after a warm-up, and what they took on a GPU."""

from __future__ import annotations

import statistics
import time
from contextlib import closing
from dataclasses import dataclass

import torch

from weatherfm.device import choose_precision
from weatherfm.training.against_one_rank import Alive, prepare_steps
from weatherfm.training.parallel.mesh import Mesh
from weatherfm.training.ranks.coordination import Coordination
from weatherfm.training.run_config import RunConfig
from weatherfm.training.steps import Steps
from weatherfm.training.upkeep.stop_signals import StopSignals
from weatherfm.training.validating.expected import Expected
from weatherfm.training.validating.rates import known_peak, link_rate, product_rate, synchronize
from weatherfm.training.validating.table import Row

_WARM_UP = 2
_SECONDS = 15.0
"""That are spent on timed steps, if so many are allowed."""
_FEWEST, _MOST = 3, 20


@dataclass(frozen=True)
class Timed:
    """What was measured; the same on all ranks."""

    step: float
    """Seconds, the median."""
    count: int
    """Of timed steps."""
    waiting: float
    """Share of the time spent waiting for data, of the rank that waited most."""
    peak: float
    """Operations a second of all devices together in a large product."""
    promised: bool
    """`peak` is from the makers' data sheets; otherwise a product was timed."""
    link: float | None
    """Bytes a second that a rank sends in a sum over all; None where it is alone."""
    allocated: float
    """Most bytes that a rank's tensors took on a GPU; 0 on a CPU."""


def time_steps(config: RunConfig, mesh: Mesh | None, device: torch.device, alive: Alive) -> Timed:
    """Time steps of a run; all ranks together.

    Args:
        config: of the run, as large as it is.
        mesh: of the layout; None: one device.
        device: of this rank.
        alive: called now and then.
    """
    dtype, ranks = choose_precision(config.training.precision, device), Coordination()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    steps = prepare_steps(config, mesh, device, alive, stirred=False)
    seconds, waiting = _clocked(steps, device, ranks, alive)
    allocated = float(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else 0.0
    del steps
    promised, link = known_peak(device, dtype), link_rate(device)
    rate = promised or product_rate(device, dtype)

    def together(told: list[tuple[float, float, float]]) -> list[Timed]:
        shares, held, rates = zip(*told, strict=True)
        step = statistics.median(seconds)
        made = Timed(step, len(seconds), max(shares), sum(rates), promised is not None, link, max(held))
        return [made] * len(told)

    return ranks.decide(lambda: (waiting, allocated, rate), together)


def _clocked(steps: Steps, device: torch.device, ranks: Coordination, alive: Alive) -> tuple[list[float], float]:
    """Seconds of each step after the warm-up, and the share of them spent waiting for data."""
    stop, samples = StopSignals(), steps.settings.batch_size * steps.settings.accumulate
    with closing(steps.batches()) as stream:

        def one() -> float:
            begun = time.perf_counter()
            with steps.speed.step(samples):
                steps.step(steps.next_batches(stream), stop)
                steps.settle()
                synchronize(device)
            alive()
            return time.perf_counter() - begun

        last = [one() for _ in range(_WARM_UP)][-1]
        count = ranks.first_does(lambda: int(min(max(_SECONDS / last, _FEWEST), _MOST)))
        steps.speed.take()
        seconds = [one() for _ in range(count)]
    return seconds, steps.speed.take()["data_wait_share"]


def speed_rows(config: RunConfig, expected: Expected, timed: Timed, world: int) -> list[Row]:
    """Figures; nothing is asked of them, as nothing is promised."""
    samples = config.training.batch_size * config.training.accumulate / timed.step
    waiting = f"{timed.waiting:.0%} of the time, fields read from disk"
    rows = [
        _figure("a step", f"{timed.step:.3g} s, median of {timed.count}", timed.step),
        _figure("samples a second", f"{samples:.3g}", samples),
        _figure("waiting for data", waiting, timed.waiting),
    ]
    sent = float(sum(expected.step.total_sent().values()))
    if timed.link is not None:
        share = sent / timed.link / timed.step
        told = f"{share:.1%} of a step at {timed.link / 1e9:.2g} GB/s, if nothing overlaps"
        rows += [_figure("sent a step", f"{sent / 1e6:.3g} MB by the plan", sent), _figure("sending", told, share)]
    used = expected.flops / timed.step / timed.peak
    whose = "the maker's figure" if timed.promised else "a product timed here"
    told = f"{used:.1%} of {timed.peak / world / 1e12:.3g} TFLOP/s a device ({whose})"
    return [*rows, _figure("model FLOPs utilisation", told, used)]


def _figure(check: str, found: str, value: float) -> Row:
    return Row("speed", check, found, value=value)
