"""Files of one store that become files of another without being read: hard links, or copies where there are none."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weatherfm.data_pipeline.store.records.record_checks import path_inside
from weatherfm.data_pipeline.writing.journal import disk_errors


class Links:
    """Makes them.

    Args:
        old: folder of the store that has the files.
        new: folder of the store that gets them.
    """

    def __init__(self, old: Path, new: Path) -> None:
        self._old, self._new = old, new
        self._plain: set[str] = set()
        self._made: set[Path] = set()

    def make(self, files: Mapping[str, Mapping[str, Any]]) -> bool:
        """True when the old store has all of `files` (key -> {`bytes`}) in their sizes; then the new one has them too.

        Raises:
            InputError: one of them, or its folder, is a symbolic link, or the disk is full.
        """
        for key, entry in files.items():
            source = path_inside(self._old, key, self._plain)
            try:
                found = source.lstat()
            except FileNotFoundError:
                return False
            if not stat.S_ISREG(found.st_mode) or found.st_size != entry["bytes"]:
                return False
            self._link(source, found, path_inside(self._new, key, self._plain))
        return True

    def _link(self, source: Path, found: os.stat_result, target: Path) -> None:
        with disk_errors(target, found.st_size):
            if target.parent not in self._made:
                target.parent.mkdir(parents=True, exist_ok=True)
                self._made.add(target.parent)
            if (there := _stat(target)) is not None:
                if os.path.samestat(there, found) or _is_copy(there, found):
                    return
                target.unlink()
            try:
                os.link(source, target)
            except OSError:  # a file system without links: the disk says what else is wrong
                shutil.copy2(source, target)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _is_copy(there: os.stat_result, found: os.stat_result) -> bool:
    """A copy keeps the time of change, which is set last: one that was cut short has another."""
    return (there.st_size, there.st_mtime_ns) == (found.st_size, found.st_mtime_ns)
