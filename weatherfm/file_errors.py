"""What the system says of a file, in words for whoever named it: a full disk, a missing right, a folder in its place.

This is where such errors become messages, for all verbs; code that knows more of its file says it by itself.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weatherfm.errors import InputError

_LONGEST = 160
_TOLD = {
    errno.ENOSPC: "the disk is full; free some space, or choose another place, and start the same command again",
    errno.EDQUOT: "the quota is full; free some space, or choose another place, and start the same command again",
    errno.EFBIG: "no file may be that large there (the file system, or ulimit -f); choose another place",
    errno.EROFS: "it is on a file system that is read-only; choose another place",
    errno.EACCES: "this user may not do that; change its rights or those of its folder, or choose another place",
    errno.EPERM: "this user may not do that; change its rights or those of its folder, or choose another place",
    errno.EISDIR: "it is a folder, and a file is meant; name a file",
    errno.ENOTDIR: "a part of this path is a file, and a folder is meant; correct the path, or move that file",
    errno.EEXIST: "something of that name is in the way; choose another name, or move that",
    errno.ENOTEMPTY: "a folder of that name is in the way, with files in it; choose another name, or move that",
    errno.ENAMETOOLONG: "a name in a path may have 255 bytes, a path 4096; choose a shorter one",
    errno.ELOOP: "its links lead in a circle; mend them",
    errno.ENOENT: "it is not there, or not any more; correct the path, or start again if it was moved meanwhile",
    errno.EIO: "the disk or the network drive failed; look at it (its log, its connection), and start again",
    errno.ESTALE: "the network drive lost it; look at the drive, and start again",
    errno.EMFILE: "this process may open no more files (ulimit -n); raise that limit",
    errno.ENFILE: "the system may open no more files; close some programs",
    errno.ENXIO: "it is a pipe or a device that nobody answers at, and a file is meant; name a file",
}
_WITHOUT_NAME = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE, errno.EMFILE)
"""Which writing to an open file may raise: nobody says then which it is."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Around writing to an open file: errors that come without its name, as of a full disk, then have it."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def message_of(error: OSError) -> str | None:
    """What to tell about a file; None where the error is not about one."""
    if error.errno not in _TOLD or (error.filename is None and error.errno not in _WITHOUT_NAME):
        return None
    what = os.strerror(error.errno)
    if error.filename is None:
        return f"a file cannot be written or read ({what}): {_TOLD[error.errno]}"
    name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else str(error.filename)
    if error.filename2 is not None:
        name = str(error.filename2)
    return f"{shortened(name)}: {what}: {_TOLD[error.errno]}"


def as_input_error(error: OSError, what: str) -> InputError:
    """The error of a library that lost the name of the file: `what` cannot be written or read."""
    code = error.errno or 0
    reason = f"{os.strerror(code)}: {_TOLD[code]}" if code in _TOLD else f"{error}; mend that, or choose another place"
    return InputError(f"{what}: {reason}")


def shortened(path: str) -> str:
    """A path of 160 characters at most: its beginning and its end."""
    return path if len(path) <= _LONGEST else f"{path[: _LONGEST - 63]}...{path[-60:]}"
