"""The rank that another one watches: each looks at the next, and so all are watched, at one question a look."""

from __future__ import annotations

from torch.distributed import Store

from weatherfm.training.ranks.heartbeat import Heartbeat, read_heartbeat


class Neighbour:
    """The next rank in the ring that is still at work.

    What is counted is looks, not seconds: a process that was stopped for an hour, or that could not look itself, has
    looked no more often for that, and takes nobody for gone.

    Args:
        store: where heartbeats are.
        rank: that watches.
        world: ranks in all.
    """

    def __init__(self, store: Store, rank: int, world: int) -> None:
        self._store, self._own, self._world = store, rank, world
        self._rank = rank
        self._seen: Heartbeat | None = None
        self._silent = 0
        self._next()

    def silent_looks(self) -> int:
        """Look once; how many looks in a row have found nothing new.

        A rank that has told nothing yet is not silent: it may still be starting. One that is done is followed by the
        one after it.
        """
        if self._rank == self._own:
            return 0
        heartbeat = read_heartbeat(self._store, self._rank)
        if heartbeat is not None and heartbeat.done:
            self._next()
        elif heartbeat is None or heartbeat != self._seen:
            self._seen, self._silent = heartbeat, 0
        else:
            self._silent += 1
        return self._silent

    def forgive(self) -> None:
        """It lives after all: count anew."""
        self._silent = 0

    def _next(self) -> None:
        self._rank = (self._rank + 1) % self._world
        self._seen, self._silent = None, 0
