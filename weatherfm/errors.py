"""The ways a command ends early that its user is told about in one message."""

from __future__ import annotations

from collections.abc import Sequence

STOPPED = 75
"""Exit status of training that a signal has ended before it was done: start it again. (EX_TEMPFAIL of sysexits.h.)"""


class InputError(ValueError):
    """Something the user can mend: the message says what was wrong, what was given and what to do.

    The command line prints it without a traceback and exits with status 2.
    """


class OutsideError(RuntimeError):
    """Something outside the program ended it, as a machine or a process that is gone: the message says what.

    The command line prints it without a traceback and exits with status 1.
    """


class StopRequest(Exception):
    """A signal has asked training to stop, and there is nothing to save; the text names the signal.

    It never leaves `train`, which says so in its summary.
    """


class QuietExit(Exception):
    """All has been said by another process of the same command: this one only ends with the same status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def some_of(names: Sequence[object], most: int = 10) -> str:
    """`a, b, c`; of a long list, the first and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(map(str, names[:most]))}{more}"


def clipped(text: str, most: int = 60) -> str:
    """The beginning of a text that is longer than so many characters."""
    return text if len(text) <= most else f"{text[: most - 4]} ..."
