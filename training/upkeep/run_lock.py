"""One run folder, one training: two would write each other's metrics and checkpoints."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weatherfm.data_pipeline.machine.disk import existing
from weatherfm.errors import InputError
from weatherfm.file_lock import FileLock, Held

NAME = ".training.lock"


def require_writable(folder: Path) -> None:
    """Try whether a training could write into a run's folder, or make it; nothing is left behind.

    Raises:
        InputError: it could not.
    """
    place = existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise _unwritable(folder, OSError(error.errno, os.strerror(error.errno or 0), str(place))) from None


def _unwritable(folder: Path, error: OSError) -> InputError:
    """A file is in the way, permissions, a disk that is full or not there."""
    reason = "a file of this name is there" if isinstance(error, FileExistsError) else error
    return InputError(f"{folder} cannot be written ({reason}); mend that, or choose another run=...")


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
    except OSError as error:
        lock.release()
        raise _unwritable(folder, error) from None
    try:
        yield
    finally:
        lock.release()
