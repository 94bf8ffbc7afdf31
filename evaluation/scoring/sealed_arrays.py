"""Named arrays in one file with a checksum, written and read without a copy of the whole in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from weatherfm.file_errors import naming

_DIGEST = hashlib.sha256().digest_size
_BYTES = 2**20
"""Read at a time for the checksum."""


def write_sealed(path: Path, arrays: Mapping[str, np.ndarray], seal: bytes = b"") -> None:
    """Write arrays (none of objects), whole or not at all, with a checksum over `seal`, which says what they are of,
    and themselves; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming(path), temporary.open("w+b") as file:
            np.save(file, np.array(list(arrays), np.str_), allow_pickle=False)
            for array in arrays.values():
                np.save(file, array, allow_pickle=False)
            file.write(_digest(file, file.tell(), seal))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_sealed(path: Path, seal: bytes = b"") -> dict[str, np.ndarray]:
    """Inverse of `write_sealed`.

    Raises:
        ValueError: it was changed since, or is of something else.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END) - _DIGEST
        if size < 0 or _digest(file, size, seal) != file.read():
            raise ValueError("its checksum is not that of its content")
        file.seek(0)
        names = np.load(file, allow_pickle=False)
        return {str(name): np.load(file, allow_pickle=False) for name in names}


def _digest(file: BinaryIO, size: int, seal: bytes) -> bytes:
    """Of the seal and the first `size` bytes, behind which the file then stands."""
    digest = hashlib.sha256(seal)
    file.seek(0)
    for first in range(0, size, _BYTES):
        digest.update(file.read(min(_BYTES, size - first)))
    return digest.digest()
