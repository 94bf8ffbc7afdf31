"""Icechunk repositories: one snapshot of the Zarr group in them is read, and it is the same to the end of a run.

A repository keeps its group as snapshots under branches and tags (icechunk.io/en/latest/reference/spec). Which one a
name stands for is looked up once, when the repository is indexed; a snapshot itself never changes.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from weatherfm.data_pipeline.access import Access
from weatherfm.data_pipeline.formats.zarr.icechunk_package import (
    icechunk_errors,
    icechunk_package,
    s3_options,
    told_by_icechunk,
)
from weatherfm.errors import InputError, OutsideError

MAIN = "main"
"""The branch that is read where `source.snapshot` names nothing."""
_ON_S3 = re.compile(r"(s3://[^/]+/(?:[^/]+/)*?[^/]*icechunk[^/]*)(?:/(.*(?<!\.zarr)))?", re.IGNORECASE)
_ID = re.compile(r"[0-9A-HJKMNP-TV-Z]{20}")

T = TypeVar("T")


class SnapshotStore(WrapperStore[Store]):
    """The Zarr group of one snapshot; what fails is told as of other stores.

    Args:
        store: of the whole snapshot.
        group: that is the root here, with a slash behind it; nothing for that of the snapshot.
    """

    def __init__(self, store: Store, group: str = "") -> None:
        super().__init__(store)
        self._group = group

    async def exists(self, key: str) -> bool:
        """Whether the part `key` is there."""
        return await self._store.exists(self._group + key)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names right below `prefix`."""
        async for name in self._store.list_dir(self._group + prefix):
            yield name

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The part `key`; None where it is not there.

        Raises:
            ConnectionError, PermissionError, IcechunkFault: the network failed, the key is not taken, another fault.
        """
        try:
            return await self._store.get(self._group + key, prototype, byte_range)
        except icechunk_errors() as error:
            raise told_by_icechunk(error) from None

    async def getsize(self, key: str) -> int:
        """Bytes of the part `key`; raises as `get`, and FileNotFoundError."""
        if not await self.exists(key):
            raise FileNotFoundError(key)
        try:
            return await self._store.getsize(self._group + key)
        except icechunk_errors() as error:
            raise told_by_icechunk(error) from None


def is_repository(path: str) -> bool:
    """True for a repository, and for a group in one: `REPOSITORY/single/spatial`; nobody is asked.

    A folder is told by its layout, an s3:// address by a name in it, such as `v0.1.0.icechunk`.
    """
    return _repository_of(path) is not None


def _repository_of(path: str) -> tuple[str, str] | None:
    """(repository, group in it or nothing)."""
    if path.startswith("s3://"):
        found = _ON_S3.fullmatch(path.rstrip("/"))
        return None if found is None else (found[1], found[2] or "")
    if os.path.isfile(path):
        return None
    folder, group = path, ""
    while not os.path.exists(folder) and os.path.dirname(folder) not in ("", folder):  # groups are no folders
        group = os.path.join(os.path.basename(folder), group)
        folder = os.path.dirname(folder)
    inside = os.path.join(folder, "snapshots")
    whole = os.path.isdir(inside) and any(os.path.exists(os.path.join(folder, name)) for name in ("refs", "repo"))
    return (folder, group.rstrip("/")) if whole else None


def pinned(path: str, access: Access) -> Access:
    """`access` with the snapshot that is to be read of the repository at `path`; as it is for other stores.

    Raises:
        InputError: no repository or no such snapshot there, access refused, or the package is missing.
        OutsideError: the network failed.
    """
    if _ID.fullmatch(access.snapshot) or not is_repository(path):
        return access
    name = access.snapshot or MAIN
    repository = _opened(path, access)
    for look in (repository.lookup_branch, repository.lookup_tag):
        try:
            return replace(access, snapshot=_asked(path, access, partial(look, name)))
        except LookupError:
            continue
    raise InputError(
        f"its Icechunk repository has no branch and no tag {name!r}; give one, or the id of a snapshot, as "
        "source.snapshot"
    )


@lru_cache(maxsize=16)
def open_snapshot(path: str, access: Access) -> SnapshotStore:
    """The group of the snapshot that a `pinned` access names; raises as `pinned`."""
    repository = _opened(path, access)
    try:
        session = _asked(path, access, lambda: repository.readonly_session(snapshot_id=access.snapshot))
    except LookupError:
        raise InputError(
            f"its Icechunk repository has no snapshot {access.snapshot}; correct source.snapshot"
        ) from None
    _, group = _repository_of(path) or ("", "")
    return SnapshotStore(session.store, f"{group}/" if group else "")


def _opened(path: str, access: Access) -> Any:
    icechunk = icechunk_package()
    path, _ = _repository_of(path) or (path, "")
    if path.startswith("s3://"):
        place = urlsplit(path)
        storage = icechunk.s3_storage(bucket=place.netloc, prefix=place.path.strip("/"), **s3_options(access.options))
    else:
        storage = icechunk.local_filesystem_storage(path)
    try:
        return _asked(path, access, lambda: icechunk.Repository.open(storage))
    except LookupError:
        raise InputError("no Icechunk repository is there; correct the address") from None


def _asked(path: str, access: Access, request: Callable[[], T]) -> T:
    """The answer of a repository; LookupError where it knows no such thing."""
    try:
        return request()
    except icechunk_errors() as error:
        fault = told_by_icechunk(error)
    text = access.masked(str(fault))
    if isinstance(fault, ConnectionError):
        raise OutsideError(
            f"network: {path} could not be read ({text}); start the same command again when the network is back, or "
            "give a key that may read it (source.storage_options): Icechunk tells the one like the other"
        )
    if isinstance(fault, PermissionError):
        raise InputError(f"its Icechunk repository refuses access ({text}); give a key (source.storage_options)")
    if re.search("not found|doesn't exist|invalid snapshot id", text):
        raise LookupError(text)
    raise InputError(f"its Icechunk repository cannot be opened ({text})")
