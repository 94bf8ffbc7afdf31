"""Run many dask tasks with only a few in memory at a time, on threads here or on a cluster's workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import dask
from dask.system import CPU_COUNT

from weatherfm.data_pipeline.cluster import capacity_of, run_on_cluster
from weatherfm.data_pipeline.host_memory import available_memory


@dataclass(frozen=True)
class Call:
    """One task: small, so that making and sending it costs nothing beside its work."""

    name: str
    """For messages."""
    function: Callable[..., Any]
    """Called with what all tasks share, then the arguments. It may be called again when a worker died in it."""
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Limits:
    """What tasks may take together."""

    workers: int
    """Tasks at a time, where memory allows."""
    memory: int
    """Bytes."""
    on_cluster: bool


def find_limits(workers: int | None, memory: int | None, scheduler: str | None) -> Limits:
    """What was asked for; else all cores and half of the memory, of this machine or of the cluster's workers together.

    Raises:
        InputError: no scheduler answers at that address.
        OutsideError: it has no workers.
    """
    if scheduler is not None:
        threads, held = capacity_of(scheduler)
        return Limits(workers or threads, memory or held // 2, True)
    return Limits(workers or CPU_COUNT, memory or available_memory() // 2, False)


def run_tasks(tasks: Iterable[Call], workers: int, shared: Any = None, scheduler: str | None = None) -> Iterator[Any]:
    """Results of the tasks as they finish, in any order; at most `workers` in flight.

    A task that fails stops the rest from starting; those under way finish first, then its error is raised.

    Args:
        tasks: made one by one when there is room for them.
        workers: tasks at a time.
        shared: first argument of every task; a worker of a cluster gets it once.
        scheduler: address of a dask.distributed scheduler; its workers must see the same file system.

    Raises:
        InputError: no scheduler answers at that address.
        OutsideError: the workers of the cluster are gone, or die again and again in the same task.
    """
    return _on_threads(tasks, workers, shared) if scheduler is None else run_on_cluster(tasks, workers, shared, scheduler)


def _on_threads(tasks: Iterable[Call], workers: int, shared: Any) -> Iterator[Any]:
    with ThreadPoolExecutor(workers, thread_name_prefix="prepare") as pool:
        pending: set[Any] = set()
        for task in tasks:
            if len(pending) == workers:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
            work = dask.delayed(task.function, pure=False, traverse=False)(shared, *task.arguments)
            pending.add(pool.submit(work.compute, scheduler="synchronous"))
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
