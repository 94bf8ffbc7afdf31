"""A finished store that takes the place of another, so that readers find the old one or the new one.

The new store is written beside the old one, in a hidden folder, and then the two change names, in one step where the
file system can (Linux). Elsewhere it takes two, and killed between them the place is empty until any command that
writes stores is started again. One process at a time writes a store or changes it: it holds a lock beside the store
from its first look at it to its last.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from weatherfm.data_pipeline.store.records.exchange import exchange
from weatherfm.data_pipeline.store.records.manifest import NAME, PROGRESS
from weatherfm.errors import InputError
from weatherfm.file_lock import FileLock, Held
from weatherfm.home import expanded

_log = logging.getLogger(__name__)
_REPLACED = f"{PROGRESS}/replaced"
"""File in a store that is about to be exchanged for its successor: so the two are told apart, whoever was killed."""


def place_of(store: str | Path) -> Path:
    """The folder itself of a store that is written, whatever links lead to it."""
    return expanded(store).resolve()


def place_of_next(root: Path) -> Path:
    """Where the successor of the store `root` is written."""
    return root.with_name(f".{root.name}.next")


def place_of_last(root: Path) -> Path:
    """Where a store stands whose successor takes its place."""
    return root.with_name(f".{root.name}.last") if root.name else root / ".last"


def lock_of(root: Path) -> FileLock:
    """The lock beside the store `root`, not yet taken."""
    return FileLock(root.with_name(f".{root.name}.lock"))


def remove_left_lock(root: Path) -> None:
    """Remove the file of a lock that nobody holds: a process killed as it let go of the store `root` left it."""
    lock = lock_of(root)
    if lock.path.exists():
        with suppress(Held, OSError):  # its holder removes it; in a folder that cannot be written it stays
            lock.take()
            lock.release(remove=True)


@contextmanager
def hold(root: Path) -> Iterator[None]:
    """Have the store `root`, there or not, for this process alone; what a killed change left undone is ended first.

    Raises:
        InputError: another process is writing it, or its folder cannot be written.
    """
    lock = lock_of(root)
    parent_is_new = not root.parent.exists()
    _take(lock, root)
    try:
        settle(root)
        yield
    finally:
        lock.release(remove=True)
        if parent_is_new:
            with suppress(OSError):  # something was written there
                root.parent.rmdir()


def swap(root: Path) -> None:
    """Put the finished successor of `root` in its place and delete what stood there; the caller holds `root`."""
    successor = place_of_next(root)
    (root / PROGRESS).mkdir(exist_ok=True)
    (root / _REPLACED).touch()
    if exchange(successor, root):
        successor.rename(place_of_last(root))
    else:
        root.rename(place_of_last(root))
    settle(root)


def settle(root: Path) -> None:
    """Finish a `swap` that was interrupted; nothing to do otherwise. The caller holds `root`.

    Raises:
        InputError: a link stands where a store is expected.
    """
    last, successor = place_of_last(root), place_of_next(root)
    for place in (last, successor):
        if place.is_symlink():
            raise InputError(f"{place} is a link; stores are not written through links: remove it")
    if (successor / _REPLACED).exists() and not last.exists() and (root / NAME).is_file():
        successor.rename(last)  # killed just after they had changed names
    if (root / _REPLACED).exists():  # killed before that
        _unmark(root)
    if not last.exists():
        return
    if not root.exists() and (successor / NAME).is_file():
        successor.rename(root)
    elif not root.exists() and (last / NAME).is_file():  # its successor was taken away
        _log.warning("the store %s is put back; what was to take its place is gone", root)
        last.rename(root)
        _unmark(root)
        return
    if (root / NAME).is_file():
        try:
            shutil.rmtree(last)
        except OSError as error:
            raise InputError(
                f"{last} cannot be removed ({error}); it stood at {root} before its successor, which is there whole, "
                "took its place: remove it, or have its owner do so"
            ) from error


def end_interrupted(store: str | Path) -> None:
    """Finish a change of places that was interrupted at the store, for who is about to look at it and then to mend it.

    Raises:
        InputError: another process is writing it, or its folder cannot be written.
    """
    root = place_of(store)
    if os.path.lexists(place_of_last(root)) or (place_of_next(root) / _REPLACED).exists():
        with hold(root):
            pass


def _unmark(root: Path) -> None:
    (root / _REPLACED).unlink(missing_ok=True)
    with suppress(OSError):  # a journal is there, too
        (root / PROGRESS).rmdir()


def refuse_fixed(root: Path) -> None:
    """Nothing where the finished store `root` may be replaced by its successor.

    Raises:
        InputError: this user may not change what is in its folders.
    """
    folders = [root, *(path for path in root.iterdir() if path.is_dir() and not path.is_symlink())]
    if fixed := [path for path in folders if not os.access(path, os.W_OK | os.X_OK)]:
        raise InputError(
            f"{fixed[0]} cannot be changed by this user, so that nothing can take the place of the store {root}; have "
            "its owner do this, or give yourself the right to write there"
        )


def _take(lock: FileLock, root: Path) -> None:
    def busy(holder: Held) -> str:
        return f"another process is writing {root} ({holder}); wait for it or choose another store"

    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        if not lock.take_for(root, busy, "write it from a second process"):
            lock.path.unlink(missing_ok=True)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise InputError(
            f"the folder {root.parent} cannot be written ({reason}), but the store {root.name} needs a lock and room "
            "for its successor there; mend that or choose another store"
        ) from error
