"""Several commands at the same time, each line of theirs with its name before it.

Signals reach all of them, and they end with the process that started them, killed perhaps. One that fails stops the
others, which go on when started again.
"""

from __future__ import annotations

import ctypes
import logging
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO

from weatherfm.errors import STOPPED
from weatherfm.training.upkeep.stop_signals import StopSignals

_log = logging.getLogger(__name__)

_LOOK = 0.1
"""Seconds between looks at who has ended and what was asked for."""
_PR_SET_PDEATHSIG = 1
"""Of prctl(2)."""


def run_side_by_side(
    commands: Mapping[str, Sequence[str]], parts: Sequence[Mapping[str, str]], stop: StopSignals
) -> dict[str, int]:
    """Run commands, as many at once as there are parts of the machine; the exit status of each that was begun.

    They stand in the order in which they ended. A signal that ended one is status 1, or STOPPED if it was handed on.

    Args:
        commands: by name, begun in this order.
        parts: environment variables of the commands; whichever comes next takes the part that is free.
        stop: entered; what it receives is handed on to all that run, and no other is begun.

    Raises:
        KeyboardInterrupt: a second Ctrl-C, which they have had as well.
    """
    running = _Running(stop)
    waiting, free = list(commands), list(parts)
    try:
        while (waiting and not running.ending) or running.children:
            while waiting and free and not running.ending:
                name = waiting.pop(0)
                running.begin(name, commands[name], free.pop(0))
            free += running.look()
    except KeyboardInterrupt:
        running.send(signal.SIGINT)
        while running.children:
            running.look()
        raise
    finally:
        running.kill()
    return running.statuses


class _Child:
    """A command that runs, and what it writes."""

    def __init__(self, name: str, command: Sequence[str], part: Mapping[str, str]) -> None:
        self.name, self.part = name, part
        libc = ctypes.CDLL(None)  # found here: between fork and exec as little as can be

        def end_with_parent() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

        self.process = subprocess.Popen(
            command,
            env=os.environ | part,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a terminal's Ctrl-C comes to us alone, and is handed on once
            preexec_fn=end_with_parent if sys.platform == "linux" else None,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.streams = {self.process.stdout: sys.stdout, self.process.stderr: sys.stderr}
        self._rest = dict.fromkeys(self.streams, b"")
        for stream in self.streams:
            os.set_blocking(stream.fileno(), False)

    def pass_on(self, stream: IO[bytes]) -> bool:
        """Write what has come, whole lines with the name before each; False at its end."""
        chunk = os.read(stream.fileno(), 2**16)
        *lines, self._rest[stream] = (self._rest[stream] + chunk).split(b"\n")
        if not chunk and self._rest[stream]:
            lines.append(self._rest.pop(stream))
        for line in lines:
            self.streams[stream].write(f"{self.name}: {line.decode(errors='replace')}\n")
        self.streams[stream].flush()
        return bool(chunk)


class _Running:
    """All that runs at the moment, and how the others have ended."""

    def __init__(self, stop: StopSignals) -> None:
        self.children: list[_Child] = []
        self.statuses: dict[str, int] = {}
        self._stop, self._sent = stop, set[int]()
        self._failed = False
        self._selector = selectors.DefaultSelector()

    @property
    def ending(self) -> bool:
        """Nothing new is to begin."""
        return self._failed or self._stop.received is not None

    def begin(self, name: str, command: Sequence[str], part: Mapping[str, str]) -> None:
        """Start a command."""
        _log.info("%s begins", name)
        child = _Child(name, command, part)
        self.children.append(child)
        for stream in child.streams:
            self._selector.register(stream, selectors.EVENT_READ, child)

    def look(self) -> list[Mapping[str, str]]:
        """Hand on what was asked for, pass on what has come; the parts of the machine that have become free."""
        if self._stop.received is not None and not self._sent:
            self.send(signal.Signals[self._stop.received])
        for key, _ in self._selector.select(_LOOK):
            self._read(key.data, key.fileobj)  # type: ignore[arg-type]
        ended = [child for child in self.children if child.process.poll() is not None]
        for child in ended:
            self._end(child)
        return [child.part for child in ended]

    def send(self, number: int) -> None:
        """A signal to all that run."""
        self._sent.add(number)
        for child in self.children:
            child.process.send_signal(number)  # does nothing to one that has ended

    def kill(self) -> None:
        """Those that are still there, after an error of ours."""
        for child in self.children:
            child.process.kill()
            child.process.wait()
        self._selector.close()

    def _read(self, child: _Child, stream: IO[bytes]) -> bool:
        """False where there is no more at the moment, or ever."""
        try:
            more = child.pass_on(stream)
        except BlockingIOError:
            return False
        if not more:
            self._selector.unregister(stream)
            stream.close()
        return more

    def _end(self, child: _Child) -> None:
        for stream in child.streams:  # not to their end: a process of its own may have them for a while yet
            while not stream.closed and self._read(child, stream):
                continue
            if not stream.closed:
                self._selector.unregister(stream)
                stream.close()
        self.children.remove(child)
        status = child.process.returncode
        if status < 0:
            if -status not in self._sent:
                _log.error("%s was ended by %s", child.name, signal.Signals(-status).name)
            status = STOPPED if -status in self._sent else 1
        self.statuses[child.name] = status
        if status not in (0, STOPPED) and not self._failed:
            self._failed = True
            if self.children and not self._sent:
                _log.error("%s failed; the others stop with a checkpoint", child.name)
                self.send(signal.SIGTERM)
