"""Zarr stores, in a folder or by address: what is not there is an error, and what fails for a moment is tried again."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from typing import TypeVar

import xarray as xr
import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, WrapperStore

from weatherfm.data_pipeline.access import PUBLIC, Access
from weatherfm.data_pipeline.formats.time_values import decoded
from weatherfm.data_pipeline.formats.zarr.filesystems import open_address
from weatherfm.data_pipeline.formats.zarr.icechunk_package import IcechunkFault
from weatherfm.data_pipeline.formats.zarr.icechunk_repository import is_repository, open_snapshot, pinned
from weatherfm.data_pipeline.formats.zarr.retries import describe, insist, is_denied
from weatherfm.data_pipeline.formats.zarr.zipped import DAMAGE, ZippedStore, folder_of_store
from weatherfm.data_pipeline.source_config import ADDRESS
from weatherfm.errors import InputError, OutsideError

_log = logging.getLogger(__name__)
_KEY = "give a key that may read it (source.storage_options)"

T = TypeVar("T")


class ChunkError(Exception):
    """A store does not deliver one of its parts; whoever knows its variable and time makes a message of it.

    Args:
        key: of the part.
        reason: what is wrong, to be said after the key.
        cure: what helps, where it is known better than by whoever makes the message.
        place: number of the chunk along each dimension, where the key tells only the shard that should hold it.
    """

    def __init__(self, key: str, reason: str, cure: str | None = None, place: tuple[int, ...] | None = None) -> None:
        super().__init__(key, reason, cure, place)
        self.key, self.reason, self.cure, self.place = key, reason, cure, place


class TrustedStore(WrapperStore[Store]):
    """A Zarr store to read from, that never passes a missing chunk off as fill values unless told to.

    Args:
        store: what it reads from.
        address: of a store across a network, whose failures are waited out; None for a folder.
        access: whether missing chunks may be filled in, and the secrets that messages must not show.
    """

    def __init__(self, store: Store, address: str | None = None, access: Access = PUBLIC) -> None:
        super().__init__(store)
        self.address, self.access = address, access

        self.refusal: ChunkError | None = None
        """Why some metadata could not be had; clouds answer so for what is not there, too."""
        self._filled: set[str] = set()

    def _with_store(self, store: Store) -> TrustedStore:
        return TrustedStore(store, self.address, self.access)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The part `key`; None for metadata that is not there, and for a chunk of a coordinate that is.

        Writers leave out chunks of nothing but fill values, and the time axis of a file that holds one time is such a
        chunk more often than not; one that was lost shows as repeated or missing times.

        Raises:
            ChunkError: a chunk is not there and may not be filled in, or the store refuses it.
            OutsideError: the network failed, again and again.
        """
        try:
            value = await self._insist(lambda: self._store.get(key, prototype, byte_range), key)
        except ChunkError as error:
            if chunk_place(key):
                raise
            self.refusal, value = error, None
        if value is None and len(chunk_place(key)) > 1:
            if not self.access.fill:
                raise ChunkError(key, "is not there")
            self.note_filled(key)
        return value

    async def getsize(self, key: str) -> int:
        """Bytes of the part `key` as stored; raises as `get`."""
        try:
            return await self._insist(lambda: self._store.getsize(key), key)
        except FileNotFoundError as error:
            raise ChunkError(key, "is not there") from error

    def note_filled(self, key: str) -> None:
        """Say once for each array that chunks of it are filled in."""
        name = re.sub(r"/(c/)?[\d./]+$", "", key)
        if name not in self._filled:
            self._filled.add(name)
            _log.warning(
                "%s: %s has chunks that were never written, the first met is %s: its fill value stands there, as "
                "source.missing_chunks: fill says", self.address or self._store, name, key,
            )  # fmt: skip

    async def _insist(self, request: Callable[[], Awaitable[T]], key: str) -> T:
        """The answer to a request, which is repeated as long as only the network is to blame."""
        if self.address is None:
            try:
                return await request()
            except (*DAMAGE, IcechunkFault, ConnectionError) as error:
                raise ChunkError(key, f"is damaged ({describe(error)})") from error
        try:
            return await insist(request, self.address, key, self.access.masked, self.access.secret)
        except (FileNotFoundError, OutsideError):
            raise
        except Exception as error:  # noqa: BLE001 - each is raised below, without what might show a key
            reason = f"is refused ({self.access.masked(describe(error))})"
            refusal, behind = ChunkError(key, reason, _KEY if is_denied(error) else None), error
        raise refusal from (None if self.access.secret else behind)


def is_address(path: str) -> bool:
    """True for gs://, s3://, https:// and the like, which are no paths of this machine."""
    return ADDRESS.match(path) is not None


def chunk_place(key: str) -> tuple[int, ...]:
    """Number of a chunk along each dimension of its array, as its key tells; empty for the key of metadata."""
    match = re.search(r"/(?:c/)?(\d+(?:[./]\d+)*)$", key)
    return () if match is None else tuple(int(part) for part in re.split(r"[./]", match[1]))


def open_zarr(path: str, access: Access = PUBLIC) -> xr.Dataset:
    """The dataset of a Zarr store in a folder or at an address, decoded and lazy.

    Raises:
        InputError: no Zarr store there, access refused or a package missing (without the path).
        OutsideError: the network failed.
    """
    store = open_store(path, access)
    try:
        group = zarr.open_group(store, mode="r")
        consolidated = group.metadata.consolidated_metadata is not None
        raw = xr.open_zarr(store, chunks=None, consolidated=consolidated, decode_cf=False)
        if group.metadata.zarr_format == 2:
            _keep_zeros(raw)
        dataset = decoded(partial(xr.decode_cf, raw))
    except ChunkError as error:
        raise InputError(f"its part {error.key} {error.reason}; {error.cure or _cure(path)}") from error
    except FileNotFoundError as error:
        why = "" if store.refusal is None else f" ({store.refusal.key} {store.refusal.reason})"
        or_key = "" if store.refusal is None or store.refusal.cure is None else f", or {store.refusal.cure}"
        raise InputError(f"no Zarr store is there{why}; {_cure(path)}{or_key}") from error
    if is_address(path) and not consolidated and not dataset.variables:
        raise InputError(
            "its server lists no arrays and it has no consolidated metadata; run zarr.consolidate_metadata on it"
        )
    return dataset


def _keep_zeros(dataset: xr.Dataset) -> None:
    """Take 0 for a value again in a dataset of Zarr version 2, before it is decoded.

    That version has one word for the value of unwritten chunks and the one that means: missing. It is both, as xarray
    writes it, save for 0 of values that are not packed: that is zarr's own default, and 0 m s-1 and 0 m of rain are
    weather.
    """
    for variable in dataset.variables.values():
        packed = {"scale_factor", "add_offset"} & variable.attrs.keys()
        if not packed and variable.dtype.kind in "iuf" and variable.attrs.get("_FillValue") == 0:
            del variable.attrs["_FillValue"]


def open_store(path: str, access: Access = PUBLIC) -> TrustedStore:
    """The store in a folder, ZIP file or Icechunk repository or at an address; public clouds are asked without a key.

    Raises:
        InputError: a package for such addresses is not installed, nobody knows such addresses, or an option is unknown.
    """
    if is_repository(path):
        return TrustedStore(open_snapshot(path, pinned(path, access)), path if is_address(path) else None, access)
    if is_address(path):
        return TrustedStore(open_address(path, access), path, access)
    if os.path.isfile(path):
        told = os.stat(path)
        return TrustedStore(_zipped(path, told.st_size, told.st_mtime_ns), None, access)
    return TrustedStore(LocalStore(path, read_only=True), None, access)


@lru_cache(maxsize=16)
def _zipped(path: str, size: int, changed: int) -> ZippedStore:
    """Kept open: the list of its members is as long as the store has chunks. `size` and `changed` tell files apart."""
    return ZippedStore(path, folder_of_store(path) or "")


def _cure(path: str) -> str:
    return "correct the address" if is_address(path) else "fetch it again"
