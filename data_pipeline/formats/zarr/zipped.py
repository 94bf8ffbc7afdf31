"""Zarr stores packed into one ZIP file, read where they lie: a chunk is a member, and nothing is unpacked."""

from __future__ import annotations

import json
import lzma
import os
import zipfile
import zlib
from collections.abc import AsyncIterator, Iterable
from functools import lru_cache

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ZipStore

from weatherfm.errors import InputError

DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)
"""What reading a member raises that is cut or was changed."""
_GROUP = ("zarr.json", ".zgroup", ".zmetadata")
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def folder_of_store(path: str) -> str | None:
    """Where in a ZIP file the group of a Zarr store stands: `""` or `"FOLDER/"`; None of an archive of other things.

    Raises:
        InputError: the list of members is damaged, or members have a password or are packed in a way unknown here.
    """
    told = os.stat(path)
    return _folder_of_store(path, told.st_size, told.st_mtime_ns)


@lru_cache(maxsize=256)
def _folder_of_store(path: str, size: int, changed: int) -> str | None:
    """Looked up once a file: a list of 200,000 members takes seconds. `size` and `changed` tell files apart."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            found = _folder_among(names)
            if found is not None:
                _refuse_unreadable(archive.infolist())
                return None if _is_array(archive, f"{found}zarr.json") else found
    except DAMAGE as error:
        raise InputError(f"it is a ZIP archive, truncated or damaged ({error}); fetch it again") from error
    return None


class ZippedStore(ZipStore):
    """The Zarr store in a ZIP file, at its root or in a folder, to read from.

    Args:
        path: of the file.
        folder: as `folder_of_store` tells it.
    """

    def __init__(self, path: str, folder: str) -> None:
        super().__init__(path, mode="r")
        self._folder = folder

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The part `key`; None where it is not there."""
        return await super().get(self._folder + key, prototype, byte_range)

    async def getsize(self, key: str) -> int:
        """Bytes of the part `key`, told by the list of members.

        Raises:
            FileNotFoundError: it is not there.
        """
        await self._ensure_open()
        try:
            return self._zf.getinfo(self._folder + key).compress_size
        except KeyError:
            raise FileNotFoundError(key) from None

    async def exists(self, key: str) -> bool:
        """Whether the part `key` is there."""
        return await super().exists(self._folder + key)

    async def list(self) -> AsyncIterator[str]:
        """Keys of all parts."""
        for key in self._zf.namelist():
            if key.startswith(self._folder):
                yield key.removeprefix(self._folder)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names right below `prefix`."""
        async for name in super().list_dir(self._folder + prefix):
            yield name


def _folder_among(names: Iterable[str]) -> str | None:
    """A store packed as a folder stands in one; several stores are none that is meant."""
    parents = {name.rpartition("/")[0] for name in names if name.rpartition("/")[2] in _GROUP}
    if "" in parents:
        return ""
    top = [parent for parent in parents if "/" not in parent]
    return f"{top[0]}/" if len(top) == 1 else None


def _refuse_unreadable(members: Iterable[zipfile.ZipInfo]) -> None:
    for info in members:
        if info.flag_bits & 1:
            raise InputError(f"it is a Zarr store in a ZIP file with a password ({info.filename}); unpack it yourself")
        if info.compress_type not in _PACKED:
            raise InputError(
                f"it is a Zarr store in a ZIP file whose member {info.filename} is packed by method "
                f"{info.compress_type}, which Python cannot read; unpack it yourself"
            )


def _is_array(archive: zipfile.ZipFile, name: str) -> bool:
    if name not in archive.namelist():
        return False
    try:
        return bool(json.loads(archive.read(name)).get("node_type") == "array")
    except (ValueError, AttributeError):
        raise InputError(f"it is a Zarr store in a ZIP file whose {name} is no metadata; pack it anew") from None
