"""One rank of a job in a test: joins, then plays a scene in which something goes wrong or does not.

    worker.py SCENE FOLDER

Into FOLDER goes a file for each thing that a test looks at. Errors end as they do in the command.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from weatherfm.verbs.run import importing

with importing():  # as the command does
    import torch
    import torch.distributed as dist

    from weatherfm.errors import STOPPED, InputError
    from weatherfm.outcome import report_errors
    from weatherfm.training.ranks import heartbeat_monitor
    from weatherfm.training.ranks.job import Job, join_job
    from weatherfm.training.ranks.process_group import join
    from weatherfm.training.upkeep.stop_signals import StopSignals

PATIENT = 300.0
STEPS = 10


def note(folder: Path, name: str, text: str = "") -> None:
    draft = folder / f".{name}.{os.getpid()}"
    draft.write_text(text)
    draft.rename(folder / name)


def together(value: float = 1.0) -> float:
    """A collective: the sum over all ranks."""
    total = torch.tensor(value)
    dist.all_reduce(total)
    return total.item()


def steps(job: Job, folder: Path, fault: Callable[[int], object] = lambda step: None) -> None:
    """Steps of a training; the last finished one is kept, as a checkpoint keeps it."""
    kept = folder / "kept"
    first = int(kept.read_text()) if kept.exists() else 0
    note(folder, f"began{first}.{job.rank}", os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    with StopSignals():  # as in training: a launcher that ends the job does not end a rank on the spot
        for step in range(first + 1, STEPS + 1):
            fault(step)
            assert together() == job.world
            job.beat(step)
            if job.first:
                note(folder, "kept", str(step))


def play_finished(job: Job, folder: Path) -> None:
    steps(job, folder)


def play_killed(job: Job, folder: Path) -> None:
    """The process of the last rank is killed at step 5, the first time."""

    def kill(step: int) -> None:
        if step == 5 and job.rank == job.world - 1 and not (folder / "killed").exists():
            note(folder, "killed")
            os.kill(os.getpid(), signal.SIGKILL)

    steps(job, folder, kill)


def play_refused(job: Job, folder: Path) -> None:
    def check() -> None:
        note(folder, f"checked{job.rank}")
        raise InputError("tp 3 does not divide model.heads 4")

    job.first_checks(check)


def play_checked(job: Job, folder: Path) -> None:
    """First rank 0, then all; the second check fails on a machine that is not rank 0's."""
    assert job.first_checks(lambda: note(folder, f"checked{job.rank}") or 7) == 7
    job.first_checks(lambda: refuse_on(1, job))


def refuse_on(rank: int, job: Job) -> None:
    if job.rank == rank:
        raise InputError("no store at /data")


def play_faulty(job: Job, folder: Path) -> None:
    def fail(step: int) -> None:
        if step == 3 and job.rank == 1:
            raise RuntimeError("a wheel came off")

    steps(job, folder, fail)


def play_diverged(job: Job, folder: Path) -> None:
    """All ranks find the same error at the same step."""

    def fail(step: int) -> None:
        if step == 3:
            raise InputError("the loss is not finite")

    steps(job, folder, fail)


def play_silent(job: Job, folder: Path) -> None:
    """Rank 1 waits for something that never comes, as a file system."""

    def wait(step: int) -> None:
        if step == 3 and job.rank == 1:
            threading.Event().wait()

    steps(job, folder, wait)


def play_frozen(job: Job, folder: Path) -> None:
    """The process of rank 1 stands still with all its threads: it neither answers nor closes, as without power."""

    def freeze(step: int) -> None:
        if step == 3 and job.rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)

    steps(job, folder, freeze)


def play_suspended(job: Job, folder: Path) -> None:
    """A step of 3 s, in small pieces: once all processes go on after a pause, it is not done at once."""

    def compute(step: int) -> None:
        if step == 3:
            note(folder, f"running{job.rank}", str(os.getpid()))
            for _ in range(30):
                time.sleep(0.1)

    steps(job, folder, compute)


TIMEOUTS = {"silent": 10.0, "suspended": 8.0}
QUICK = ("busy", "early", "frozen", "headless")
"""Scenes in which a rank is given 5 looks instead of 20: what is waited for, or must not come, comes sooner."""


def play_busy(job: Job, folder: Path) -> None:
    """Rank 1 computes in Python, without a step, for twice as long as a rank may be silent."""

    def compute(step: int) -> None:
        end = time.monotonic() + 2 * heartbeat_monitor.LOOKS
        while step == 3 and job.rank == 1 and time.monotonic() < end:
            sum(range(10000))

    steps(job, folder, compute)


def play_early(job: Job, folder: Path) -> None:
    """Rank 1 is done long before rank 0, which writes weights."""
    steps(job, folder)
    if job.rank == 0:
        time.sleep(2 * heartbeat_monitor.LOOKS)


def play_stopped(job: Job, folder: Path) -> int:
    """Steps without end, until any rank is asked to stop."""
    with StopSignals() as stop:
        step = 0
        while not together(float(stop.received is not None)):
            step += 1
            job.beat(step)
            note(folder, f"running{job.rank}", str(os.getpid()))
        stop.stay_deaf()
    if job.first:
        time.sleep(1.0)  # the others have long ended, and the launcher has asked this one to end too
    note(folder, f"stopped{job.rank}", str(stop.received))
    return STOPPED


play_headless = play_stopped


def play_interruptible(job: Job, folder: Path) -> None:
    """Steps without end and without a thought for signals."""
    while together():
        job.beat(1)
        note(folder, f"running{job.rank}", str(os.getpid()))


def main() -> int:
    scene, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    heartbeat_monitor.GRACE = 8.0
    if scene in QUICK:
        heartbeat_monitor.LOOKS = 5
    with join_job(), join(torch.device("cpu"), TIMEOUTS.get(scene, PATIENT)) as job:
        return globals()[f"play_{scene}"](job, folder) or 0


if __name__ == "__main__":
    sys.exit(report_errors(main))
