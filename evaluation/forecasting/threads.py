"""Reading and writing beside the model's work, each in a thread of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")
_WAITING = 2
"""Tasks told and not done: each holds the fields it is to write."""


def read_ahead(read: Callable[[K], V], keys: Iterable[K]) -> Generator[V, None, None]:
    """`read` of each key in order; the next is read while the last is used."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="states")
    pending: Future[V] | None = None
    try:
        for key in keys:
            following = pool.submit(read, key)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class WriteBehind:
    """Does what it is told, in order, while the caller goes on.

    What was told is done when the block is left, also when it is left by an error: nothing finished is lost.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._told: deque[Future[Any]] = deque()

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            self._wait_for(0)

    def tell(self, task: Callable[[], object]) -> None:
        """Have a task done; raises what an earlier one raised."""
        self._told.append(self._pool.submit(task))
        self._wait_for(_WAITING)

    def _wait_for(self, most: int) -> None:
        while len(self._told) > most:
            self._told.popleft().result()
