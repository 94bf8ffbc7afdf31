"""Jobs of several ranks of `worker.py`, started in the ways that users start them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from forked import Forked

WORKER = str(Path(__file__).with_name("worker.py"))
LAUNCH = """
import logging, sys
from weatherfm.verbs.run import importing
with importing():
    from weatherfm.training.ranks.launch import launch
logging.basicConfig(level=logging.INFO, format="%(message)s")
sys.exit(launch([sys.executable, *sys.argv[3:]], int(sys.argv[1]), int(sys.argv[2])))
"""
PATIENCE = 240.0
"""Seconds for what takes a few on an idle machine."""


@dataclass
class Job:
    """A process, and what it and its children write: into a file, since a full pipe would stop them."""

    process: subprocess.Popen | Forked
    log: IO[str]

    def end(self) -> tuple[int, list[str]]:
        """Exit status, and the lines written; never a traceback."""
        status, text = self.process.wait(PATIENCE), self.said()
        assert "Traceback" not in text, text
        return status, text.strip().splitlines()

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def wait_until(self, true: Callable[[], object]) -> None:
        """Until something is true; a job that ends before fails the test."""
        end = time.monotonic() + PATIENCE
        while not true():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, f"the job does not get so far:\n{self.said()}"
            time.sleep(0.05)


def start(command: list[str], ranks: int | None = None, **more: str) -> Job:
    """A job that Ctrl-C reaches: a shell starts background jobs with it ignored.

    Args:
        command: of this Python.
        ranks: that it may start, those of restarts among them, if all are to be forked from a process that has
            imported everything. None: all import by themselves.
        more: environment.
    """
    inherited = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment = inherited | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"} | more
    log = tempfile.NamedTemporaryFile("w+")  # noqa: SIM115 - lives as long as the job
    if ranks is not None:
        return Job(Forked(command, Path(log.name), environment, ranks), log)
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=log,
        stderr=log,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    return Job(process, log)


def launched(scene: str, folder: Path, ranks: int, restarts: int = 0) -> Job:
    """As `weatherfm train --devices` starts them."""
    command = [sys.executable, "-c", LAUNCH, str(ranks), str(restarts), WORKER, scene, str(folder)]
    return start(command, ranks * (1 + restarts))


def torchrun(scene: str, folder: Path, *options: str, ranks: int) -> Job:
    return start([sys.executable, "-m", "torch.distributed.run", *options, WORKER, scene, str(folder)], ranks)


def by_hand(scene: str, folder: Path, ranks: int) -> list[Job]:
    """Without a launcher, as `srun` starts one task a rank: rank 0 holds the store."""
    common = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    command = [sys.executable, WORKER, scene, str(folder)]
    return [start(command, 0, RANK=str(rank), LOCAL_RANK=str(rank), **common) for rank in range(ranks)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def alive(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return re.sub(r"^.*\)", "", state).split()[0] != "Z"


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return sorted(found)
