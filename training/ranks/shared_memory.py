"""Memory that ranks of one machine share: what one writes all see, and it is gone with the last of them.

It is a file without a name (memfd_create), which the other ranks open through the /proc entry of the rank that made it.
So nothing is left behind however the processes end, and the size of /dev/shm, 64 MB in many containers, is no limit.
"""

from __future__ import annotations

import mmap
import os
import socket
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from weatherfm.model.share import balanced
from weatherfm.training.ranks.coordination import Coordination


@dataclass(frozen=True)
class Address:
    """Where a block of memory can be opened, by processes that see the same /proc."""

    path: str
    token: bytes
    """A random word behind the block: another file at the same path, as in another container, does not hold it."""


@dataclass(frozen=True)
class Shared:
    """What came of sharing a block."""

    memory: mmap.mmap | None
    """The block; None where this rank shares none, or one of its sharers could not have it."""
    problem: str = ""
    """Why the block could not be had; the same on all its sharers."""
    all_well: bool = True
    """No rank of the job has a problem."""


def machine() -> str:
    """The same for processes on one machine, and for no others: its name, and a word of this start of its kernel."""
    return f"{socket.gethostname()} {_words('/proc/sys/kernel/random/boot_id')}"


def process_space() -> str:
    """The same for processes of one machine that see each other in /proc; containers mostly have one each."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def share_memory(ranks: Coordination, sharers: Sequence[int], size: int) -> Shared:
    """A block of memory that several ranks see, its pages reserved; all ranks of the job must call this together.

    The pages are reserved now, by each sharer its part (near its own processor): memory that is not there is then
    found out here, and not at a write, which the system would answer by ending the process.

    Args:
        ranks: of the job.
        sharers: ranks that share a block with this one, itself among them, the same on each; fewer than two: none.
        size: of the block in bytes.
    """
    own, block = ranks.rank, _Block(size)
    sharers = tuple(sharers) if len(sharers) > 1 else ()
    try:
        if sharers and own == sharers[0]:
            block.create()
        address = ranks.decide(lambda: (sharers, block.address), _tell_address)
        if address is not None:
            block.use(address, sharers.index(own), len(sharers))
        problem, all_well = ranks.decide(lambda: (sharers, block.problem), _tell_problem)
    finally:
        block.close()
    return Shared(None if problem else block.memory, problem, all_well)


def _tell_address(offers: Sequence[tuple[Sequence[int], Address | None]]) -> list[Address | None]:
    """For each rank the address that the first of its sharers has."""
    return [offers[sharers[0]][1] if sharers else None for sharers, _ in offers]


def _tell_problem(offers: Sequence[tuple[Sequence[int], str]]) -> list[tuple[str, bool]]:
    """For each rank the first problem among its sharers, and whether there is none at all."""
    all_well = not any(problem for _, problem in offers)
    return [(next((offers[rank][1] for rank in sharers if offers[rank][1]), ""), all_well) for sharers, _ in offers]


class _Block:
    """One rank's way to a block; what goes wrong is kept as a problem, since the other ranks must know of it.

    Args:
        size: in bytes.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.address: Address | None = None
        self.memory: mmap.mmap | None = None
        self.problem = ""
        self._file: int | None = None

    def create(self) -> None:
        """A new block, for others to open as long as this one is not closed."""
        try:
            if not hasattr(os, "memfd_create"):
                raise OSError("this system has no files in memory")
            self._file = os.memfd_create("weatherfm-fields")
            token = uuid.uuid4().hex.encode()
            os.ftruncate(self._file, self.size + len(token))
            os.pwrite(self._file, token, self.size)
            self.address = Address(f"/proc/{os.getpid()}/fd/{self._file}", token)
        except OSError as error:
            self.problem = str(error)

    def use(self, address: Address, index: int, count: int) -> None:
        """Map the block, opened at the address unless it is this rank's, and reserve one of `count` parts of it."""
        try:
            file = self._open(address) if self._file is None else self._file
            sizes = balanced(self.size, count)
            if sizes[index]:
                os.posix_fallocate(file, sum(sizes[:index]), sizes[index])
            self.memory = mmap.mmap(file, self.size) if self.size else None
        except OSError as error:
            self.problem = str(error)

    def _open(self, address: Address) -> int:
        self._file = file = os.open(address.path, os.O_RDWR)
        length = len(address.token)
        right_size = os.fstat(file).st_size == self.size + length
        if not right_size or os.pread(file, length, self.size) != address.token:
            raise OSError(f"{address.path} is another file here")
        return file

    def close(self) -> None:
        """Nobody needs to open it any more; the mapping keeps the memory."""
        if self._file is not None:
            os.close(self._file)


def _words(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
