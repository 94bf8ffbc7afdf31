"""`weatherfm validate`: do these devices compute one rank's function, in the memory planned, how fast, do they go on?

All ranks of the job call it together; the steps are the trainer's, on the run's own store. The plan is asked by rank 0
before there is a process group, which simulated ranks would disturb.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from weatherfm.device import apply_precision, choose_device, choose_precision
from weatherfm.errors import InputError
from weatherfm.training.against_one_rank import function_rows
from weatherfm.training.feeding.store_checks import check_parts
from weatherfm.training.parallel.layout import Layout
from weatherfm.training.parallel.mesh import Mesh, build_mesh
from weatherfm.training.parts import open_parts
from weatherfm.training.ranks.coordination import Coordination
from weatherfm.training.ranks.job import Job, join_job
from weatherfm.training.ranks.process_group import join
from weatherfm.training.run_config import RunConfig
from weatherfm.training.save_and_resume import folder_beside, resume_row
from weatherfm.training.starting.run_start import RunStart, choose_layout_of, find_start
from weatherfm.training.stepping.grounds import require_losses
from weatherfm.training.timed_steps import speed_rows, time_steps
from weatherfm.training.upkeep.stop_signals import sigterm_interrupts
from weatherfm.training.validating.expected import Expected, expect
from weatherfm.training.validating.memory import counted_peak, memory_row
from weatherfm.training.validating.shortened import short, what_is_smaller, with_chance_of, without_chance
from weatherfm.training.validating.table import Row, Validation

_log = logging.getLogger(__name__)


def validate_run(config: RunConfig) -> Validation | None:
    """Validate a run on the ranks that were started, or in this process alone; its folder is not touched.

    Returns:
        What was found, on rank 0; None on the others.

    Raises:
        InputError: settings, layout and store that do not go together, as of `train`; or a model of which one rank
            alone cannot hold even a part.
        OutsideError: a rank is gone, or stands still.
    """
    device = choose_device(config.training.device)
    apply_precision(config.training.precision)
    run, clock = short(config), _Clock()
    with ExitStack() as held, join_job() as job:
        if job.world == 1:  # of ranks, a launcher hears it
            held.enter_context(sigterm_interrupts())
        with clock.phase("memory", job.first, "asking the plan"):
            start, layout, expected = job.first_checks(lambda: _check(run, device, job))
        with join(device, config.parallel.timeout):
            mesh = build_mesh(layout, device.type) if layout.devices > 1 else None
            compared = Coordination().first_does(lambda: None if expected is None else expected.compared)
            assert compared is not None  # `_check` refuses
            rows = _on_ranks(start, compared, expected, mesh, device, job, clock)
            beside = Coordination().first_does(lambda: held.enter_context(folder_beside(config.folder)))
        with clock.phase("resume", job.first, "saving, and going on from there"):
            resumed = resume_row(with_chance_of(run, compared), Path(beside), job.first)
    if resumed is None:
        return None
    words = f"{layout} on {layout.devices} x {device.type}"
    if smaller := what_is_smaller(run, compared):
        words += f"; compared and resumed with {smaller}, as one rank alone cannot take all"
    return Validation(words, str(layout), layout.devices, (*rows, resumed), clock.seconds)


def _check(run: RunConfig, device: torch.device, job: Job) -> tuple[RunStart, Layout, Expected | None]:
    """What is refused before anything is computed, and on rank 0 what the plan says."""
    parts = open_parts(run)
    check_parts(run, parts)
    require_losses(parts)
    start = find_start(run, parts)
    layout = choose_layout_of(start, parts, job.world)
    if not job.first:
        return start, layout, None
    dtype = choose_precision(run.training.precision, device)
    few = without_chance(short(run, compile=False, accumulate=min(2, run.training.accumulate)))
    expected = expect(run, few, start.domain, layout, dtype, device)
    if expected.compared is None:
        raise InputError(
            f"one device alone cannot take two blocks of this model with {layout.dp} samples, so there is nothing to "
            "compare the layout with; validate with fewer data.channels, or a larger model.patch_size"
        )
    return start, layout, expected


def _on_ranks(
    start: RunStart,
    compared: RunConfig,
    expected: Expected | None,
    mesh: Mesh | None,
    device: torch.device,
    job: Job,
    clock: _Clock,
) -> list[Row]:
    """What needs one process group; the rows on rank 0."""
    run, ranks = start.config, Coordination()
    with clock.phase("function", job.first, "one rank alone, then all of them, in float64 and in the run's precision"):
        rows = function_rows(compared, mesh, device, job.first, job.beat)
    counted = 0.0
    if device.type != "cuda":
        with clock.phase("memory", job.first, "counting what a rank holds"):
            own = counted_peak(start, mesh, device, choose_precision(run.training.precision, device))
            counted = ranks.decide(lambda: own, lambda told: [max(told)] * len(told))
    with clock.phase("speed", job.first, "timing steps"):
        timed = time_steps(run, mesh, device, job.beat)
    if expected is None:
        return rows
    rows.append(memory_row(run, counted or timed.allocated, expected.step.peak, device))
    return rows + speed_rows(run, expected, timed, job.world)


class _Clock:
    """Says what is being done, and adds up the seconds of each phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, speaks: bool, text: str) -> Iterator[None]:
        """Around some of a phase's work."""
        if speaks:
            _log.info("%s ...", text)
        begun = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begun
