"""One run folder, one training: two would write each other's metrics and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weatherfm.errors import InputError
from weatherfm.file_lock import FileLock, Held

NAME = ".training.lock"


@contextmanager
def hold_run(folder: Path) -> Iterator[None]:
    """Have a run's folder, made if need be, for this training alone; for the one rank that writes into it.

    The system frees the lock when the process ends, killed or not. Where the file system has no locks, a warning says
    that nobody watches.

    Raises:
        InputError: another process is training there, or the folder cannot be made or written.
    """
    lock = FileLock(folder / NAME)

    def busy(holder: Held) -> str:
        return f"{folder} is being trained by another process ({holder}); wait for it, or choose another run=..."

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.take_for(folder, busy, "start a second training in it")
    except OSError as error:  # a file is in the way, permissions, a disk that is full or not there
        lock.release()
        reason = "a file of this name is there" if isinstance(error, FileExistsError) else error
        raise InputError(f"{folder} cannot be written ({reason}); mend that, or choose another run=...") from None
    try:
        yield
    finally:
        lock.release()
