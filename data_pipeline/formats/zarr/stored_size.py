"""Bytes of chunks as they are stored, from a few of them or from the size of their file."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Sequence

import numpy as np
import xarray as xr
import zarr
from zarr.core.sync import sync

from weatherfm.data_pipeline.access import Access
from weatherfm.data_pipeline.formats.zarr.opening import ChunkError, TrustedStore, open_store


def mean_chunk_bytes(path: str, name: str, places: Sequence[tuple[int, ...]], access: Access) -> float | None:
    """Of a chunk of the Zarr array `name`: the mean of those at `places` (numbers along its dims).

    None where none of them is there; reading will say so.
    """
    store = open_store(path, access)
    array = zarr.open_array(store, path=name, mode="r")
    shards = array.shards or array.chunks
    files = [tuple(i * c // s for i, c, s in zip(place, array.chunks, shards, strict=True)) for place in places]
    keys = [f"{name}/{array.metadata.encode_chunk_key(file)}" for file in dict.fromkeys(files)]
    sizes = [size for size in sync(_sizes(store, keys)) if size is not None]
    if not sizes:
        return None
    return sum(sizes) / len(sizes) * math.prod(array.chunks) / math.prod(shards)


def share_of_file(path: str, dataset: xr.Dataset, variable: xr.Variable) -> float:
    """Bytes of a file that `variable` takes, if all its variables compress alike."""
    whole = sum(_decoded_bytes(one) for one in dataset.variables.values())
    return os.path.getsize(path) * _decoded_bytes(variable) / max(1, whole)


def _decoded_bytes(variable: xr.Variable) -> int:
    return int(variable.size * np.dtype(variable.encoding.get("dtype", variable.dtype)).itemsize)


async def _sizes(store: TrustedStore, keys: Sequence[str]) -> list[int | None]:
    return list(await asyncio.gather(*(_size(store, key) for key in keys)))


async def _size(store: TrustedStore, key: str) -> int | None:
    try:
        return await store.getsize(key)
    except ChunkError:
        return None
