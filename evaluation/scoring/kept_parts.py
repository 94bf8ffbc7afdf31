"""Finished parts of an evaluation in a folder: scored cases, and what was fitted before they were scored."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from weatherfm.atomic import write_atomically
from weatherfm.evaluation.scoring.sealed_arrays import read_sealed, write_sealed
from weatherfm.evaluation.scoring.sums_and_series import ScoredCases, load_part, save_part

_log = logging.getLogger(__name__)

_FINGERPRINT = "fingerprint"

Part = dict[str, ScoredCases]
"""Forecast -> its cases."""


def remove_parts(folder: Path) -> None:
    """Remove a folder and all in it; a link to one, as on another disk, stays, and leads to an empty folder."""
    for path in folder.iterdir() if folder.exists() else ():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if folder.is_dir() and not folder.is_symlink():
        folder.rmdir()


class KeptParts:
    """Finished parts in a folder; those of other work are thrown away. It may travel to who sees the same folder.

    Args:
        folder: None keeps nothing.
        fingerprint: of all that decides the scores.
    """

    def __init__(self, folder: Path | None, fingerprint: str) -> None:
        self.folder = None if folder is None else folder.absolute()
        self._fingerprint = fingerprint
        self.there_before = False
        """Parts of the same work are there already."""
        if folder is None:
            return
        note = folder / _FINGERPRINT
        if not note.exists() or note.read_bytes() != fingerprint.encode():
            remove_parts(folder)
            write_atomically(note, fingerprint.encode())
        self.there_before = any(folder.glob("*.part"))

    def find(self, name: str) -> Part | None:
        """A part that was finished before."""
        path = self._path(f"{name}.part")
        try:
            return None if path is None else load_part(path, self._seal_of(name))
        except (OSError, ValueError, KeyError, EOFError) as error:
            _log.warning("%s is damaged (%s) and scored again", path, error)
            return None

    def keep(self, name: str, part: Part) -> None:
        """Write a finished part, whole or not at all."""
        if self.folder is not None:
            save_part(self.folder / f"{name}.part", part, self._seal_of(name))

    def find_fit(self, name: str) -> dict[str, np.ndarray] | None:
        """The numbers of what was fitted before."""
        path = self._path(f"{name}.fit")
        try:
            return None if path is None else read_sealed(path, self._seal_of(name))
        except (OSError, ValueError, KeyError, EOFError) as error:
            _log.warning("%s is damaged (%s) and fitted again", path, error)
            return None

    def keep_fit(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write what was fitted, whole or not at all."""
        if self.folder is not None:
            write_sealed(self.folder / f"{name}.fit", arrays, self._seal_of(name))

    def _path(self, name: str) -> Path | None:
        path = None if self.folder is None else self.folder / name
        return path if path is not None and path.exists() else None

    def _seal_of(self, name: str) -> bytes:
        """So that a part of other work, or another part of this one, is not taken for it."""
        return f"{self._fingerprint} {name}\n".encode()
