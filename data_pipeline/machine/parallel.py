"""Run many dask tasks with only a few in memory at a time, on threads here or on a cluster's workers."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

import dask

from weatherfm.data_pipeline.machine.call import Call
from weatherfm.data_pipeline.machine.cluster import run_on_cluster


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
    return (
        _on_threads(tasks, workers, shared) if scheduler is None else run_on_cluster(tasks, workers, shared, scheduler)
    )


def _on_threads(tasks: Iterable[Call], workers: int, shared: Any) -> Iterator[Any]:
    import_distributed()
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


def import_distributed() -> None:
    """Import what dask imports itself at the first computation, before threads do it at once: once in a hundred runs
    one of them found half of it."""
    if importlib.util.find_spec("distributed") is not None:
        importlib.import_module("distributed")
