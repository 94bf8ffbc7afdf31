"""Arguments of public functions, looked at before any work: what is none of their kind is refused in words."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from weatherfm.errors import InputError

_OF_ZARR = ("zarr.json", ".zgroup", ".zarray")


def path_text(given: Any, what: str) -> str:
    """A path or an address as text.

    Raises:
        InputError: it is neither text nor a path, or empty.
    """
    if not isinstance(given, str | os.PathLike):
        raise InputError(f"{what} is a path or an address, got {type(given).__name__}{_shown(given)}")
    text = os.fspath(given)
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{what} is a path or an address, got {text!r}; give one, or leave it out")
    return text


def file_to_write(given: Any, what: str, ending: str) -> Path:
    """The path of a file that the work will end in.

    Args:
        given: by the user.
        what: its name in messages.
        ending: of such files, as ".nc"; a file of another kind that is there already is not replaced.

    Raises:
        InputError: no path, a folder's, that of something in a Zarr store, or of a file of another kind.
    """
    path = Path(path_text(given, what))
    if path.is_dir():
        raise InputError(f"{what} {path} is a folder; name a file in it")
    for folder in Path(os.path.abspath(path)).parents:
        if any((folder / name).is_file() for name in _OF_ZARR):
            raise InputError(f"{what} {path} lies in the Zarr store {folder}; name a file elsewhere")
    if path.exists() and not path.is_file():
        raise InputError(f"{what} {path} is a device or a pipe, which would be replaced; name a file")
    if path.is_file() and path.suffix != ending:
        raise InputError(
            f"{what} {path} is there already and no {ending} file: it would be lost; name another, or remove it first"
        )
    return path


def listed(given: Any, what: str) -> list[Any]:
    """One, several, or none.

    Raises:
        InputError: it is no text, no path, and nothing that holds some.
    """
    if given is None:
        return []
    if isinstance(given, str | os.PathLike):
        return [given]
    if not isinstance(given, Iterable):
        raise InputError(f"{what} is a text or a list of texts, got {type(given).__name__}{_shown(given)}")
    return list(given)


def require_values(options: Mapping[str, Iterable[Any] | None]) -> None:
    """Refuse options that are there and say nothing, as of an unset variable of a script, or the same twice.

    Args:
        options: as they are written -> what was given; None: the option is not there.

    Raises:
        InputError: naming the option.
    """
    for name, values in options.items():
        given = None if values is None else [str(value).strip() for value in values]
        if given is not None and not all([given, *given]):
            raise InputError(f"{name} has no value; give one, or leave the option out")
        if twice := sorted({value for value in given or () if (given or []).count(value) > 1}):
            raise InputError(f"{name} names {', '.join(twice)} twice; name each once")


def count(given: Any, what: str) -> int | None:
    """A whole number from 1 on, or None for what is usual.

    Raises:
        InputError: anything else.
    """
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, Integral):
        raise InputError(f"{what} must be a whole number, got {type(given).__name__}{_shown(given)}")
    if given < 1:
        raise InputError(f"{what} must be 1 or more, got {given}")
    return int(given)


def positive(given: Any, what: str) -> float:
    """A number above 0.

    Raises:
        InputError: anything else.
    """
    if isinstance(given, bool) or not isinstance(given, Real):
        raise InputError(f"{what} must be a number, got {type(given).__name__}{_shown(given)}")
    value = float(given)
    if not 0 < value < math.inf:
        raise InputError(f"{what} must be {'finite' if value == math.inf else 'above 0'}, got {value:g}")
    return value


def scheduler_address(given: Any) -> str | None:
    """The address of a dask.distributed scheduler, or None.

    Raises:
        InputError: it is no text.
    """
    if given is not None and not isinstance(given, str):
        raise InputError(f"scheduler is an address as 'tcp://host:8786', got {type(given).__name__}{_shown(given)}")
    return given


def _shown(given: Any) -> str:
    """Behind its type; what is large (a Dataset, an array) is told by that alone."""
    text = repr(given)
    return f" {text}" if len(text) <= 60 and "\n" not in text else ""
