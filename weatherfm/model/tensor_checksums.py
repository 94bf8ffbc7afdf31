"""Checksums of a weights file, in its own header: whoever reads a changed bit is told.

The header has under `checksums` the CRC-32 of each tensor with its name, type and shape, and under `checksum` the
SHA-256 of all of the header but that. Files of before have neither, and are read without.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weatherfm.errors import InputError

_SEAL, _TENSORS = "checksum", "checksums"
ANEW = "train again or copy it anew"
"""What helps where a weights file is damaged."""


def sealed(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """A header as JSON reads it back, with the checksums of all tensors [any] and of itself."""
    body = {key: value for key, value in header.items() if key not in (_SEAL, _TENSORS)}
    told = body | {_TENSORS: {name: _checksum(name, value) for name, value in tensors.items()}}
    plain: dict[str, Any] = json.loads(json.dumps(told))
    return plain | {_SEAL: _seal(plain)}


class CheckedTensors:
    """An open safetensors file whose tensors are compared with their checksums as they are read.

    Args:
        path: named in messages.
        file: open.
        header: ours, as JSON reads it; empty where the file has none.

    Raises:
        InputError: the header, or the list of tensors, is not what it was.
    """

    def __init__(self, path: str | Path, file: Any, header: Any) -> None:
        self._path, self._file = path, file
        self._known: dict[str, str] | None = None
        if not isinstance(header, dict) or _SEAL not in header:
            return
        if header[_SEAL] != _seal(header):
            raise InputError(f"{path} is damaged: its header is not what its checksum says; {ANEW}")
        known: dict[str, str] = header.get(_TENSORS, {})
        if odd := known.keys() ^ set(file.keys()):
            raise InputError(f"{path} is damaged: its list of tensors is not what it was ({min(odd)[:80]!r}); {ANEW}")
        self._known = known

    def keys(self) -> list[str]:
        """Names of all tensors."""
        return list(self._file.keys())

    def metadata(self) -> dict[str, str] | None:
        """What stands in the header beside the tensors."""
        found: dict[str, str] | None = self._file.metadata()
        return found

    def get_tensor(self, name: str) -> Tensor:
        """One tensor, whole; in the file's own memory.

        Raises:
            InputError: it is not what it was.
        """
        value: Tensor = self._file.get_tensor(name)
        if self._known is not None and self._known.get(name) != _checksum(name, value):
            raise InputError(f"{self._path} is damaged: {name} is not what its checksum says; {ANEW}")
        return value


def _seal(header: Mapping[str, Any]) -> str:
    body = {key: value for key, value in header.items() if key != _SEAL}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _checksum(name: str, value: Tensor) -> str:
    what = f"{name} {value.dtype} {list(value.shape)}".encode()
    flat = value.detach().cpu().contiguous().flatten()
    begun = zlib.crc32(what)
    return f"{zlib.crc32(flat.view(torch.uint8).numpy().data, begun) if flat.numel() else begun:08x}"
