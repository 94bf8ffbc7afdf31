"""What becomes of memory that arrays no longer need: kept for the next ones, in workers of dask as anywhere else.

glibc maps a large array apart and hands it back when it is freed, until it has seen that such arrays come again: then
it keeps their memory. dask's nanny starts workers with MALLOC_TRIM_THRESHOLD_, which turns that learning off, as any
threshold that is set does (mallopt(3)): each field is then mapped, filled with zeros page by page and given back, which
takes as much of the processor as reading it.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

_DASKS = "65536"
"""What a nanny sets unless told otherwise; any other value is somebody's choice."""
_TRIM, _MMAP = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h."""
_LARGEST = 32 * 2**20
"""Bytes to which glibc raises the second on 64 bits by itself; the first then becomes twice as much."""


@cache
def keep_freed_memory() -> bool:
    """Set both thresholds of this process to what they would have become; True when that was needed and done."""
    if os.environ.get("MALLOC_TRIM_THRESHOLD_") != _DASKS:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's alone
    return mallopt is not None and bool(mallopt(_MMAP, _LARGEST)) and bool(mallopt(_TRIM, 2 * _LARGEST))
