"""Paths that begin with `~`, also where nobody has a home, as in containers of users without a name."""

from __future__ import annotations

import os
from pathlib import Path

from weatherfm.errors import InputError


def expanded(path: str | Path) -> Path:
    """A path without `~`.

    Raises:
        InputError: there is no such home folder, or it is no path at all.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"a path is expected, got {type(path).__name__}; give it as text or pathlib.Path")
    found = os.path.expanduser(path)
    if found.startswith("~") and not os.path.lexists(found):
        raise InputError(
            f"{path} is in a home folder, and there is none: HOME is not set, or no user is called so; set HOME, or "
            "write the path in full (downloads and other kept files: source.cache)"
        )
    return Path(found)
