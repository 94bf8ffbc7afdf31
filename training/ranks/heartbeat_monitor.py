"""Heartbeats: each rank tells the others how far it is, and ends the job when one is gone or training stands still.

A collective that waits for a rank that will never come says nothing about it, where that rank's machine has lost power
or its network: such a rank neither answers nor closes its connections. So a thread of every rank writes into the shared
store at which step its rank is, since when and in which line, and looks at the next rank whether that still does so.

What it costs: four requests to the store a look, of each rank, and looks grow rarer with the number of ranks, so that
the store has some 800 requests a second at most, of the many thousands it can answer.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from torch.distributed import DistError, PrefixStore, Store

from weatherfm.training.ranks.first_failure import claim_failure, failure_status, mark_reported
from weatherfm.training.ranks.heartbeat import (
    Heartbeat,
    describe,
    gone_ranks,
    late_ranks,
    locate,
    read_heartbeat,
    write_heartbeat,
)
from weatherfm.training.ranks.neighbour import Neighbour
from weatherfm.training.ranks.watchdog import Watchdog

GRACE = 20.0
"""Seconds a rank is given to end by itself once the job has failed, at least."""

LOOKS = 20
"""So many looks without a new heartbeat, and a rank is gone. Heartbeats come from a thread of its own, so a rank that
is slow, reads or computes goes on sending them; but one call into C that holds Python's lock stops that thread as well:
pickling a tensor (some 1 s for a GiB), compiling a kernel, importing. This leaves room for 20 s of it."""


_LATE = 3
"""A look that comes after so many times its time comes after a pause of the whole process (SIGSTOP, a suspended machine
or job), in which nobody got on and nobody stood still."""


class HeartbeatMonitor(threading.Thread):
    """The thread that tells and watches.

    Args:
        store: a connection of its own: one that another thread waits on would be blocked.
        rank: of this process.
        hosts: machine of each rank.
        timeout: seconds at one step after which the job is ended.
        training: its number among those of these ranks: the last words of the one before say that its work is done.
    """

    def __init__(self, store: Store, rank: int, hosts: Sequence[str], timeout: float, training: int = 1) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self.store, self.rank, self.hosts, self.timeout = store, rank, hosts, timeout
        self._told = PrefixStore(f"training{training}", store)
        self.every = min(max(1.0, len(hosts) / 200), timeout / 4)
        self._neighbour = Neighbour(self._told, rank, len(hosts))
        self._watched = threading.get_ident()
        self._ended = threading.Event()
        self._beats = 0
        self._paused, self._looked = 0.0, time.monotonic()
        self._leaving = False
        # a store that neither answers nor closes lets this thread wait for ever, so that another one must notice
        self._watchdog = Watchdog(lambda: self._beats, LOOKS, self.every, self._ended, self._miss_store)
        self.beat(0)

    def beat(self, step: int | None = None) -> None:
        """Training has come to this step; None: it is at work on something else."""
        self._silent_from = self._clock()
        if step is not None:
            self._step, self._since = step, time.time()

    @property
    def grace(self) -> float:
        """Seconds a rank is given to end by itself once the job has failed: enough to find out who is gone."""
        return max(GRACE, 5 * self.every)

    def stop(self) -> None:
        """Tell nothing more, and end nothing. Without it Python may abort when it ends and finds the thread at work."""
        self._ended.set()
        for thread in (self, self._watchdog):
            if thread.is_alive():
                thread.join(self.grace)

    def run(self) -> None:
        """Tell and look, until stopped."""
        self._watchdog.start()
        try:
            while not self._ended.wait(self.every if self._beats else 0):
                self._leave_out_pause()
                self._tell()
                if (status := failure_status(self.store)) is not None:
                    return self._end_after_grace(status)
                self._look_beside()
                if self._clock() - self._silent_from > self.timeout:
                    self._end_standstill()
            self._tell(done=True)
        except DistError:  # the store went with the machine of rank 0
            self._end_after_grace(1)

    def _clock(self) -> float:
        """Seconds, without those in which the process was paused. The system has no such clock."""
        return time.monotonic() - self._paused

    def _leave_out_pause(self) -> None:
        """Take the time since the last look for a pause, if it was much too long.

        Only this thread writes what is paused, and only training writes since when it is silent, so that neither can
        undo what the other does; a beat between the end of a pause and its discovery gives time until the next beat.
        """
        now = time.monotonic()
        since, self._looked = now - self._looked, now
        if since > _LATE * self.every:
            self._paused += since - self.every

    def _look_beside(self) -> None:
        """End the job if the neighbour is gone, and training waits for it."""
        if self._neighbour.silent_looks() < LOOKS or not self._stands_still():
            return
        before, after = self._look_twice()
        gone = [rank for rank in gone_ranks(before, after) if after[rank] is not None]  # others may not have begun
        if gone and claim_failure(self.store, self.rank, 1) is None:
            mark_reported(self.store)
            self._end_job(describe(gone, after, self.hosts, time.time()))
        self._neighbour.forgive()

    def _stands_still(self) -> bool:
        """This rank may be waiting for another: it has had no step for as long as one may be silent."""
        return self._clock() - self._silent_from > LOOKS * self.every

    def _miss_store(self) -> None:
        """The store does not answer: end this rank. Of each machine one speaks, since they cannot agree any more."""
        if self._leaving or not self._stands_still():
            return
        own = [rank for rank, host in enumerate(self.hosts) if rank and host == self.hosts[self.rank]]
        if own[:1] != [self.rank]:
            time.sleep(3 * self.every)  # a launcher ends all when the first ends: let that one speak before
            os._exit(1)
        here = f"rank {self.rank} ({self.hosts[self.rank]}) has stood at step {self._step}"
        message = f"no answer from rank 0 ({self.hosts[0]}), nor from the store on its machine; {here}"
        self._end_job(f"{message} for {time.time() - self._since:.0f} s")

    def _end_standstill(self) -> None:
        """Training stands still: end the job, unless another rank is first to do so."""
        if claim_failure(self.store, self.rank, 1) is not None:
            return
        before, after = self._look_twice()
        missing = gone_ranks(before, after) or late_ranks(after)
        everyone = range(len(self.hosts))
        message = describe(missing or everyone, after, self.hosts, time.time())
        if not missing:
            message = f"no step for {self.timeout:.0f} s; all ranks wait for each other\n  {message}"
        mark_reported(self.store)
        self._end_job(message)

    def _end_job(self, message: str) -> None:
        """This rank speaks for all."""
        print(f"weatherfm: {message}", file=sys.stderr, flush=True)  # noqa: T201 - the main thread cannot
        os._exit(1)

    def _end_after_grace(self, status: int) -> None:
        """The job has failed: the process is to end by itself, unless it waits for a rank that has ended."""
        self._leaving = True
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

    def _tell(self, done: bool = False) -> None:
        self._beats += 1
        frame = sys._current_frames().get(self._watched)
        place, waits = locate(frame) if frame is not None else ("its end", False)
        write_heartbeat(self._told, self.rank, Heartbeat(self._beats, self._step, self._since, place, waits, done))

    def _look_twice(self) -> tuple[list[Heartbeat | None], list[Heartbeat | None]]:
        """Last heartbeats of all ranks, with enough time between for new ones; this one goes on telling."""
        before = self._heartbeats()
        for _ in range(3):
            time.sleep(self.every)
            self._tell()
        return before, self._heartbeats()

    def _heartbeats(self) -> list[Heartbeat | None]:
        return [read_heartbeat(self._told, rank) for rank in range(len(self.hosts))]
