"""Length an HDF5 file (a NetCDF-4 file) ought to have, told by its first block."""

from __future__ import annotations

import os

from weatherfm.errors import InputError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_PLACES = (0, 512, 1024, 2048)  # the first block may stand behind a block of the user's


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
