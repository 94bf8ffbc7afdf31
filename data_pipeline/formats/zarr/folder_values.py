"""Values of Zarr arrays in a folder, decoded by tensorstore, which uses the cores where zarr-python waits on one."""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
import xarray as xr

from weatherfm.data_pipeline.formats.zarr.opening import ChunkError, is_address
from weatherfm.data_pipeline.formats.zarr.whole_chunks import read_whole

_ANEW = "fetch the store again, or make it anew"


def read_plain(path: str, name: str, variable: xr.Variable, pick: dict[Any, Any]) -> np.ndarray | None:
    """Part of an array that is stored as floats, without packing: as `variable.isel(pick)`, and faster.

    A chunk that is not there is never filled in.

    Args:
        path: folder of the Zarr store.
        name: of the array.
        variable: the same, decoded by xarray.
        pick: dim -> integer, slice or array; dims that are left out are read whole.

    Returns:
        None where this way does not serve: an address, packed or other values, a codec or a chunk that tensorstore
        cannot read. The way through zarr-python then does, or says what is wrong.

    Raises:
        ChunkError: a chunk is not what its checksum says.
    """
    if is_address(path) or variable.dtype.kind != "f" or not _is_plain(variable.encoding):
        return None
    try:
        metadata = "zarr.json" if os.path.exists(os.path.join(path, name, "zarr.json")) else ".zarray"
        changed = os.stat(os.path.join(path, name, metadata)).st_mtime_ns
        array = _open(path, name, metadata, changed)
        if array.dtype.numpy_dtype != variable.dtype:
            return None
        picks = tuple(pick.get(dim, slice(None)) for dim in variable.dims)
        if metadata == ".zarray":
            whole = read_whole(os.path.join(path, name), _metadata(path, name, changed), picks)
            if whole is not None:
                return whole
        return np.asarray(array.oindex[picks].read().result())
    except ValueError as error:
        if re.search("Digest mismatch|Invalid blosc", str(error)) and (
            file := re.search(r'local file "([^"]+)"', str(error))
        ):
            key = os.path.relpath(file[1], os.path.abspath(path))
            raise ChunkError(key, "is damaged: its content is not what its checksum says", _ANEW) from error
        return None
    except OSError:
        return None


def _is_plain(encoding: dict[Any, Any]) -> bool:
    """True when values are stored as they are, and a value that is none is NaN already."""
    fill = encoding.get("_FillValue", np.nan)
    packed = {"scale_factor", "add_offset", "missing_value", "_Unsigned"} & encoding.keys()
    return not packed and bool(np.isnan(fill))


@lru_cache(maxsize=256)
def _metadata(path: str, name: str, changed: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(path, name, ".zarray").read_text())
    return found


@lru_cache(maxsize=256)
def _open(path: str, name: str, metadata: str, mtime: int) -> ts.TensorStore:
    spec = {
        "driver": "zarr3" if metadata == "zarr.json" else "zarr",
        "kvstore": {"driver": "file", "path": os.path.join(os.path.abspath(path), name)},
        "fill_missing_data_reads": False,
    }
    return ts.open(spec, open=True, read=True).result()
