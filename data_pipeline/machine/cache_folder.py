"""Folders where a source keeps what it fetched or simulated: asked before the work whether it will find a place."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from weatherfm.data_pipeline.machine.disk import existing
from weatherfm.errors import InputError

_MIB = 2**20


def check_writable(folder: Path, what: str) -> None:
    """Try to write where `folder` is or will be; nothing is left behind.

    Args:
        folder: need not exist yet.
        what: will be kept there, for the message, as "downloads".

    Raises:
        InputError: it cannot be written to.
    """
    try:
        with tempfile.TemporaryFile(dir=existing(folder)) as file:
            file.write(b"\0")
    except OSError as error:
        raise unwritable(folder, what, error) from error


def check_room(folder: Path, needed: int, what: str) -> None:
    """Refuse work that the disk of `folder` cannot hold.

    Args:
        folder: need not exist yet.
        needed: bytes.
        what: takes them, for the message.

    Raises:
        InputError: less is free.
    """
    free = shutil.disk_usage(existing(folder)).free
    if needed > free:
        raise InputError(
            f"{what} take about {_size(needed)}, and {_size(free)} are free in {folder}; free some space, choose "
            "another source.cache, or ask for less"
        )


def unwritable(folder: Path, what: str, error: OSError) -> InputError:
    """The refusal of a folder that let nobody write."""
    return InputError(f"{what} cannot be kept in {folder} ({error.strerror or error}); choose source.cache")


def _size(count: int) -> str:
    mebibytes = count / _MIB
    return f"{mebibytes / 1024:,.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.0f} MiB"
