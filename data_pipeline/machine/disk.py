"""Is there room for what is to be written and downloaded?"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from weatherfm.errors import InputError
from weatherfm.home import expanded

_log = logging.getLogger(__name__)

USUAL_SHARE = 0.7
"""Of a store's bytes that are left on disk: measured between 0.58 and 0.93 on global ERA5 and IFS fields of
geopotential, temperature, wind and humidity."""
LEAST_SHARE = 0.3
"""Below what such channels compress to; precipitation alone comes near it (0.35 to 0.58)."""


def free_bytes(place: Path) -> int:
    """Free for this user on the disk where `place` is, or would be made."""
    return shutil.disk_usage(existing(place)).free


def check_space(place: Path, n_bytes: int) -> None:
    """Warn where a store's `n_bytes` before compression may not fit, refuse where they cannot.

    Raises:
        InputError: even well compressed they are more than is free.
    """
    free = free_bytes(place)
    if LEAST_SHARE * n_bytes > free:
        raise InputError(
            f"{place} needs {_size(n_bytes)} before compression, about {_size(USUAL_SHARE * n_bytes)} on disk, and "
            f"{_size(free)} are free there; free some, put data.store on another disk, or ask for fewer days or "
            "channels"
        )
    if n_bytes > free:
        _log.warning(
            "%s needs about %s on disk (%s before compression), and %s are free there: it may not fit",
            place,
            _size(USUAL_SHARE * n_bytes),
            _size(n_bytes),
            _size(free),
        )


def check_download(cache: Path, download: int, store: Path, n_bytes: int) -> None:
    """As `check_space`, for a download that comes first; both may be on one disk.

    Args:
        cache: where downloads go.
        download: bytes to come.
        store: where the store goes.
        n_bytes: of the store before compression.

    Raises:
        InputError: they cannot fit.
    """
    free = free_bytes(cache)
    if download > free:
        raise InputError(
            f"{_size(download)} are to be downloaded to {cache}, where {_size(free)} are free; free some, set "
            "source.cache to another disk, or ask for fewer days or channels"
        )
    same = os.stat(existing(cache)).st_dev == os.stat(existing(store)).st_dev
    if same and download + LEAST_SHARE * n_bytes > free:
        raise InputError(
            f"{_size(download)} are to be downloaded to {cache}, and the store {store} needs about "
            f"{_size(USUAL_SHARE * n_bytes)} on the same disk, where {_size(free)} are free; free some, or put "
            "source.cache or data.store on another disk"
        )
    check_space(store, n_bytes)


def existing(place: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    place = expanded(place).absolute()
    return next(folder for folder in (place, *place.parents) if folder.exists())


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:,.1f} GB"
