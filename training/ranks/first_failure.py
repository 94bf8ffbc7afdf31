"""A failure of several ranks is told once: the first to write it into the store they share speaks for all."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator

from torch.distributed import DistError, Store

from weatherfm.errors import InputError

_KEY, _REPORTED = "failure", "failure reported"
_TRANSPORT = ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL")


def claim_failure(store: Store, rank: int, status: int) -> int | None:
    """Say that this rank fails with this exit status; None if it is the first, else the status of the first."""
    own = json.dumps({"rank": rank, "status": status, "claim": uuid.uuid4().hex})
    first = store.compare_set(_KEY, "", own).decode()  # an expected value of "": only where there is none yet
    return None if first == own else json.loads(first)["status"]


def failure_status(store: Store) -> int | None:
    """Exit status of the rank that was the first to fail; None while none has."""
    return json.loads(store.get(_KEY))["status"] if store.check([_KEY]) else None


def mark_reported(store: Store) -> None:
    """The first to fail has found out why: the others may end now."""
    store.set(_REPORTED, "yes")


def await_report(store: Store, seconds: float) -> None:
    """Live on, as long as the first to fail may look for who lives; no longer than so many seconds."""
    end = time.monotonic() + seconds
    while not store.check([_REPORTED]) and time.monotonic() < end:
        time.sleep(0.1)


def exit_status(error: BaseException) -> int:
    """The status the command ends with at this error."""
    if isinstance(error, InputError):
        return 2
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def is_loss_of_a_peer(error: BaseException) -> bool:
    """True when an error only says that another rank did not answer, whose own error is then the one to tell."""
    return any(
        isinstance(cause, DistError)
        or (isinstance(cause, RuntimeError) and any(word in str(cause) for word in _TRANSPORT))
        for cause in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
