"""What reading from a source costs, told before anything moves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class ReadCost:
    """Bytes and requests that some fields take, given how their source stores them; costs are added with `+`."""

    wanted: int = 0
    """Bytes of the fields themselves, as float32 on the source's grid."""
    moved: int = 0
    """Bytes of all chunks that hold them, decoded: 3 of 37 levels in one chunk move all 37."""
    compressed: int = 0
    """Bytes that cross the network or leave the disk for them; an estimate where only some chunks were looked at."""
    requests: int = 0
    """Chunks, messages or downloads."""
    advice: tuple[str, ...] = ()
    """Where the request is wasteful: why, and what would be cheaper. One sentence each."""

    def __add__(self, other: ReadCost) -> ReadCost:
        return ReadCost(
            self.wanted + other.wanted,
            self.moved + other.moved,
            self.compressed + other.compressed,
            self.requests + other.requests,
            tuple(dict.fromkeys((*self.advice, *other.advice))),
        )

    @classmethod
    def total(cls, costs: Iterable[ReadCost]) -> ReadCost:
        """The sum of all."""
        return sum(costs, cls())
