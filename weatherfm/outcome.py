"""How a command ends: its exit status, and the one message that says why it failed."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from weatherfm.errors import InputError, OutsideError, QuietExit, clipped

_OF_PATHS = {
    errno.ENAMETOOLONG: "name a shorter path",
    errno.EACCES: "give yourself the right to it, or name another path",
    errno.EPERM: "give yourself the right to it, or name another path",
    errno.EROFS: "name a path that can be written",
    errno.ENOENT: "make it, or name another path",
    errno.ENOTDIR: "a file stands where a folder is meant; name another path",
    errno.EISDIR: "a folder stands where a file is meant; name another path",
    errno.ENOSPC: "make room, and start again",
    errno.EDQUOT: "make room, and start again",
}
"""What its user can mend where a file cannot be read or written, by the system's number of the reason."""
_WIDEST, _MOST_LINES = 1500, 40
"""Of a message: characters of a line, and lines."""


def report_errors(action: Callable[[], int], debug: bool = False) -> int:
    """What `action` returns, or the exit status of its error, told on stderr without a traceback.

    Args:
        action: returns an exit status.
        debug: let errors through, so that Python shows where they were raised.
    """
    try:
        return action()
    except QuietExit as end:
        return end.status
    except KeyboardInterrupt:
        return _tell("interrupted; the same command goes on from here", 130)
    except (InputError, OutsideError) as error:
        if debug:
            raise
        return _tell(_with_notes(str(error), error), 2 if isinstance(error, InputError) else 1)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.errno in _OF_PATHS and error.filename is not None:
            path = clipped(os.fsdecode(error.filename), 200)
            return _tell(_with_notes(f"{path}: {error.strerror}; {_OF_PATHS[error.errno]}", error), 2)
        text = _with_notes(f"unexpected {type(error).__name__}: {error}", error)
        return _tell(f"{text}\nThis is a fault of weatherfm; --debug shows where.", 1)


def _with_notes(text: str, error: BaseException) -> str:
    return "\n".join([text, *getattr(error, "__notes__", [])])


def _tell(message: str, status: int) -> int:
    lines = message.splitlines()
    told = "\n".join(clipped(line, _WIDEST) for line in lines[:_MOST_LINES])
    more = f"\n  and {len(lines) - _MOST_LINES} lines more" if len(lines) > _MOST_LINES else ""
    print(f"weatherfm: {told}{more}", file=sys.stderr)  # noqa: T201
    return status
