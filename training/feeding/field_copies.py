"""Which ranks keep fields together: one copy for all of a machine that read the same channels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Reader:
    """What one rank tells of itself."""

    machine: str
    space: str
    """The same for processes of the machine that can share memory."""
    channels: tuple[str, ...]
    """That it reads."""
    available: int
    """Bytes of memory that it finds available on the machine."""
    processes: int
    """Of the job on this machine, as far as the rank knows by itself."""


@dataclass(frozen=True)
class Copy:
    """The copy that one rank would use."""

    sharers: tuple[int, ...]
    """Ranks that use it, ascending."""
    copies: int
    """On the machine."""
    free: int
    """Bytes of available memory to each of them."""


def assign_copies(readers: Sequence[Reader]) -> list[Copy]:
    """The copy of each rank, given all of them in order.

    Ranks measure the memory at different moments: what counts is the least that one of the machine found. Processes of
    the machine that are not among the readers have a copy each.
    """
    ranks_on: dict[str, list[int]] = defaultdict(list)
    ranks_with: dict[tuple[str, str, tuple[str, ...]], list[int]] = defaultdict(list)
    for rank, reader in enumerate(readers):
        ranks_on[reader.machine].append(rank)
        ranks_with[reader.machine, reader.space, reader.channels].append(rank)
    groups_on: dict[str, int] = defaultdict(int)
    for name, _, _ in ranks_with:
        groups_on[name] += 1
    copies: dict[str, int] = {}
    free: dict[str, int] = {}
    for name, ranks in ranks_on.items():
        here = [readers[rank] for rank in ranks]
        copies[name] = groups_on[name] + max(0, max(reader.processes for reader in here) - len(here))
        free[name] = min(reader.available for reader in here) // copies[name]
    return [
        Copy(tuple(ranks_with[r.machine, r.space, r.channels]), copies[r.machine], free[r.machine]) for r in readers
    ]
