"""How a command ends: its exit status, and the one message that says why it failed."""

from __future__ import annotations

import sys
from collections.abc import Callable

from weatherfm.errors import InputError, OutsideError, QuietExit, clipped
from weatherfm.file_errors import message_of

_NO_MEMORY = (
    "memory is lacking: take a smaller training.batch_size or forecast.batch_size, more devices or "
    "parallel.activation_checkpointing=block; `weatherfm plan` says what a training takes"
)
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
        if isinstance(error, OSError) and (told := message_of(error)) is not None:
            return _tell(_with_notes(told, error), 2)
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # PyTorch's: not imported here
            return _tell(_with_notes(f"{_NO_MEMORY} ({error})", error), 1)
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
