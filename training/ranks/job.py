"""The processes that train one model: who they are, and how they fail as one.

Started by `torchrun` or `weatherfm train --devices`, each process is a *rank*. They meet in a key-value store
(`rendezvous`) before any collective, so that rank 0 can refuse wrong input for all, and so that a failure is told once,
by one of them.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist
from torch.distributed import DistError, PrefixStore, Store, TCPStore

from weatherfm.errors import OutsideError, QuietExit
from weatherfm.training.ranks.first_failure import (
    await_report,
    claim_failure,
    exit_status,
    failure_status,
    is_loss_of_a_peer,
    mark_reported,
)
from weatherfm.training.ranks.heartbeat_monitor import GRACE, HeartbeatMonitor
from weatherfm.training.ranks.rendezvous import POLL, rendezvous

T = TypeVar("T")

START_TIMEOUT = 600.0
"""Seconds within which all ranks must have started; the run's own time-out is not known yet."""

_present: Job | None = None  # a process has one rank


@contextmanager
def join_job() -> Iterator[Job]:
    """The ranks that were started together, of which this process is one; alone if no launcher started it.

    An error that leaves the block leaves it on one rank only; the others raise `QuietExit`. Inside another `join_job`
    it is the same job.

    Raises:
        OutsideError: a rank did not start, or is gone.
    """
    global _present
    if _present is not None:
        yield _present
        return
    job = _launched() if "RANK" in os.environ and not dist.is_initialized() else _alone()
    _present = job
    try:
        yield job
    except BaseException as error:
        raised = job.error_to_raise(error)
        if raised is error:
            raise
        raise raised from error
    finally:
        _present = None


class Job:
    """The ranks of one job. A process started by itself is a job of one, for which everything here is trivial.

    Args:
        rank: of this process.
        world: ranks in all.
        local_rank: of this process among those of its machine.
        hosts: machine of each rank.
        store: a namespace of the store that belongs to this start of the job alone; None without a launcher.
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
        self._monitor: HeartbeatMonitor | None = None
        self._of_monitors: Store | None = None
        self._checks = 0
        self.trainings = 0

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
        result = check()  # what it raises on rank 0 goes through `join_job`, which tells the others
        if self.first:
            self.store.set(key, "passed")
        return result

    def watch(self, timeout: float) -> None:
        """From now on, standing at one step for so many seconds ends the job, with the name of who was missing.

        The ranks may train one model after another: `trainings` counts them, for what each tells in the store.
        """
        self.trainings += 1
        if self.store is not None:
            if self._of_monitors is None:  # once: to a launcher that was killed a new connection would be waited for
                self._of_monitors = self.store.clone()  # type: ignore[attr-defined]  # the stub has forgotten it
            self._monitor = HeartbeatMonitor(self._of_monitors, self.rank, self.hosts, timeout, self.trainings)
            self._monitor.start()

    def beat(self, step: int | None = None) -> None:
        """Training has come to this step, or (None) is alive between steps; costs nothing, so call it often."""
        if self._monitor is not None:
            self._monitor.beat(step)

    def unwatch(self) -> None:
        """Training is over: no rank is missed any more."""
        if self._monitor is not None:
            self._monitor.stop()
            self._monitor = None

    def error_to_raise(self, error: BaseException) -> BaseException:
        """What this rank is to raise instead of an error, so that all ranks together tell it once."""
        if self.store is None:
            return error
        if isinstance(error, QuietExit):  # the job has failed already, and another rank tells why
            self.unwatch()
            return error
        self.beat()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a launcher ends all at the first exit; first, who is gone?
        try:
            return self._elected(self.store, error)
        except DistError as lost:  # the store went with rank 0: nobody can be asked, so one rank a machine speaks
            if self.local_rank:
                return QuietExit(1)
            return OutsideError(f"rank {self.rank} ({self.hosts[self.rank]}) has lost rank 0: {lost}")
        finally:
            self.unwatch()

    def _elected(self, store: Store, error: BaseException) -> BaseException:
        """`error_to_raise`, where the first rank to fail is the one that tells why."""
        if (status := claim_failure(store, self.rank, exit_status(error))) is not None:
            await_report(store, self._monitor.grace if self._monitor else GRACE)
            return QuietExit(status)
        if is_loss_of_a_peer(error) and self._monitor is not None and (gone := self._monitor.gone()):
            error = OutsideError(gone)
        elif not self.first and not isinstance(error, OutsideError):
            error.add_note(f"(on rank {self.rank}, {self.hosts[self.rank]})")
        mark_reported(store)
        return error

    def _wait_for(self, store: Store, key: str) -> None:
        end = time.monotonic() + START_TIMEOUT
        while not store.check([key]):
            if (status := failure_status(store)) is not None:
                raise QuietExit(status)
            if time.monotonic() > end:
                raise OutsideError(f"no answer from rank 0 ({self.hosts[0]}) within {START_TIMEOUT:.0f} s of its start")
            time.sleep(max(POLL, self.world / 2000))


def _alone() -> Job:
    """A job without a store; a process group that the caller has made is taken as it is."""
    return Job(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Job()


def _launched() -> Job:
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
    namespace, hosts = rendezvous(PrefixStore("weatherfm", store), rank, world, START_TIMEOUT)
    return Job(rank, world, int(os.environ.get("LOCAL_RANK", "0")), hosts, namespace)
