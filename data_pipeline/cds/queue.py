"""The polite queue: a few requests at a time, each asked for again with growing pauses, nothing asked for twice."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from tqdm import tqdm

from weatherfm.data_pipeline.cds.downloads import Downloads, Spoilt
from weatherfm.data_pipeline.cds.engines import Patience, Retrieve, client_for, open_engine
from weatherfm.data_pipeline.cds.failures import explain, refusal
from weatherfm.data_pipeline.cds.key import Key, find_key
from weatherfm.data_pipeline.cds.requests import Request
from weatherfm.data_pipeline.source_config import CdsSource
from weatherfm.errors import InputError, OutsideError

PATIENCE = Patience()
_log = logging.getLogger(__name__)


def downloads_of(source: CdsSource) -> Downloads:
    """The folder that the settings name."""
    return Downloads(Path(source.cache).expanduser())


def bring(requests: Sequence[Request], source: CdsSource) -> None:
    """Download the answers to those requests that are not there yet.

    What has come stays when this is interrupted; the same call then goes on. Requests that wait in the queue of the
    store go on waiting there, and their answers are handed out at once when they are asked for again.

    Raises:
        InputError: no key or a refused one, an engine that is not installed, a licence, or a request that the store
            cannot answer.
        OutsideError: the store could not be reached or failed again and again.
    """
    downloads = downloads_of(source)
    if all(downloads.holds(request) for request in requests):
        return
    key = find_key()
    with downloads.arriving() as folder:
        missing = [one for one in requests if not downloads.holds(one) and not downloads.adopt(one)]
        if not missing:
            return
        with open_engine(source.engine, folder, partial(client_for, key, PATIENCE)) as retrieve:
            _knock(key)
            _work_off(_Work(downloads, retrieve, key), missing, len(requests), source.concurrent)


def _knock(key: Key) -> None:
    """One cheap question, so that a bad key or a machine without internet is told now and not after a long wait."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of its news page, when there is no internet
            client = client_for(key, Patience(tries=1))
        client.client.check_authentication()
    except (OSError, ValueError) as error:  # every error of requests is an OSError
        failure = refusal(error, key)
        if failure.lasting:
            raise InputError(failure.text) from error
        raise OutsideError(
            f"{failure.text}; what was downloaded is kept: start again where there is a way to the internet"
        ) from error


def _work_off(work: _Work, missing: Sequence[Request], total: int, concurrent: int) -> None:
    """All requests, `concurrent` at a time; the first failure ends it.

    The threads of this pool do not keep the program alive: after an interruption nobody waits for the store.
    """
    bar = tqdm(total=total, initial=total - len(missing), desc="requests", unit="request", disable=None)
    with bar, ThreadPool(min(concurrent, len(missing))) as pool:
        work.bar = bar
        try:
            for done in pool.imap_unordered(work.fetch, missing):
                bar.update()
                _log.info("%s has come (%d of %d)", done.label, bar.n, total)
        finally:
            work.over.set()


@dataclass
class _Work:
    """What fetching one request takes."""

    downloads: Downloads
    retrieve: Retrieve
    key: Key
    bar: Any = None
    waiting: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits for more: nothing new is sent then."""

    def fetch(self, request: Request) -> Request:
        """Ask until it is here.

        Raises:
            InputError: asking again would not help.
            OutsideError: it did not help.
        """
        self._show(request, begins=True)
        try:
            self._insist(request)
        except (InputError, OutsideError):
            self.over.set()  # before this thread takes the next one
            raise
        self._show(request, begins=False)
        return request

    def _insist(self, request: Request) -> None:
        pause = PATIENCE.pause
        for attempt in range(1, PATIENCE.attempts + 1):
            problem = self._try(request)
            if problem is None:
                return
            if attempt == PATIENCE.attempts:
                raise OutsideError(
                    f"{problem} ({attempt} attempts); what was downloaded is kept: the same command goes on"
                )
            _log.warning("%s; asking again in %.0f s", problem, pause)
            self.over.wait(pause)
            pause *= 2

    def _try(self, request: Request) -> str | None:
        """None when it is here, else what went wrong."""
        if self.over.is_set():
            raise OutsideError(f"{request.label}: not sent, the queue is given up")
        try:
            came = self.retrieve(request.dataset, request.body)
            self.downloads.take(request, came)
        except Spoilt as spoilt:
            return str(spoilt)
        except (OSError, RuntimeError, AssertionError, LookupError) as error:
            failure = explain(error, request, self.key)
            if failure.lasting:
                raise InputError(failure.text) from error
            return failure.text
        return None

    def _show(self, request: Request, begins: bool) -> None:
        with self.lock:
            if begins:
                self.waiting.append(request.label)
            else:
                self.waiting.remove(request.label)
            self.bar.set_postfix_str(f"{len(self.waiting)} in the queue: {', '.join(self.waiting)}")
