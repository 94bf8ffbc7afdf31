"""A lock that one process holds, and that the system frees when the process ends, however it ends."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from weatherfm.errors import InputError
from weatherfm.file_errors import naming

_log = logging.getLogger(__name__)


class Held(Exception):
    """Another process has the lock; the text says which."""


class NoLocks(OSError):
    """The file is there, but its file system has no locks, as some network file systems."""


class FileLock:
    """A lock on a file, which is made if need be and stays, unless its holder removes it as it lets go.

    Taken as a context, or with `take` and `release`. Python opens files so that programs started from here do not
    inherit the lock.

    Args:
        path: of the file; its folder must be there.

    Raises:
        Held: by another process.
        NoLocks: the file system has none.
        OSError: the file cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    def __enter__(self) -> FileLock:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def take(self) -> None:
        """Have the lock, or raise at once."""
        handle = self._locked()
        while not _is_file_of(
            handle, self.path
        ):  # its holder removed it after we opened it: that lock keeps nobody out
            os.close(handle)
            handle = self._locked()
        self._handle = handle
        with naming(self.path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"pid {os.getpid()}, host {socket.gethostname()}\n".encode(), 0)

    def take_for(self, place: Path, busy: Callable[[Held], str], second: str) -> bool:
        """As `take`, in words for whoever wants it.

        Args:
            place: what is locked, as its user knows it.
            busy: given the process that has it, says so, and what to do.
            second: what a second process is not kept from where the file system has no locks.

        Returns:
            False where the file system has no locks, as some over a network, which a warning tells.

        Raises:
            InputError: another process has it.
            OSError: the file cannot be opened or written.
        """
        try:
            self.take()
        except Held as holder:
            raise InputError(busy(holder)) from None
        except NoLocks as error:
            _log.warning("cannot lock %s (%s): do not %s", place, error, second)
            return False
        return True

    def release(self, remove: bool = False) -> None:
        """Let the next have it, and with `remove` leave no file behind; nothing where it is not held."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        try:
            if remove:
                self.path.unlink(missing_ok=True)  # while it is held: who waits at it will look again
        finally:
            os.close(handle)

    def _locked(self) -> int:
        handle = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 200, 0).decode("utf-8", "replace").strip()
            os.close(handle)
            raise Held(holder or "pid unknown") from None
        except OSError as error:
            os.close(handle)
            raise NoLocks(error.errno, error.strerror) from None
        return handle


def _is_file_of(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def take_output(path: Path) -> FileLock:
    """The lock beside what is to be written, taken: two processes would write each other's parts.

    Args:
        path: of the file or folder; its folder is made. `release(remove=True)` when it is written.

    Raises:
        InputError: another process writes it.
        OSError: its folder cannot be written.
    """
    path = Path(os.path.abspath(path))
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    path.parent.mkdir(parents=True, exist_ok=True)

    def busy(holder: Held) -> str:
        return f"{path} is being written by another process ({holder}); wait for it, or choose another output"

    if not lock.take_for(path, busy, "write it from a second process"):
        lock.path.unlink(missing_ok=True)
    return lock


@contextmanager
def hold_output(path: Path) -> Iterator[None]:
    """Have what is written at `path` for this process alone; raises as `take_output`."""
    lock = take_output(path)
    try:
        yield
    finally:
        lock.release(remove=True)
