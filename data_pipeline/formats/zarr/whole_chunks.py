"""Whole chunks of a Zarr array in a folder, decompressed into the place where they are wanted, without a copy.

ERA5 in the clouds is Zarr version 2, one time of a variable in a Blosc chunk. Libraries decompress such a chunk into
memory of their own and copy it out of there; at 0.25 degrees that takes a third longer.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numcodecs import blosc

_HEADER = 16
"""Bytes of a Blosc header: nbytes and cbytes stand at 4 and 12 (c-blosc, README_CHUNK_FORMAT). A chunk has no more
bytes than its values and that."""


def read_whole(folder: str, metadata: dict[str, Any], picks: Sequence[Any]) -> np.ndarray | None:
    """The part `picks` of an array, when it is some whole chunks, one after the other along the first dimension.

    Args:
        folder: of the array.
        metadata: its `.zarray`.
        picks: what is wanted along each dimension: integer, slice or positions.

    Returns:
        None where it is no such part, or a chunk is not there or not as it should be.

    Raises:
        OSError: a chunk cannot be read.
    """
    shape, chunks = metadata["shape"], metadata["chunks"]
    dtype = np.dtype(metadata["dtype"])
    plain = (metadata.get("compressor") or {}).get("id") == "blosc" and not metadata.get("filters")
    if not plain or metadata["order"] != "C" or not dtype.isnative or chunks[0] != 1 or chunks[1:] != shape[1:]:
        return None
    if not all(isinstance(p, slice) and p.indices(n) == (0, n, 1) for p, n in zip(picks[1:], shape[1:], strict=True)):
        return None
    times = np.arange(shape[0])[picks[0]]
    out = np.empty((times.size, *shape[1:]), dtype)
    separator = metadata.get("dimension_separator", ".")
    for number, part in zip(np.atleast_1d(times).tolist(), out, strict=True):
        if not _decompress(os.path.join(folder, separator.join([str(number), *["0"] * (len(shape) - 1)])), part):
            return None
    return out.reshape(*times.shape, *shape[1:])


class _Memory(threading.local):
    """What a thread reads files into; fresh memory would cost as much as reading does."""

    content = bytearray()


_memory = _Memory()


def _decompress(file: str, out: np.ndarray) -> bool:
    """Put a chunk into `out`; False where its header does not tell of it."""
    with open(file, "rb", buffering=0) as opened:
        size = os.fstat(opened.fileno()).st_size
        if not _HEADER <= size <= out.nbytes + _HEADER:
            return False
        if len(_memory.content) < size:
            _memory.content = bytearray(out.nbytes + _HEADER)
        content = memoryview(_memory.content)[:size]
        if opened.readinto(content) != size:
            return False
    if [int.from_bytes(content[at : at + 4], "little") for at in (4, 12)] != [out.nbytes, size]:
        return False
    try:
        blosc.decompress(content, out)
    except RuntimeError:
        return False
    return True
