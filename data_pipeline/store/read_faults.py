"""What was wrong with a file of a store that could not be read: which file, whose fields, and why."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorstore as ts

from weatherfm.errors import InputError, some_of

_FILE = re.compile(r'local file "([^"]+)"')
_CHUNK = re.compile(r"Error reading chunk \{[^}]*\}|shard entry \{[\d, ]*\}/\{[\d, ]*\} in ")
_LONGEST = 200
_NAMED = 4


def read_back(view: ts.TensorStore, path: Path) -> np.ndarray:
    """The values of a part of the store `path` that is being written or made longer.

    Raises:
        InputError: a file that was written before is missing or damaged; names it.
    """
    try:
        return np.asarray(view.read().result())
    except ValueError as error:
        raise InputError(
            f"{fault_of_read(error, path, (), len)}; start the same command again, which writes it anew where the "
            "store is unfinished; a finished one `weatherfm verify --repair` mends"
        ) from error


def fault_of_read(error: Exception, path: Path, channels: Sequence[str], width: Callable[[str], int]) -> str:
    """One clause that names the file, its variables and what is wrong with it.

    Args:
        error: tensorstore's.
        path: folder of the store.
        channels: short names, in the store's order.
        width: how many of them one file of an array (`state`, `climatology`) holds.
    """
    text = str(error).splitlines()[0]
    files = _FILE.findall(text)
    file = Path(files[0]) if files else path
    reason = _reason(text)
    if not files:
        return f"a file of the store {path} {reason}"
    of = _variables(file, path, channels, width)
    return f"{file}{of and f' ({of})'} {reason}"


def _reason(text: str) -> str:
    if text.startswith("NOT_FOUND"):
        return "is missing, or a part of it was never written"
    if "Digest mismatch" in text:
        return "is damaged: its content is not what its checksum says"
    if found := re.search(r"OS error \d+: \w+:? ?([^\]]*)", text):
        return f"cannot be read ({found[1]})"
    return f"is damaged ({shortened(_FILE.sub('it', text))})"


def shortened(text: str) -> str:
    """The first line of a message, of 200 characters at most."""
    text = _CHUNK.sub("", text.splitlines()[0] if text else "")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _variables(file: Path, path: Path, channels: Sequence[str], width: Callable[[str], int]) -> str:
    """What the file holds, by its place: `fields of z500, t850`; nothing where the place does not tell."""
    try:
        array, _, *place = Path(file).relative_to(path).parts
        column = int(place[{"state": 1, "climatology": 2}[array]])
    except (ValueError, KeyError, IndexError):
        return ""
    if not channels:
        return ""
    held = width(array)
    own = channels[column * held : (column + 1) * held]
    what = "fields" if array == "state" else "climatology"
    return f"{what} of {some_of(own, _NAMED)}"
