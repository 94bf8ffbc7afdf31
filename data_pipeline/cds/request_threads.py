"""Threads that work off requests: each asked for again with growing pauses, and cut where the store finds it large."""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from typing import Any

from tqdm import tqdm

from weatherfm.data_pipeline.cds.downloads import Downloads, Spoilt
from weatherfm.data_pipeline.cds.engines import Patience, Retrieve
from weatherfm.data_pipeline.cds.failures import Failure, explain
from weatherfm.data_pipeline.cds.key import Key
from weatherfm.data_pipeline.cds.requests import Request
from weatherfm.errors import InputError, OutsideError

_JITTER = 0.25
"""Share by which pauses differ, so that those who were refused together do not come back together."""
_log = logging.getLogger(__name__)


class RequestThreads:
    """Fetches requests; the first failure ends it.

    Args:
        downloads: where answers are kept.
        retrieve: how they are got.
        key: for messages.
        patience: how often and how long.
    """

    def __init__(self, downloads: Downloads, retrieve: Retrieve, key: Key, patience: Patience) -> None:
        self._downloads, self._retrieve, self._key, self._patience = downloads, retrieve, key, patience
        self._pending: deque[Request] = deque()
        self._most: dict[str, int] = {}
        """Data set -> fields that a request may have, once one was refused for its size."""
        self._sent: list[Request] = []
        self._changed = threading.Condition()
        self._over = threading.Event()
        """Set when nobody waits for more: nothing new is sent then."""
        self._bar: Any = None
        self._come = self._total = 0  # a bar that is not shown does not count

    def run(self, requests: Sequence[Request], concurrent: int) -> None:
        """Fetch all, `concurrent` at a time.

        The threads of this pool do not keep the program alive: after an interruption nobody waits for the store.

        Raises:
            InputError: asking again would not help.
            OutsideError: it did not help.
        """
        self._pending.extend(requests)
        self._total = len(requests)
        bar = tqdm(total=len(requests), desc="requests", unit="request", disable=None)
        with bar, ThreadPool(concurrent) as pool:
            self._bar = bar
            try:
                for _ in pool.imap_unordered(self._work, range(concurrent)):
                    pass
            finally:
                self._over.set()

    def _work(self, _: int) -> None:
        """What one thread does, until nothing is left that another might yet cut in two."""
        while (request := self._next()) is not None:
            try:
                came = self._insist(request)
            except BaseException:
                self._over.set()  # before another thread takes the next one
                raise
            finally:
                self._done(request)
            if came:
                with self._changed:
                    self._come += 1
                    self._bar.update()
                    _log.info("%s has come (%d of %d)", request.label, self._come, self._total)

    def _next(self) -> Request | None:
        with self._changed:
            while not self._pending and self._sent and not self._over.is_set():
                self._changed.wait(1.0)
            if self._over.is_set() or not self._pending:
                return None
            request = self._pending.popleft()
            most = self._most.get(request.dataset, request.fields)
            if len(parts := request.cut(most)) > 1:
                self._replace(parts)
                request = self._pending.popleft()
            self._sent.append(request)
            self._show()
            return request

    def _done(self, request: Request) -> None:
        with self._changed:
            self._sent.remove(request)
            self._show()
            self._changed.notify_all()

    def _show(self) -> None:
        told = ", ".join(request.label for request in self._sent)
        self._bar.set_postfix_str(f"{len(self._sent)} in the queue: {told}")

    def _replace(self, parts: Sequence[Request]) -> None:
        """Put the parts of a request in its place."""
        self._pending.extendleft(reversed(parts))
        self._total += len(parts) - 1
        self._bar.total = self._total
        self._bar.refresh()

    def _insist(self, request: Request) -> bool:
        """Ask until it is here; False where it was too large and its halves wait in its place."""
        pause = self._patience.pause
        for attempt in range(1, self._patience.attempts + 1):
            failure = self._try(request)
            if failure is None:
                return True
            if failure.too_large and self._halve(request):
                return False
            if failure.lasting:
                raise InputError(failure.text)
            if attempt == self._patience.attempts:
                raise OutsideError(
                    f"{failure.text} ({attempt} attempts); what was downloaded is kept: the same command goes on"
                )
            wait = max(pause * random.uniform(1 - _JITTER, 1 + _JITTER), failure.wait)
            _log.warning("%s; asking again in %.0f s", failure.text, wait)
            self._over.wait(wait)
            pause *= 2
        return False

    def _halve(self, request: Request) -> bool:
        """Ask for half from now on, also in the requests that wait; False where one field is asked for."""
        parts = request.halves()
        if len(parts) == 1:
            return False
        with self._changed:
            most = max(part.fields for part in parts)
            self._most[request.dataset] = min(most, self._most.get(request.dataset, most))
            self._replace(parts)
        _log.info(
            "%s: %d fields are too many for the store; asking for %d at a time from now on",
            request.label, request.fields, self._most[request.dataset],
        )  # fmt: skip
        return True

    def _try(self, request: Request) -> Failure | None:
        """None when it is here, else what went wrong."""
        if self._over.is_set():
            raise OutsideError(f"{request.label}: not sent, the queue is given up")
        try:
            self._downloads.take(request, self._retrieve(request.dataset, request.body))
        except Spoilt as spoilt:
            return Failure(str(spoilt), lasting=False)
        except (OSError, RuntimeError, AssertionError, LookupError) as error:
            return explain(error, request, self._key)
        return None
