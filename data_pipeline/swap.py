"""A finished store that takes the place of another, so that readers find the old one or the new one.

The new store is written beside the old one, in a hidden folder, and then the two change names. Killed between the two
renames, the place is empty until any command that writes stores is started again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from weatherfm.data_pipeline.manifest import NAME


def place_of_next(root: Path) -> Path:
    """Where the successor of the store `root` is written."""
    return root.with_name(f".{root.name}.next")


def _place_of_last(root: Path) -> Path:
    return root.with_name(f".{root.name}.last")


def swap(root: Path) -> None:
    """Put the finished successor of `root` in its place and delete what stood there."""
    root.rename(_place_of_last(root))
    settle(root)


def settle(root: Path) -> None:
    """Finish a `swap` that was interrupted; nothing to do otherwise."""
    last = _place_of_last(root)
    if not last.exists():
        return
    successor = place_of_next(root)
    if not root.exists() and (successor / NAME).is_file():
        successor.rename(root)
    if (root / NAME).is_file():
        shutil.rmtree(last)
