"""Requests across a network that are repeated for minutes while it, or a busy server, is to blame; and no longer."""

from __future__ import annotations

import asyncio
import email.utils
import errno
import logging
import random
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

from weatherfm.errors import OutsideError

_log = logging.getLogger(__name__)

WAITS: tuple[float, ...] = (1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60, 60)
"""Seconds before each further try of a request that failed for the moment: eight minutes. Each is made up to half
longer or shorter by chance, so that many readers do not come back all at once."""
LONGEST = 900.0
"""Seconds that a server may ask us to wait (its header Retry-After) before it is taken at its word: not now."""
_SAID_EVERY = 10.0
"""Seconds between two words on one address: a hundred chunks wait together."""

_BUSY = {408, 425, 429}  # HTTP statuses below 500 that mean: try again later
_DENIED = {401, 403, 407}
_BROKEN = {
    errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EBUSY,
}  # fmt: skip
_NETWORK_PACKAGES = {"aiohttp", "requests", "urllib3", "botocore", "aiobotocore", "azure"}
_CUT_SHORT = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError, ssl.SSLWantReadError)

T = TypeVar("T")
_said: dict[str, float] = {}


async def insist(
    request: Callable[[], Awaitable[T]], address: str, key: str, masked: Callable[[str], str], secret: bool = False
) -> T:
    """The answer to a request, which is repeated as long as only the network is to blame; says so while it waits.

    Args:
        request: what to ask.
        address: of the store, for messages.
        key: of the part asked for, for messages.
        masked: takes secrets out of a message.
        secret: nothing stands behind an `OutsideError`: a package's errors hold the request, with its key.

    Raises:
        OutsideError: the network failed for minutes, the server asks us to come back much later, or its certificate is
            not trusted.
        Exception: the server's own answer, where trying again would not change it.
    """
    for tries in range(len(WAITS) + 1):
        try:
            return await request()
        except FileNotFoundError:
            raise
        except Exception as error:
            fault = untrusted(error)
            if fault is None and not is_passing(error):
                raise
            wait = None if fault is not None else seconds_to_wait(error, tries)
            told, behind = masked(describe(error)), error
        if wait is None:
            text = masked(_no_trust(address, fault) if fault is not None else _given_up(address, key, tries, told))
            raise OutsideError(text) from (None if secret else behind)
        _say(address, told, wait, tries)
        await asyncio.sleep(wait)
    raise AssertionError("the last try returns or raises")


def seconds_to_wait(error: BaseException, tries: int) -> float | None:
    """Before the try after number `tries` (from 0) that failed so; None where there should be none.

    A server that says when to come back (Retry-After, in seconds or as a date) is never asked sooner.
    """
    if tries >= len(WAITS):
        return None
    asked = retry_after(error) or 0.0
    return None if asked > LONGEST else max(asked, WAITS[tries] * random.uniform(0.5, 1.5))


def retry_after(error: BaseException) -> float | None:
    """Seconds that the server asks us to wait, or None where it does not (or not readably) say."""
    for one in _causes(error):
        told = _header(one, "Retry-After")
        if told is None:
            continue
        if re.fullmatch(r"\s*\d+(\.\d+)?\s*", told):
            return float(told)
        try:
            date = email.utils.parsedate_to_datetime(told)
        except ValueError:
            return None
        date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        return max(0.0, (date - datetime.now(UTC)).total_seconds())
    return None


def is_passing(error: BaseException) -> bool:
    """True for a failure of the network or an overloaded server, which may be gone a moment later."""
    if untrusted(error) is not None:
        return False
    status = status_of(error)
    if status is not None:
        return status in _BUSY or status >= 500
    if isinstance(error, TimeoutError | ConnectionError | socket.gaierror):
        return True
    if isinstance(error, OSError) and error.errno in _BROKEN:
        return True
    return type(error).__module__.partition(".")[0] in _NETWORK_PACKAGES


def is_denied(error: BaseException) -> bool:
    """True where the server wants a key, or does not take the one it was given."""
    return status_of(error) in _DENIED or isinstance(error, PermissionError)


def status_of(error: BaseException) -> int | None:
    """The HTTP status that a failure carries, by whatever name its package calls it."""
    for name in ("status", "status_code", "code"):
        told = str(getattr(error, name, None))
        if told.isdigit() and int(told) >= 100:
            return int(told)
    return None


def untrusted(error: BaseException) -> ssl.SSLError | None:
    """The fault of a secure connection that another try does not mend; None where the failure is another."""
    for one in _causes(error):
        if isinstance(one, ssl.SSLError) and not isinstance(one, _CUT_SHORT):
            return one
    return None


def describe(error: BaseException) -> str:
    """A failure in one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".rstrip(": ")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what is behind it, each once."""
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        behind = (
            one.__cause__,
            one.__context__,
            getattr(one, "os_error", None),
            getattr(one, "certificate_error", None),
        )
        waiting += [other for other in behind if isinstance(other, BaseException)]


def _header(error: BaseException, name: str) -> str | None:
    """A header of the answer that an error came from: aiohttp has them by themselves, botocore and azure inside."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        response = response.get("ResponseMetadata", {})
        headers = response.get("HTTPHeaders")
    else:
        headers = getattr(error, "headers", None) or getattr(response, "headers", None)
    found = {str(key).lower(): str(value) for key, value in dict(headers or {}).items()}
    return found.get(name.lower())


def _no_trust(address: str, fault: ssl.SSLError) -> str:
    return (
        f"network: the secure connection to {address} fails ({describe(fault)}), and would again: correct the address "
        "(https:// or http://) or this machine's clock; for a server with its own certificate set SSL_CERT_FILE, or "
        "source.storage_options for its kind of store"
    )


def _given_up(address: str, key: str, tries: int, told: str) -> str:
    return (
        f"network: {address}/{key} could not be read in {tries + 1} tries ({told}); what is written is kept: start "
        "the same command again when the network is back"
    )


def _say(address: str, text: str, wait: float, tries: int) -> None:
    now = time.monotonic()
    if now - _said.get(address, -_SAID_EVERY) < _SAID_EVERY:
        return
    _said[address] = now
    _log.warning(
        "network: %s does not answer (%s); waiting %.2g s before try %d of %d",
        address, text, wait, tries + 2, len(WAITS) + 1,
    )  # fmt: skip
