"""Tasks on the workers of a dask.distributed cluster: sent small, told once what they share, started again when a
worker dies."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cloudpickle

from weatherfm.data_pipeline.machine.call import Call
from weatherfm.data_pipeline.machine.freed_memory import keep_freed_memory
from weatherfm.errors import InputError, OutsideError

if TYPE_CHECKING:
    from distributed import Client, Future

_PATIENCE = 60.0
"""Seconds without any worker that would begin a task after which nobody waits for one; a nanny takes some to start a
new one."""
_LOOK = 2.0
"""Seconds between two looks at whether there is one."""
_UNLIMITED = 2**50
"""Bytes of a worker that has no limit of its own."""


@dataclass(frozen=True)
class _Packed:
    """What tasks share, pickled; keys may be in it, and a worker's log shows the arguments of a task that failed."""

    content: bytes = field(repr=False)


def _unpacked(packed: _Packed) -> Any:
    return cloudpickle.loads(packed.content)


def capacity_of(scheduler: str) -> tuple[int, int]:
    """(threads, bytes of memory) of all workers together.

    Raises:
        InputError: no scheduler answers at that address.
        OutsideError: it has no workers.
    """
    with _connected(scheduler) as client:
        workers = _workers(client)
        if not workers:
            _wait_for_one(client, scheduler)
            workers = _workers(client)
        memory = sum(worker["memory_limit"] or _UNLIMITED for worker in workers.values())
        return sum(worker["nthreads"] for worker in workers.values()), memory


def run_on_cluster(tasks: Iterable[Call], workers: int, shared: Any, scheduler: str) -> Iterator[Any]:
    """As `run_tasks`; each task runs whole in one thread of one worker, and nothing but its answer travels.

    What tasks share is the result of a task itself, so that dask makes it again when the worker that held it is gone.
    """
    with _connected(scheduler) as client:
        held = client.submit(_unpacked, _Packed(cloudpickle.dumps(shared)), pure=False)
        flow: dict[Future, Call] = {}
        threads = sum(worker["nthreads"] for worker in _workers(client).values())
        most = 2 * workers if workers >= threads else workers  # one waits for each thread: none is ever idle
        for task in tasks:
            while len(flow) >= most:
                yield from _finished(client, flow, scheduler)
            flow[client.submit(_run, task.function, held, *task.arguments, pure=False)] = task
        while flow:
            yield from _finished(client, flow, scheduler)


def _run(function: Callable[..., Any], *arguments: Any) -> Any:
    keep_freed_memory()
    return function(*arguments)


@contextmanager
def _connected(scheduler: str) -> Iterator[Client]:
    from distributed import Client  # slow to import, and seldom needed

    try:
        client = Client(scheduler, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no dask scheduler answers at {scheduler!r} ({error}); start one with `dask scheduler` and give its "
            "address as tcp://host:port, or leave it out to use threads"
        ) from error
    noisy = logging.getLogger("distributed")
    before = noisy.level
    noisy.setLevel(logging.CRITICAL)  # what goes wrong is told below, once
    try:
        with client:
            yield client
    finally:
        noisy.setLevel(before)


def _finished(client: Client, flow: dict[Future, Call], scheduler: str) -> Iterator[Any]:
    """Results of what has finished, which leaves `flow`; waits until something has."""
    from distributed import wait
    from distributed.scheduler import KilledWorker

    since = time.monotonic()
    while not (done := [future for future in flow if future.done()]):
        try:
            with client.as_current():
                wait(list(flow), timeout=_LOOK, return_when="FIRST_COMPLETED")
        except TimeoutError:
            since = time.monotonic() if any(map(_is_of_use, _workers(client).values())) else since
            if time.monotonic() - since > _PATIENCE:
                raise _no_workers(scheduler, paused=len(_workers(client))) from None
    for future in done:
        task = flow.pop(future)
        if future.cancelled():
            raise OutsideError(
                f"the dask scheduler at {scheduler} went away; start it again, then the same command: what is written "
                "is kept"
            )
        try:
            result = future.result()
        except KilledWorker as error:
            raise OutsideError(
                f"{task.name} was tried {error.allowed_failures + 1} times, and each time the worker that ran it died, "
                f"the last one at {error.last_worker.address}: killed, or out of memory. Give workers more memory or "
                "fewer threads, or set --memory; then start the same command again: what is written is kept"
            ) from None
        yield result


def _wait_for_one(client: Client, scheduler: str) -> None:
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
    except TimeoutError:
        raise _no_workers(scheduler) from None


def _is_of_use(worker: dict[str, Any]) -> bool:
    """It runs tasks or would begin one: dask pauses a worker at 80 % of its memory, which may never become less."""
    return worker["status"] != "paused" or bool(worker["metrics"]["task_counts"].get("executing"))


def _no_workers(scheduler: str, paused: int = 0) -> OutsideError:
    if paused:
        return OutsideError(
            f"dask paused all {paused} workers of the scheduler at {scheduler}, for they hold 80 % of the memory that "
            f"they may (memory_limit), and none has done anything for {_PATIENCE:.0f} s: give them more memory or "
            "fewer threads, then the same command again: what is written is kept"
        )
    return OutsideError(
        f"the dask scheduler at {scheduler} has had no workers for {_PATIENCE:.0f} s; start some with `dask worker "
        f"{scheduler}`, then the same command again: what is written is kept"
    )


def _workers(client: Client) -> dict[str, Any]:
    workers: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    return workers
