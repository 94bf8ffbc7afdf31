"""Datasets behind OPeNDAP addresses, lazy: fields are asked for when they are read, and failures are waited out.

libnetcdf speaks DAP2 too, but that of netCDF4's wheels (4.10.1) ends the process where a server answers with an error
page, and reads zeros where an answer is cut short. Here an answer is whole, or an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing
from zarr.core.sync import sync

from weatherfm.data_pipeline.access import PUBLIC, Access
from weatherfm.data_pipeline.formats.opendap.addresses import web_address
from weatherfm.data_pipeline.formats.opendap.descriptions import NUMBERS, Declared, read_attributes, read_structure
from weatherfm.data_pipeline.formats.time_values import decoded
from weatherfm.data_pipeline.formats.zarr.filesystems import open_address
from weatherfm.data_pipeline.formats.zarr.retries import describe, insist, is_denied
from weatherfm.errors import InputError, OutsideError

T = TypeVar("T")
_WHOLE = ("NC_GLOBAL", "HDF_GLOBAL", "GLOBAL")
"""What servers call the attributes of the whole dataset."""


def open_opendap(address: str, access: Access = PUBLIC) -> xr.Dataset:
    """The dataset at an address, decoded and lazy.

    Raises:
        InputError: nothing there that speaks DAP2, access refused or a package missing (without the address).
        OutsideError: the network failed.
    """
    declared = read_structure(_text(address, "dds", access))
    said = read_attributes(_text(address, "das", access))
    attributes = next((said[name] for name in _WHOLE if name in said), {})
    variables = {
        name: xr.Variable(one.dims, indexing.LazilyIndexedArray(_Remote(address, one, access)), said.get(name, {}))
        for name, one in declared.items()
    }
    raw = xr.Dataset({name: one for name, one in variables.items() if one.dims != (name,)}, attrs=attributes)
    raw = raw.assign_coords({name: one.load() for name, one in variables.items() if one.dims == (name,)})
    return decoded(partial(xr.decode_cf, raw))


def checksum_of_descriptions(address: str, access: Access = PUBLIC) -> str:
    """Of all that the server says of the dataset; raises as `open_opendap`."""
    texts = [_text(address, kind, access) for kind in ("dds", "das")]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


class _Remote(BackendArray):
    """One array of a dataset, which is asked for part by part."""

    def __init__(self, address: str, declared: Declared, access: Access) -> None:
        self.address, self.declared, self.access = address, declared, access
        self.shape, self.dtype = declared.shape, np.dtype(NUMBERS[declared.kind][0])

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """The part that xarray asks for."""
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> np.ndarray:
        """Integers and slices; a slice backwards is read forwards and turned."""
        forwards = [
            range(n)[k if isinstance(k, slice) else slice(k, k + 1)] for k, n in zip(key, self.shape, strict=True)
        ]
        spans = [span if span.step > 0 else span[::-1] for span in forwards]
        if not all(map(len, spans)):
            return np.empty([len(s) for s, k in zip(spans, key, strict=True) if isinstance(k, slice)], self.dtype)
        asked = "".join(f"[{span[0]}:{span.step}:{span[-1]}]" for span in spans)
        part = f"dods?{quote(self.declared.asked_as)}{quote(asked, safe=':')}"
        shape = [len(span) for span in spans]
        values = _answer(self.address, part, self.access, lambda content: _values(content, self.declared, shape))
        turned = tuple(slice(None, None, 1 if span.step > 0 else -1) for span in forwards)
        return values[turned][tuple(slice(None) if isinstance(k, slice) else 0 for k in key)]


def _values(content: bytes, declared: Declared, shape: list[int]) -> np.ndarray:
    """The numbers of an answer: behind its structure, an array with its length twice, all big-endian (XDR).

    Raises:
        ConnectionError: the answer is cut short, or of another length.
    """
    kind, sent = NUMBERS[declared.kind]
    count, size = int(np.prod(shape)), np.dtype(sent).itemsize
    _, mark, rest = content.partition(b"\nData:")
    body, head = rest.partition(b"\n")[2], 8 if declared.shape else 0
    length = head + -(-count * size // 4) * 4  # bytes are filled up to words
    if not mark or len(body) != length or any(n != count for n in np.frombuffer(body, ">u4", head // 4)):
        raise ConnectionError(f"the answer is not whole: {len(body)} bytes where {length} are due")
    return np.frombuffer(body, sent, count, head).astype(kind).reshape(shape)


def _text(address: str, kind: str, access: Access) -> str:
    return _answer(address, kind, access, lambda content: content.decode("utf-8", "replace"))


def _answer(address: str, part: str, access: Access, read: Callable[[bytes], T]) -> T:
    """What `read` makes of `ADDRESS.part`; asked again while the network is to blame, or the answer is not whole."""
    place = web_address(address)
    filesystem: Any = open_address(place, access).fs

    async def request() -> T:
        content: bytes = await filesystem._cat_file(f"{place}.{part}")
        if content.lstrip()[:5] == b"Error":
            raise InputError(f"its server says of {part}: {_line(content)}")
        return read(content)

    try:
        return sync(insist(request, address, part, access.masked, access.secret))
    except FileNotFoundError:
        raise InputError(f"its server has no such dataset ({place}.{part}); correct the address") from None
    except (OutsideError, InputError):
        raise
    except Exception as error:  # noqa: BLE001 - each is raised below, without what might show a key
        cure = "give a key that may read it (source.storage_options)" if is_denied(error) else "correct the address"
        fault = InputError(f"its server refuses {place}.{part} ({access.masked(describe(error))}); {cure}")
        behind = None if access.secret else error
    raise fault from behind


def _line(content: bytes) -> str:
    return " ".join(content.decode("utf-8", "replace").split())[:200]
