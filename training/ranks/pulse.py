"""Signs of life: each rank tells the others how far it is, and ends the job when training stands still.

A collective that waits for a rank that will never come says nothing about it. So a thread of every rank writes into
the shared store at which step its rank is, since when and in which line; who is missing can be read from that.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import FrameType

from torch.distributed import DistError, Store

from weatherfm.training.ranks.first_failure import claim_failure, mark_told, told_failure

GRACE = 20.0  # seconds

_SHOWN = 8


@dataclass(frozen=True)
class Sign:
    """What a rank tells of itself."""

    beats: int
    """Of the thread that tells: one that does not grow is of a process that is gone."""
    step: int
    since: float
    """Time, in seconds since 1970, at which training came to that step."""
    place: str
    """The line that training is in."""
    waits: bool
    """It is inside PyTorch: computing, or waiting for others."""


class Pulse(threading.Thread):
    """The thread that tells and watches.

    Args:
        store: a connection of its own: one that another thread waits on would be blocked.
        rank: of this process.
        hosts: machine of each rank.
        timeout: seconds at one step after which the job is ended.
    """

    def __init__(self, store: Store, rank: int, hosts: Sequence[str], timeout: float) -> None:
        super().__init__(name="pulse", daemon=True)
        self.store, self.rank, self.hosts, self.timeout = store, rank, hosts, timeout
        self.every = min(max(1.0, len(hosts) / 200), timeout / 4)  # a store answers some thousand requests a second
        self._watched = threading.get_ident()
        self._ended = threading.Event()
        self._beats = 0
        self.beat(0)

    def beat(self, step: int | None = None) -> None:
        """Training has come to this step; None: it is at work on something else."""
        self._silent_from = time.monotonic()
        if step is not None:
            self._step, self._since = step, time.time()

    @property
    def grace(self) -> float:
        """Seconds a rank is given to end by itself once the job has failed: enough to find out who is gone."""
        return max(GRACE, 5 * self.every)

    def stop(self) -> None:
        """Tell nothing more, and end nothing. Without it Python may abort when it ends and finds the thread at work."""
        self._ended.set()
        self.join(self.grace)

    def run(self) -> None:
        """Tell and look, until stopped."""
        try:
            while not self._ended.wait(self.every if self._beats else 0):
                self._tell()
                if (status := told_failure(self.store)) is not None:
                    return self._end_after_grace(status)
                if time.monotonic() - self._silent_from > self.timeout:
                    self._end_job()
        except DistError:  # the store went with the machine of rank 0
            self._end_after_grace(1)

    def _end_after_grace(self, status: int) -> None:
        """The job has failed: the process is to end by itself, unless it waits for a rank that has ended."""
        end = time.monotonic() + self.grace
        with suppress(DistError):
            while time.monotonic() < end and not self._ended.wait(self.every):
                self._tell()  # so that it is not taken for gone
        if not self._ended.wait(max(0.0, end - time.monotonic())):
            os._exit(status)

    def gone(self) -> str:
        """The ranks whose processes are gone, in words; empty for none. Takes seconds: who lives shows up in them."""
        before, after = self._look_twice()
        return describe(gone_ranks(before, after), after, self.hosts, time.time())

    def _end_job(self) -> None:
        """Training stands still: end the job, unless another rank is first to do so."""
        if claim_failure(self.store, self.rank, 1) is not None:
            return
        before, after = self._look_twice()
        missing = gone_ranks(before, after) or late_ranks(after)
        everyone = range(len(self.hosts))
        message = describe(missing or everyone, after, self.hosts, time.time())
        if not missing:
            message = f"no step for {self.timeout:.0f} s; all ranks wait for each other\n  {message}"
        print(f"weatherfm: {message}", file=sys.stderr, flush=True)  # noqa: T201 - the main thread cannot
        mark_told(self.store)
        os._exit(1)

    def _tell(self) -> None:
        self._beats += 1
        place, waits = locate(sys._current_frames()[self._watched])
        sign = Sign(self._beats, self._step, self._since, place, waits)
        self.store.set(f"sign{self.rank}", json.dumps(asdict(sign)))

    def _look_twice(self) -> tuple[list[Sign | None], list[Sign | None]]:
        """Last signs of all ranks, with enough time between for new ones; this one goes on telling."""
        before = self._signs()
        for _ in range(3):
            time.sleep(self.every)
            self._tell()
        return before, self._signs()

    def _signs(self) -> list[Sign | None]:
        """The last sign of every rank; None where there is none yet."""
        keys = [f"sign{rank}" for rank in range(len(self.hosts))]
        return [Sign(**json.loads(self.store.get(key))) if self.store.check([key]) else None for key in keys]


def locate(frame: FrameType) -> tuple[str, bool]:
    """The line of weatherfm that a stack is in, and whether it has gone from there into PyTorch."""
    waits = _package(frame) == "torch"
    inner: FrameType | None = frame
    while inner is not None and _package(inner) != "weatherfm":
        inner = inner.f_back
    shown = inner or frame
    return f"{shown.f_globals.get('__name__')}:{shown.f_lineno} ({shown.f_code.co_name})", waits


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def gone_ranks(before: Sequence[Sign | None], after: Sequence[Sign | None]) -> list[int]:
    """Ranks that told nothing new between two looks."""
    return [rank for rank, sign in enumerate(after) if sign == before[rank]]


def late_ranks(signs: Sequence[Sign | None]) -> list[int]:
    """Ranks that the others wait for, all being alive: those behind, else those that do what most do not."""
    known = {rank: sign for rank, sign in enumerate(signs) if sign is not None}
    newest = max((sign.step for sign in known.values()), default=0)
    if behind := [rank for rank, sign in known.items() if sign.step < newest]:
        return behind
    count = Counter((sign.waits, sign.place) for sign in known.values())
    common = max(count, key=lambda place: (count[place], place), default=None)  # of two, the one inside PyTorch waits
    odd = [rank for rank, sign in known.items() if (sign.waits, sign.place) != common]
    return [rank for rank in odd if not known[rank].waits] or odd


def describe(ranks: Sequence[int], signs: Sequence[Sign | None], hosts: Sequence[str], now: float) -> str:
    """One line for each of the ranks: where it was, and since when; empty for none.

    Args:
        ranks: to describe.
        signs: last sign of every rank.
        hosts: machine of every rank.
        now: seconds since 1970.
    """
    lines = []
    for rank in ranks[:_SHOWN]:
        sign = signs[rank]
        seen = f"last seen at step {sign.step}, {now - sign.since:.0f} s ago, in {sign.place}" if sign else "never seen"
        lines.append(f"no answer from rank {rank} ({hosts[rank]}), {seen}")
    more = [f"and {len(ranks) - _SHOWN} more"] if len(ranks) > _SHOWN else []
    return "\n  ".join(lines + more)
