"""What all verbs share: reading a run's settings, and speaking."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from weatherfm.training.run_config import RunConfig

Overrides = Annotated[str, Parameter(help="Settings to change, as `model.depth=6 training.steps=500`.")]


def _whole(kind: Any, tokens: Sequence[Any]) -> int:
    """The number that is written; cyclopts would round 1.5."""
    return int(tokens[0].value)


WHOLE = Parameter(converter=_whole)
Whole = Annotated[int | None, WHOLE]
"""A whole number, or not given."""


@contextmanager
def importing() -> Iterator[None]:
    """Around an import of PyTorch, which takes a fifth less time so.

    It makes a million objects of which none is garbage; the collector would look through them again and again.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if before:
            gc.enable()


def is_run(path: Path) -> bool:
    """True for a run's YAML file."""
    from weatherfm.face import runs

    return runs.is_run(path)


def load(path: Path, overrides: tuple[str, ...]) -> RunConfig:
    """The settings of a run.

    Raises:
        InputError: an unreadable file or a wrong setting.
    """
    with importing():
        import weatherfm.training.run_config  # noqa: F401 - brings PyTorch
        from weatherfm.face.runs import read_run

    return read_run(path, *overrides)


def as_json(data: Any) -> str:
    """Readable JSON."""
    return json.dumps(data, indent=2)


def speaks() -> bool:
    """True in the one of several processes that prints."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """The command's own output. Where nobody reads on (`weatherfm plan .. | head`), the work goes on without a word."""
    if speaks():
        _unless_nobody_reads(lambda: print(text))  # noqa: T201 - the command's own output


def flush() -> None:
    """Let out what was said."""
    _unless_nobody_reads(sys.stdout.flush)


def _unless_nobody_reads(speak: Callable[[], None]) -> None:
    try:
        speak()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
