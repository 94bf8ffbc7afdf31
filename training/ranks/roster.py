"""The processes that train one model: who they are, and how they fail as one.

Started by `torchrun` or `weatherfm train --devices`, each process is a *rank*. They meet in a key-value store before
any collective, so that rank 0 can refuse wrong input for all, and so that a failure is told once, by one of them.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist
from torch.distributed import DistError, PrefixStore, Store, TCPStore

from weatherfm.errors import OutsideError, QuietExit
from weatherfm.training.ranks.first_failure import (
    await_told,
    claim_failure,
    exit_status,
    is_loss_of_a_peer,
    mark_told,
    told_failure,
)
from weatherfm.training.ranks.pulse import GRACE, Pulse

T = TypeVar("T")

START_TIMEOUT = 600.0
"""Seconds within which all ranks must have started; the run's own time-out is not known yet."""

_POLL = 0.05  # seconds between looks at the store
_present: Roster | None = None  # a process has one rank


@contextmanager
def muster() -> Iterator[Roster]:
    """The ranks that were started together, of which this process is one; alone if no launcher started it.

    An error that leaves the block leaves it on one rank only; the others raise `QuietExit`. Inside another `muster`
    it is the same roster.

    Raises:
        OutsideError: a rank did not start, or is gone.
    """
    global _present
    if _present is not None:
        yield _present
        return
    roster = _called() if "RANK" in os.environ and not dist.is_initialized() else _alone()
    _present = roster
    try:
        yield roster
    except BaseException as error:
        told = roster.verdict(error)
        if told is error:
            raise
        raise told from error
    finally:
        _present = None


class Roster:
    """The ranks of one job. A process started by itself is a roster of one, for which everything here is trivial.

    Args:
        rank: of this process.
        world: ranks in all.
        local_rank: of this process among those of its machine.
        hosts: machine of each rank.
        store: a corner of the store that belongs to this start of the job alone; None without a launcher.
    """

    def __init__(
        self,
        rank: int = 0,
        world: int = 1,
        local_rank: int = 0,
        hosts: tuple[str, ...] = (),
        store: Store | None = None,
    ) -> None:
        self.rank, self.world, self.local_rank = rank, world, local_rank
        self.hosts, self.store = hosts, store
        self._pulse: Pulse | None = None
        self._checks = 0

    @property
    def first(self) -> bool:
        """This is rank 0, the one that speaks for all."""
        return self.rank == 0

    def first_checks(self, check: Callable[[], T]) -> T:
        """What `check` returns; rank 0 calls it first, the others only if it succeeds there.

        Raises:
            QuietExit: on the other ranks, when it failed on rank 0.
        """
        if self.store is None:
            return check()
        self._checks += 1
        key = f"check{self._checks}"
        if not self.first:
            self._wait_for(self.store, key)
        result = check()  # what it raises on rank 0 goes through `muster`, which tells the others
        if self.first:
            self.store.set(key, "passed")
        return result

    def watch(self, timeout: float) -> None:
        """From now on, standing at one step for so many seconds ends the job, with the name of who was missing."""
        if self.store is not None:
            own = self.store.clone()  # type: ignore[attr-defined]  # the stub has forgotten it
            self._pulse = Pulse(own, self.rank, self.hosts, timeout)
            self._pulse.start()

    def beat(self, step: int | None = None) -> None:
        """Training has come to this step, or (None) is alive between steps; costs nothing, so call it often."""
        if self._pulse is not None:
            self._pulse.beat(step)

    def unwatch(self) -> None:
        """Training is over: no rank is missed any more."""
        if self._pulse is not None:
            self._pulse.stop()
            self._pulse = None

    def verdict(self, error: BaseException) -> BaseException:
        """What this rank is to raise instead of an error, so that all ranks together tell it once."""
        if self.store is None or isinstance(error, QuietExit):
            return error
        self.beat()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a launcher ends all at the first exit; first, who is gone?
        try:
            return self._verdict(self.store, error)
        except DistError as lost:  # the store went with rank 0: nobody can be asked, so one rank a machine speaks
            if self.local_rank:
                return QuietExit(1)
            return OutsideError(f"rank {self.rank} ({self.hosts[self.rank]}) has lost rank 0: {lost}")
        finally:
            self.unwatch()

    def _verdict(self, store: Store, error: BaseException) -> BaseException:
        if (status := claim_failure(store, self.rank, exit_status(error))) is not None:
            await_told(store, self._pulse.grace if self._pulse else GRACE)
            return QuietExit(status)
        if is_loss_of_a_peer(error) and self._pulse is not None and (gone := self._pulse.gone()):
            error = OutsideError(gone)
        elif not self.first and not isinstance(error, OutsideError):
            error.add_note(f"(on rank {self.rank}, {self.hosts[self.rank]})")
        mark_told(store)
        return error

    def _wait_for(self, store: Store, key: str) -> None:
        end = time.monotonic() + START_TIMEOUT
        while not store.check([key]):
            if (status := told_failure(store)) is not None:
                raise QuietExit(status)
            if time.monotonic() > end:
                raise OutsideError(f"no answer from rank 0 ({self.hosts[0]}) within {START_TIMEOUT:.0f} s of its start")
            time.sleep(max(_POLL, self.world / 2000))


def _alone() -> Roster:
    """A roster without a store; a process group that the caller has made is taken as it is."""
    return Roster(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Roster()


def _called() -> Roster:
    """Meet the other ranks at the address that the launcher gave."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # by torchrun itself
    try:
        store = TCPStore(
            address,
            port,
            is_master=rank == 0 and not hosted,
            timeout=timedelta(seconds=START_TIMEOUT),
            wait_for_workers=False,
            multi_tenant=True,
        )
    except DistError as error:
        raise OutsideError(f"rank {rank} cannot reach rank 0 at {address}:{port}: {error}") from None
    corner, hosts = meet(PrefixStore("weatherfm", store), rank, world, START_TIMEOUT)
    return Roster(rank, world, int(os.environ.get("LOCAL_RANK", "0")), hosts, corner)


def meet(store: Store, rank: int, world: int, timeout: float) -> tuple[Store, tuple[str, ...]]:
    """Agree on a corner of the store for this start of the job alone, and tell each other one's machine.

    torchrun keeps its store over restarts, with all that ranks now dead wrote into it; and its own count of restarts
    differs between machines, so it cannot name the corner. Here rank 0 names it at random, and tells the name to each
    rank under a random word that this rank has called out: no dead one knows it.

    Raises:
        OutsideError: some ranks did not come in time; rank 0 knows which.
    """
    word, end = uuid.uuid4().hex, time.monotonic() + timeout
    host = socket.gethostname()
    if rank == 0:
        corner = PrefixStore(word, store)
        corner.set("host0", host)
        _answer_calls(store, corner, word, world, end)
        corner.set("complete", "yes")
    else:
        store.set(f"call{rank}", word)
        corner = PrefixStore(_get(store, f"answer/{word}", end), store)
        corner.set(f"host{rank}", host)
        _get(corner, "complete", end)
    return corner, tuple(value.decode() for value in corner.multi_get([f"host{r}" for r in range(world)]))


def _answer_calls(store: Store, corner: Store, name: str, world: int, end: float) -> None:
    """Rank 0: tell every rank the name of the corner, until all have come there."""
    missing, answered = list(range(1, world)), set()
    while missing := [rank for rank in missing if not corner.check([f"host{rank}"])]:
        for rank in missing:
            if store.check([f"call{rank}"]) and (word := store.get(f"call{rank}").decode()) not in answered:
                store.set(f"answer/{word}", name)
                answered.add(word)
        if time.monotonic() > end:
            named = ", ".join(map(str, missing[:8])) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
            raise OutsideError(f"{len(missing)} of {world} ranks did not start in time: {named}")
        time.sleep(_POLL)


def _get(store: Store, key: str, end: float) -> str:
    try:
        store.wait([key], timedelta(seconds=max(0.1, end - time.monotonic())))
    except DistError:
        raise OutsideError("rank 0 did not start in time, or misses another rank: see its message") from None
    return store.get(key).decode()
