"""Being asked to stop: the signal is noted, and training ends with a checkpoint soon after.

All ranks must end after the same step, so the signal goes with a step's exchange, and takes effect where its result
is read: after the step at hand on a CPU, within two further steps on a GPU, where results are read a step late. Before
the first step there is nothing to save: `heed` ends work that takes long.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from weatherfm.errors import StopRequest

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""A scheduler's end of time (SIGTERM, SIGUSR1) and Ctrl-C."""


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Inside, SIGTERM ends what is done as Ctrl-C does, tidied up; nothing outside the main thread."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class StopSignals:
    """While entered, signals only set `received`; a second Ctrl-C interrupts at once, as ever.

    Outside the main thread Python allows no handlers: then nothing is caught and `received` stays None.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def heed(self) -> None:
        """Raise, if asked to stop: for long work before the first step, which leaves nothing to save.

        Raises:
            StopRequest: names the signal.
        """
        if self.received is not None:
            raise StopRequest(self.received)

    def stay_deaf(self) -> None:
        """Ignore SIGTERM from now on, and behind the block: for ranks that are about to end with a status of their own.

        A launcher takes that of the first for a failure and sends SIGTERM to the others, which have yet to speak.
        """
        if self._before:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self._before[signal.SIGTERM] = signal.SIG_IGN

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(number, self._before[signal.SIGINT])
