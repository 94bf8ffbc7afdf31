"""One shard as the file that holds it, made chunk by chunk: beside the fields only what they compress to is held."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorstore as ts

_ABSENT = 2**64 - 1
"""In the index: a chunk that holds nothing but the fill value."""


def encode_shard(values: np.ndarray, metadata: dict[str, Any], start: tuple[int, ...]) -> dict[str, bytes]:
    """The file that holds `values`, by its key within the array: chunks one behind the other, then their index
    (Zarr v3, codec `sharding_indexed`), byte by byte what tensorstore writes when it is given all at once.

    Args:
        values: a whole shard, or what is left of one at the array's end.
        metadata: the array's zarr.json.
        start: position of `values` in the array.
    """
    shard: list[int] = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    sharding = metadata["codecs"][0]["configuration"]
    chunk: list[int] = sharding["chunk_shape"]
    inner = _array(metadata["shape"], chunk, metadata["data_type"], metadata["fill_value"], sharding["codecs"])
    counts = [size // length for size, length in zip(shard, chunk, strict=True)]
    index = np.full((*counts, 2), _ABSENT, np.uint64)
    file = bytearray()
    for place in np.ndindex(*(-(-size // length) for size, length in zip(values.shape, chunk, strict=True))):
        part = values[tuple(slice(i * n, (i + 1) * n) for i, n in zip(place, chunk, strict=True))]
        first = [a + i * n for a, i, n in zip(start, place, chunk, strict=True)]
        encoded = _written(inner, part, first)
        if encoded is not None:
            index[place] = len(file), len(encoded)
            file += encoded
    whole = _array([*counts, 2], [*counts, 2], "uint64", 0, sharding["index_codecs"])
    file += _written(whole, index, [0] * index.ndim) or b""
    places = [str(a // size) for a, size in zip(start, shard, strict=True)]
    return {"/".join(["c", *places]): bytes(file)}


def _array(shape: list[int], chunk: list[int], data_type: str, fill: Any, codecs: Any) -> ts.TensorStore:
    """An array in memory, to have its chunks encoded."""
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": codecs,
    }
    spec = {"driver": "zarr3", "kvstore": "memory://", "metadata": metadata, "store_data_equal_to_fill_value": True}
    return ts.open(spec, create=True).result()


def _written(array: ts.TensorStore, values: np.ndarray, start: list[int]) -> bytes | None:
    """One chunk of `array`, encoded; None where `values` [any] are nothing but its fill value."""
    if math.isnan(float(values.flat[0])) and np.isnan(values).all():
        return None
    array[tuple(slice(a, a + n) for a, n in zip(start, values.shape, strict=True))].write(values).result()
    files = array.kvstore
    assert files is not None  # the zarr3 driver has one
    (key,) = (key for key in files.list().result() if key != b"zarr.json")
    content: bytes = files.read(key).result().value
    files.delete_range(ts.KvStore.KeyRange(key, key + b"\0")).result()
    return content
