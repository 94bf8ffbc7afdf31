"""Length that a NetCDF file says it has: libraries read the missing end of a truncated one as zeros."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

from weatherfm.errors import InputError

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
_STREAMING = {4: 0xFFFFFFFF, 8: 0xFFFFFFFFFFFFFFFF}  # number of records not yet known
_FORMATS = {1: (4, 4), 2: (4, 8), 5: (8, 8)}  # version byte: bytes of a count, bytes of an offset
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_PLACES = (0, 512, 1024, 2048)  # the first block may stand behind a block of the user's


def check_netcdf3_length(path: str) -> None:
    """Refuse a classic NetCDF file that is shorter than its header says.

    Raises:
        InputError: truncated, or the header itself is damaged (without the file's name).
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        try:
            expected = _declared_length(file)
        except (struct.error, KeyError, IndexError, OverflowError, MemoryError) as error:
            raise InputError("its NetCDF header is damaged or truncated; fetch it again") from error
    if size < expected:
        raise InputError(f"it is truncated: {size} bytes of {expected}; fetch it again")


def check_hdf5_length(path: str) -> None:
    """Refuse an HDF5 file that is shorter than its first block says (HDF5 File Format Specification 3.0, section II.A).

    Raises:
        InputError: truncated (without the file's name).
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(_PLACES[-1] + 96)
    at = next((place for place in _PLACES if start[place:].startswith(_SIGNATURE)), None)
    if at is None:
        return
    block = start[at:]
    version, wide = block[8:9], 8
    where = {b"\0": 24, b"\1": 28}.get(version)  # four addresses: base, free space, end of file, driver
    end = None if where is None else where + 2 * wide
    if version in (b"\2", b"\3"):
        end = 12 + 2 * wide  # base, extension, end of file, root
    address_bytes = block[13:14] if version in (b"\0", b"\1") else block[9:10]
    if end is None or address_bytes != b"\x08" or len(block) < end + wide:
        return
    declared = int.from_bytes(block[end : end + wide], "little")
    if size < declared:
        raise InputError(f"it is truncated: {size} bytes of {declared}; fetch it again")


@dataclass
class _Header:
    """Reads big-endian numbers and padded names off a classic header."""

    file: BinaryIO
    count_bytes: int
    offset_bytes: int

    def integer(self, size: int) -> int:
        value: int = struct.unpack(">I" if size == 4 else ">Q", self.file.read(size))[0]
        return value

    def count(self) -> int:
        return self.integer(self.count_bytes)

    def skip(self, size: int) -> None:
        self.file.seek(-(-size // 4) * 4, os.SEEK_CUR)

    def list_length(self) -> int:
        self.integer(4)  # tag
        return self.count()

    def skip_attributes(self) -> None:
        for _ in range(self.list_length()):
            self.skip(self.count())  # name
            kind = self.integer(4)
            self.skip(self.count() * _TYPE_BYTES[kind])


def _declared_length(file: BinaryIO) -> int:
    version = file.read(4)[3]
    header = _Header(file, *_FORMATS[version])
    records = header.count()
    sizes = []
    for _ in range(header.list_length()):
        header.skip(header.count())
        sizes.append(header.count())
    header.skip_attributes()
    fixed_end, record_parts = file.tell(), []
    for _ in range(header.list_length()):
        begin, length, is_record = _variable(header, sizes)
        if is_record:
            record_parts.append((begin, length))
        else:
            fixed_end = max(fixed_end, begin + length)
    if not record_parts or records in (0, _STREAMING[header.count_bytes]):
        return fixed_end
    # one record variable alone is not padded to four bytes; several are
    pad = (lambda n: n) if len(record_parts) == 1 else (lambda n: -(-n // 4) * 4)
    stride = sum(pad(length) for _, length in record_parts)
    return max(fixed_end, *(begin + (records - 1) * stride + length for begin, length in record_parts))


def _variable(header: _Header, sizes: list[int]) -> tuple[int, int, bool]:
    """(offset, bytes of the variable or of one record of it, whether it grows with records)."""
    header.skip(header.count())  # name
    dims = [header.count() for _ in range(header.count())]
    header.skip_attributes()
    length = _TYPE_BYTES[header.integer(4)]
    header.count()  # the size the writer noted, wrong for large variables
    is_record = bool(dims) and sizes[dims[0]] == 0
    for dim in dims[1:] if is_record else dims:
        length *= sizes[dim]
    return header.integer(header.offset_bytes), length, is_record
