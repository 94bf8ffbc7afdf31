"""Zarr stores, in a folder or by address: what is not there is an error, and what fails for a moment is tried again."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import xarray as xr
import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from weatherfm.data_pipeline.formats.time_values import decoded
from weatherfm.data_pipeline.source_config import ADDRESS
from weatherfm.errors import InputError, OutsideError

WAITS: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try of a request that failed for the moment."""
SILENCE = 60.0
"""Seconds without a byte after which a request has failed."""
GOOGLE = "https://storage.googleapis.com"
"""Where gs:// addresses are read: public buckets need no key there, and no package but aiohttp."""

_BUSY = {408, 425, 429}  # HTTP statuses below 500 that mean: try again later
_BROKEN = {
    errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EBUSY,
}  # fmt: skip
_NETWORK_PACKAGES = {"aiohttp", "requests", "urllib3", "botocore", "aiobotocore"}

T = TypeVar("T")


class ChunkError(Exception):
    """A store does not deliver one of its parts; whoever knows its variable and time makes a message of it."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key, self.reason = key, reason


class TrustedStore(WrapperStore[Store]):
    """A Zarr store to read from, that never passes a missing chunk off as fill values.

    Args:
        store: what it reads from.
        address: of a store across a network, whose failures are waited out; None for a folder.
    """

    def __init__(self, store: Store, address: str | None = None) -> None:
        super().__init__(store)
        self.address = address

        self.refusal = ""
        """Why some metadata could not be had; clouds answer so for what is not there, too."""

    def _with_store(self, store: Store) -> TrustedStore:
        return TrustedStore(store, self.address)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The part `key`; None for metadata that is not there, and for a chunk of a coordinate that is.

        Writers leave out chunks of nothing but fill values, and the time axis of a file that holds one time is such a
        chunk more often than not; one that was lost shows as repeated or missing times.

        Raises:
            ChunkError: a chunk is not there, or the store refuses it.
            OutsideError: the network failed, again and again.
        """
        try:
            value = await self._insist(lambda: self._store.get(key, prototype, byte_range), key)
        except ChunkError as error:
            if chunk_place(key):
                raise
            self.refusal, value = f" ({error.key} {error.reason})", None
        if value is None and len(chunk_place(key)) > 1:
            raise ChunkError(key, "is not there")
        return value

    async def getsize(self, key: str) -> int:
        """Bytes of the part `key` as stored; raises as `get`."""
        try:
            return await self._insist(lambda: self._store.getsize(key), key)
        except FileNotFoundError as error:
            raise ChunkError(key, "is not there") from error

    async def _insist(self, request: Callable[[], Awaitable[T]], key: str) -> T:
        """The answer to a request, which is repeated as long as only the network is to blame."""
        if self.address is None:
            return await request()
        tries = 0
        while True:
            try:
                return await request()
            except FileNotFoundError:
                raise
            except Exception as error:
                if not is_passing(error):
                    raise ChunkError(key, f"is refused ({_text(error)})") from error
                if tries == len(WAITS):
                    raise OutsideError(
                        f"network: {self.address}/{key} could not be read in {tries + 1} tries ({_text(error)}); "
                        "what is written is kept: start the same command again when the network is back"
                    ) from error
            await asyncio.sleep(WAITS[tries])
            tries += 1


def is_address(path: str) -> bool:
    """True for gs://, s3://, https:// and the like, which are no paths of this machine."""
    return ADDRESS.match(path) is not None


def chunk_place(key: str) -> tuple[int, ...]:
    """Number of a chunk along each dimension of its array, as its key tells; empty for the key of metadata."""
    match = re.search(r"/(?:c/)?(\d+(?:[./]\d+)*)$", key)
    return () if match is None else tuple(int(part) for part in re.split(r"[./]", match[1]))


def is_passing(error: BaseException) -> bool:
    """True for a failure of the network or an overloaded server, which may be gone a moment later."""
    status = getattr(error, "status", None) or getattr(error, "code", None)
    if str(status).isdigit() and int(str(status)) >= 100:
        return int(str(status)) in _BUSY or int(str(status)) >= 500
    if isinstance(error, TimeoutError | ConnectionError | socket.gaierror):
        return True
    if isinstance(error, OSError) and error.errno in _BROKEN:
        return True
    return type(error).__module__.partition(".")[0] in _NETWORK_PACKAGES


def open_zarr(path: str) -> xr.Dataset:
    """The dataset of a Zarr store in a folder or at an address, decoded and lazy.

    Raises:
        InputError: no Zarr store there, access refused or a package missing (without the path).
        OutsideError: the network failed.
    """
    store = open_store(path)
    try:
        group = zarr.open_group(store, mode="r")
        consolidated = group.metadata.consolidated_metadata is not None
        dataset = decoded(partial(xr.open_zarr, store, chunks=None, consolidated=consolidated))
    except ChunkError as error:
        raise InputError(f"its part {error.key} {error.reason}; {_cure(path)}") from error
    except FileNotFoundError as error:
        raise InputError(f"no Zarr store is there{store.refusal}; {_cure(path)}") from error
    if is_address(path) and not consolidated and not dataset.variables:
        raise InputError(
            "its server lists no arrays and it has no consolidated metadata; run zarr.consolidate_metadata on it"
        )
    return dataset


def open_store(path: str) -> TrustedStore:
    """The store in a folder or at an address; public clouds are asked without a key.

    Raises:
        InputError: a package for such addresses is not installed, or nobody knows such addresses.
    """
    if not is_address(path):
        return TrustedStore(LocalStore(path, read_only=True))
    protocol = path.partition(":")[0].lower()
    url = f"{GOOGLE}/{path.partition('://')[2]}" if protocol in ("gs", "gcs") else path
    try:
        store = FsspecStore.from_url(url, storage_options=_options(url), read_only=True)
    except ImportError as error:
        raise InputError(
            f"reading from {protocol}:// needs a package that is not installed ({error}); "
            f"pip install 'weatherfm[cloud]'{' s3fs' if protocol == 's3' else ''}"
        ) from error
    except ValueError as error:
        raise InputError(f"such an address is not understood ({error}); write gs://, s3:// or https://") from error
    return TrustedStore(store, path)


def _options(url: str) -> dict[str, Any]:
    """How fsspec should open an address: without a key, and never waiting for ever."""
    if url.startswith("s3:"):
        return {"anon": True}
    if not url.startswith("http"):
        return {}
    import aiohttp  # only needed, and perhaps only installed, for these

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}}


def _cure(path: str) -> str:
    return "correct the address" if is_address(path) else "fetch it again"


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".rstrip(": ")
