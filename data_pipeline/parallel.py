"""Run many dask tasks with only a few in memory at a time, on threads here or on a cluster's workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

import cloudpickle
import dask
from dask.delayed import Delayed

from weatherfm.errors import InputError


def run_tasks(tasks: Iterable[Delayed], workers: int, scheduler: str | None = None, readers: int = 1) -> Iterator[Any]:
    """Results of the tasks as they finish, in any order; at most `workers` (twice that on a cluster) in flight.

    A task that fails stops the rest from starting; those under way finish first, then its error is raised.

    Args:
        tasks: made one by one when there is room for them.
        workers: threads, where there is no scheduler.
        readers: threads of each of these, for what a task is made from.
        scheduler: address of a dask.distributed scheduler; its workers must see the same file system.

    Raises:
        InputError: no scheduler answers at that address.
    """
    return _on_threads(tasks, workers, readers) if scheduler is None else _on_cluster(tasks, scheduler)


def _on_threads(tasks: Iterable[Delayed], workers: int, readers: int) -> Iterator[Any]:
    how: dict[str, Any] = {"scheduler": "synchronous"}
    if readers > 1:
        how = {"scheduler": "threads", "num_workers": readers}
    with ThreadPoolExecutor(workers, thread_name_prefix="prepare") as pool:
        pending: set[Any] = set()
        for task in tasks:
            if len(pending) == workers:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
            pending.add(pool.submit(task.compute, **how))
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)


def _on_cluster(tasks: Iterable[Delayed], scheduler: str) -> Iterator[Any]:
    from distributed import Client, as_completed  # slow to import, and seldom needed

    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, ValueError) as error:
        raise InputError(
            f"no dask scheduler answers at {scheduler!r} ({error}); start one with `dask scheduler` and give its "
            "address as tcp://host:port, or leave it out to use threads"
        ) from error
    with client:
        most = 2 * max(1, sum(client.nthreads().values()))
        flow = as_completed()
        for task in tasks:
            if flow.count() >= most:
                yield next(flow).result()
            (needed,) = dask.optimize(task)  # without the blocks of all other tasks
            flow.add(client.submit(_compute_here, cloudpickle.dumps(needed), pure=False))
        for future in flow:
            yield future.result()


def _compute_here(pickled: bytes) -> Any:
    """A whole task in one thread of one worker: it holds what a thread of `prepare` holds, and nothing travels."""
    task: Delayed = cloudpickle.loads(pickled)
    return task.compute(scheduler="synchronous")
