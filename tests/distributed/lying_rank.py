"""One rank of `weatherfm validate`, of which rank 1 does something wrong.

    lying_rank.py FAULT validate ARGUMENTS

The rest is what the command gets.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from weatherfm.verbs.run import importing

with importing():  # as the command does
    from weatherfm.cli import run_command
    from weatherfm.training import save_and_resume, steps
    from weatherfm.training.ranks import heartbeat_monitor


def skip() -> None:
    """It leaves out the update."""
    steps.update_weights = lambda *arguments: None


def die() -> None:
    """Its process is killed in a step."""
    steps.exchange = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    """It waits for something that never comes."""
    steps.exchange = lambda *arguments: threading.Event().wait()


def fail_late() -> None:
    """It fails where a run is saved."""

    def fail(*arguments: object) -> None:
        raise RuntimeError("a wheel came off")

    save_and_resume.train = fail


if __name__ == "__main__":
    heartbeat_monitor.GRACE = 8.0
    if os.environ["RANK"] == "1":
        globals()[sys.argv[1]]()
    sys.exit(run_command(sys.argv[2:]))
