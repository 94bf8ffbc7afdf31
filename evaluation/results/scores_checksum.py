"""What tells damaged scores: a checksum of all that they say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr


def checksum_of(scores: xr.Dataset) -> str:
    """SHA-256 of all values, names and attributes, the same in memory and read from a file."""
    digest = hashlib.sha256()
    for name, array in sorted(scores.variables.items(), key=lambda item: str(item[0])):
        values = array.values
        told = values.astype(str).tolist() if values.dtype.kind in "OUS" else [values.dtype.str, values.shape]
        told = [str(name), array.dims, told, _attributes(array.attrs)]
        digest.update(json.dumps(told).encode())
        if values.dtype.kind not in "OUS":
            digest.update(np.ascontiguousarray(values).tobytes())
    digest.update(json.dumps(_attributes(scores.attrs)).encode())
    return digest.hexdigest()


def _attributes(given: Mapping[Any, Any]) -> dict[str, str]:
    return {str(key): str(given[key]) for key in sorted(given)}
