"""What all verbs share: reading a run's settings, and speaking."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from weatherfm.errors import InputError

if TYPE_CHECKING:
    from weatherfm.training.config import RunConfig

Overrides = Annotated[str, Parameter(help="Settings to change, as `model.depth=6 training.steps=500`.")]


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
    return path.suffix in (".yaml", ".yml")


def load(path: Path, overrides: tuple[str, ...]) -> RunConfig:
    """The settings of a run.

    Raises:
        InputError: an unreadable file or a wrong setting.
    """
    with importing():
        from weatherfm.training.config import load_run

    return load_run(path, overrides)


def given_sections(source: str, overrides: Sequence[str], what: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings that follow a source which is no run's file, by section.

    Args:
        source: of the command line.
        overrides: what follows it.
        what: the source is, for messages.
        names: of the sections that can be set.

    Raises:
        InputError: a setting of another section, or one that cannot be read.
    """
    if not overrides:
        return {name: {} for name in names}
    with importing():
        from weatherfm.training.config import apply_override

    data: dict[str, Any] = {}
    for override in overrides:
        apply_override(data, override)
    if unknown := [key for key in data if key not in names]:
        raise InputError(
            f"{source} holds {what}: only {' and '.join(f'{name}.*' for name in names)} can be set with it, not "
            f"{', '.join(unknown)}; name a run's YAML file to change others"
        )
    for name, value in data.items():
        if not isinstance(value, dict):
            raise InputError(f"{name}={value!r} is a section, not a setting; write {name}.KEY=VALUE")
    return {name: data.get(name, {}) for name in names}


def settings(cls: Any, data: Any, origin: str) -> Any:
    """Plain data as settings of a class."""
    from weatherfm.config import parse_settings

    return parse_settings(cls, data, origin)


def as_json(data: Any) -> str:
    """Readable JSON."""
    return json.dumps(data, indent=2)


def speaks() -> bool:
    """True in the one of several processes that prints."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """The command's own output."""
    if speaks():
        print(text)  # noqa: T201 - the command's own output
