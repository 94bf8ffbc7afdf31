"""Chunks that were never written inside a shard (Zarr version 3): the shard's own index tells which.

Libraries read such chunks as fill values without a word. A shard is one file of many chunks; at its end, or at its
start, stand two little-endian uint64 a chunk, its offset and length, both 2^64 - 1 where it is not there
(zarr-specs, codec `sharding_indexed`).
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.codecs import ShardingCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from weatherfm.data_pipeline.access import Access
from weatherfm.data_pipeline.formats.zarr.opening import ChunkError, TrustedStore, is_address, open_store

_ABSENT = 2**64 - 1


def check_shards(path: str, name: str, picks: Sequence[Any], access: Access) -> None:
    """See that every chunk to be read of a sharded array is in its shard; other arrays pass.

    Args:
        path: folder or address of the Zarr store.
        name: of the array.
        picks: what is read along each of its dimensions: integer, slice or positions.
        access: how the store is opened; where it says fill, a missing chunk is only told.

    Raises:
        ChunkError: a chunk, or a whole shard, is not there; or nobody can tell, because shards are nested.
        OutsideError: the network failed.
    """
    array = _array(path, name, access)
    codecs: tuple[Any, ...] = getattr(array.metadata, "codecs", ())
    if not any(isinstance(codec, ShardingCodec) for codec in codecs):
        return
    store = open_store(path, access)
    for shard, inside in _touched(picks, array.shape, array.chunks, array.shards or array.chunks):
        key = f"{name}/{array.metadata.encode_chunk_key(shard)}"
        present = _present(
            path, access, key, _shape_of_index(array, codecs, key), _layout(codecs[0]), _changed(path, key)
        )
        absent = ~present[np.ix_(*inside)]
        if not absent.any():
            continue
        first = np.argwhere(absent)[0]
        each = zip(shard, inside, present.shape, first, strict=True)
        place = tuple(int(s * count + own[i]) for s, own, count, i in each)
        where = f"was never written: {_dotted(place)} of the array's chunks is not in its shard {key}"
        if not access.fill:
            raise ChunkError(f"{name}/{_dotted(place)}", where, place=place)
        store.note_filled(f"{name}/c/{'/'.join(map(str, place))}")


def _touched(
    picks: Sequence[Any], shape: Sequence[int], chunks: Sequence[int], shards: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], list[np.ndarray]]]:
    """(shard, positions of the wanted chunks inside it along each dimension) of all shards that are read."""
    along: list[dict[int, np.ndarray]] = []
    for pick, size, chunk, shard in zip(picks, shape, chunks, shards, strict=True):
        numbers = np.unique(np.atleast_1d(np.arange(size)[pick]) // chunk)
        per_shard = shard // chunk
        along.append({int(s): numbers[numbers // per_shard == s] % per_shard for s in np.unique(numbers // per_shard)})
    for shard_of in itertools.product(*along):
        yield shard_of, [part[number] for part, number in zip(along, shard_of, strict=True)]


def _shape_of_index(array: zarr.Array[Any], codecs: Sequence[Any], key: str) -> tuple[int, ...]:
    nested = any(isinstance(codec, ShardingCodec) for codec in codecs[0].codecs) if len(codecs) == 1 else True
    if nested or array.shards is None:
        raise ChunkError(key, "is a shard in a form whose index is not known here (nested, or behind another codec)")
    return tuple(s // c for s, c in zip(array.shards, array.chunks, strict=True))


def _layout(codec: ShardingCodec) -> tuple[bool, int]:
    """(the index stands at the start, bytes of its checksum)."""
    extra = 4 if any(type(one).__name__ == "Crc32cCodec" for one in codec.index_codecs) else 0
    return codec.index_location.value == "start", extra


@lru_cache(maxsize=64)
def _array(path: str, name: str, access: Access) -> zarr.Array[Any]:
    return zarr.open_array(open_store(path, access), path=name, mode="r")


@lru_cache(maxsize=4096)
def _present(
    path: str, access: Access, key: str, shape: tuple[int, ...], layout: tuple[bool, int], changed: int
) -> np.ndarray:
    """Bool of `shape`: which chunks a shard holds; none where the whole shard may be filled in.

    `changed` makes a file that was written again another one.
    """
    at_start, checksum = layout
    size = 16 * math.prod(shape) + checksum
    store: TrustedStore = open_store(path, access)
    request = RangeByteRequest(0, size) if at_start else SuffixByteRequest(size)
    value = sync(store.get(key, default_buffer_prototype(), request))
    if value is None:
        return np.zeros(shape, bool)
    content = value.to_bytes()
    content = content[:size] if at_start else content[-size:]  # a server may send the whole file all the same
    if len(content) < size:
        raise ChunkError(key, f"is cut short: {len(content)} bytes where its index alone has {size}")
    entries = np.frombuffer(content, "<u8", 2 * math.prod(shape)).reshape(*shape, 2)
    present: np.ndarray = (entries != _ABSENT).any(axis=-1)
    return present


def _changed(path: str, key: str) -> int:
    file = path if os.path.isfile(path) else os.path.join(path, key)  # a ZIP file changes as a whole
    return 0 if is_address(path) or not os.path.exists(file) else os.stat(file).st_mtime_ns


def _dotted(place: Sequence[int]) -> str:
    return ".".join(map(str, place))
