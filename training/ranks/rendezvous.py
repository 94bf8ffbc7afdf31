"""How the ranks of a job find each other in the store of their launcher, whatever earlier starts left there."""

from __future__ import annotations

import socket
import time
import uuid
from datetime import timedelta

from torch.distributed import DistError, PrefixStore, Store

from weatherfm.errors import OutsideError, some_of

POLL = 0.05
"""Seconds between looks at the store."""


def rendezvous(store: Store, rank: int, world: int, timeout: float) -> tuple[Store, tuple[str, ...]]:
    """Agree on a namespace of the store for this start of the job alone, and tell each other one's machine.

    torchrun keeps its store over restarts, with all that ranks now dead wrote into it; and its own count of restarts
    differs between machines, so it cannot name the namespace. Here rank 0 names it at random, and tells the name to
    each rank under a random token that this rank has written: no dead one knows it.

    Raises:
        OutsideError: some ranks did not come in time; rank 0 knows which.
    """
    token, end = uuid.uuid4().hex, time.monotonic() + timeout
    host = socket.gethostname()
    if rank == 0:
        namespace = PrefixStore(token, store)
        namespace.set("host0", host)
        _admit(store, namespace, token, world, end)
        namespace.set("complete", "yes")
    else:
        store.set(f"join{rank}", token)
        namespace = PrefixStore(_get(store, f"namespace/{token}", end), store)
        namespace.set(f"host{rank}", host)
        _get(namespace, "complete", end)
    return namespace, tuple(value.decode() for value in namespace.multi_get([f"host{r}" for r in range(world)]))


def _admit(store: Store, namespace: Store, name: str, world: int, end: float) -> None:
    """Rank 0: tell every rank the name of the namespace, until all have come there."""
    missing, answered = list(range(1, world)), set()
    while missing := [rank for rank in missing if not namespace.check([f"host{rank}"])]:
        for rank in missing:
            if store.check([f"join{rank}"]) and (token := store.get(f"join{rank}").decode()) not in answered:
                store.set(f"namespace/{token}", name)
                answered.add(token)
        if time.monotonic() > end:
            raise OutsideError(f"{len(missing)} of {world} ranks did not start in time: {some_of(missing, 8)}")
        time.sleep(POLL)


def _get(store: Store, key: str, end: float) -> str:
    try:
        store.wait([key], timedelta(seconds=max(0.1, end - time.monotonic())))
    except DistError:
        raise OutsideError("rank 0 did not start in time, or misses another rank: see its message") from None
    return store.get(key).decode()
