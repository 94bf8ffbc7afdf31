"""A command in processes forked from one that has imported everything: jobs of tests import for most of their time.

A launcher finds its ranks forked already, each waiting to be told what it is: forked later, a process would have what
the launcher's threads held at that moment.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import runpy
import signal
import subprocess
import sys
import time
import traceback
from itertools import dropwhile
from pathlib import Path
from typing import Any

import torch
from spawn_ranks import start_fork_server
from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler


class Forked:
    """What tests use of `subprocess.Popen`, for a command of this Python.

    Args:
        command: as a list, from `sys.executable` on.
        log: file that stdout and stderr go to.
        environment: all of it.
        ranks: that the command may start, those of restarts among them.
    """

    def __init__(self, command: list[str], log: Path, environment: dict[str, str], ranks: int) -> None:
        start_fork_server()
        arguments = (command, log, environment, ranks)
        self._process = multiprocessing.get_context("forkserver").Process(target=_launcher, args=arguments)
        self._process.start()
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _launcher(command: list[str], log: Path, environment: dict[str, str], ranks: int) -> None:
    gc.set_threshold(50_000)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    waiting = [_Rank() for _ in range(ranks)]

    def popen(args: tuple[str, ...], env: dict[str, str], **settings: Any) -> _Rank:
        rank = waiting.pop(0)
        rank.begin(args, env)
        return rank

    subprocess_handler.Popen = popen
    _become(command, environment)


def _become(command: list[str] | tuple[str, ...], environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    rest = list(dropwhile(lambda word: word in ("-u", "-P"), command[1:]))  # what only an interpreter's start heeds
    if rest[0] == "-m":
        sys.argv = rest[1:]
        runpy.run_module(rest[1], run_name="__main__", alter_sys=True)
    elif rest[0] == "-c":
        sys.argv = ["-c", *rest[2:]]
        exec(rest[1], {"__name__": "__main__"})
    else:
        sys.argv = rest
        runpy.run_path(rest[0], run_name="__main__")


class _Rank:
    """What a launcher uses of `subprocess.Popen`; one that is never begun ends with the launcher."""

    def __init__(self) -> None:
        orders, self._orders = os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._orders)
            os._exit(_await_orders(orders))
        os.close(orders)

    def begin(self, command: tuple[str, ...], environment: dict[str, str]) -> None:
        with os.fdopen(self._orders, "wb") as orders:
            orders.write(pickle.dumps((command, environment)))

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float) -> int:
        end = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.01)
        return status


def _await_orders(orders: int) -> int:
    """Become what a launcher says; returns the exit status."""
    try:
        with os.fdopen(orders, "rb") as file:
            command, environment = pickle.load(file)
    except EOFError:  # the launcher has ended
        return 0
    os.setsid()
    try:
        _become(command, environment)
    except SystemExit as end:
        return end.code or 0  # type: ignore[return-value] # the command's are numbers
    except BaseException:  # noqa: BLE001 - told here, as Python does
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
    return 0
