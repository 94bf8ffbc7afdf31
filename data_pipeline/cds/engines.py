"""The packages that talk to the Climate Data Store: climetlab, and earthkit-data, its successor.

Both take the same call, put the answer into a folder of their own and ask for a key on the terminal where they miss
one. Here they get a client that has its key already, so they never ask (their `client` is the one place where they
would), and a folder that vanishes with the queue, so that no field is kept twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from weatherfm.data_pipeline.cds.key import Key
from weatherfm.errors import InputError

Retrieve = Callable[[str, dict[str, Any]], str]
"""(dataset, request) -> path of the file that came; waits in the queue of the store, hours if need be."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """How long to wait for what."""

    attempts: int = 4
    """Times a request is sent before it is given up."""
    pause: float = 60.0
    """Seconds before the second attempt, about; doubled before each further one, and as long as the store says."""
    tries: int = 10
    """Times the client repeats one call (status, download) that met a lost connection, 429 or 5xx."""
    interval: float = 120.0
    """Most seconds between two looks at a waiting request, and between such repeated calls; cdsapi's own figure."""


def client_for(key: Key, patience: Patience) -> Any:
    """A cdsapi client that says nothing on the terminal.

    Raises:
        InputError: cdsapi is not installed.
    """
    try:
        import cdsapi
    except ImportError as error:
        raise _missing("cdsapi", "'weatherfm[cds]'") from error
    return cdsapi.Client(
        key.url, key.token, quiet=True, verify=int(key.verify), progress=False,
        retry_max=patience.tries, sleep_max=patience.interval, session=_obedient(patience.tries),
        info_callback=_log.debug, warning_callback=_log.info, error_callback=_log.info, debug_callback=_silent,
    )  # fmt: skip


def _obedient(tries: int) -> Any:
    """A session that waits as long as the store says (Retry-After on 429 and 503); all else is left to the client."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    patient = Retry(
        total=tries, connect=0, read=0, redirect=None, other=0, status=tries, allowed_methods=None,
        status_forcelist=(), respect_retry_after_header=True, raise_on_status=False,
    )  # fmt: skip
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=patient))
    return session


def open_engine(name: str, folder: str, client: Callable[[], Any]) -> AbstractContextManager[Retrieve]:
    """The engine `name`, its downloads going to `folder`; safe to call from several threads while it is open.

    Raises:
        InputError: it is not installed.
    """
    return {"climetlab": _climetlab, "earthkit": _earthkit}[name](folder, client)


@contextmanager
def _climetlab(folder: str, client: Callable[[], Any]) -> Iterator[Retrieve]:
    try:
        import climetlab
        from climetlab.core.settings import SETTINGS
        from climetlab.sources import cds
    except ImportError as error:
        raise _missing("climetlab", "'weatherfm[cds]'") from error

    def retrieve(dataset: str, request: dict[str, Any]) -> str:
        return str(climetlab.load_source("cds", dataset, dict(request)).path)

    cds.client = client  # for good: a thread that an interruption leaves behind must not ask for a key either
    with SETTINGS.temporary("cache-directory", folder):
        SETTINGS.set("maximum-cache-disk-usage", "100%")  # else it deletes what others are downloading
        yield retrieve


@contextmanager
def _earthkit(folder: str, client: Callable[[], Any]) -> Iterator[Retrieve]:
    try:
        from earthkit.data import config, from_source
        from earthkit.data.sources import cds
    except ImportError as error:
        raise _missing("earthkit-data", "earthkit-data cdsapi") from error

    def retrieve(dataset: str, request: dict[str, Any]) -> str:
        return str(from_source("cds", dataset, dict(request), prompt=False).path)

    settings = {"cache-policy": "user", "user-cache-directory": folder, "maximum-cache-disk-usage": None}
    cds.client = lambda use_prompt: client()  # as above
    with config.temporary(settings):
        yield retrieve


def _missing(package: str, wanted: str) -> InputError:
    return InputError(f"{package}, which source.engine needs, is not installed; pip install {wanted}")


def _silent(*_: Any) -> None:
    """Debug messages repeat every answer in full."""
