"""Two folders change names in one step of the system, where it can: no reader finds either name empty."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

_AT_FDCWD, _EXCHANGE = -100, 2
"""Of Linux: fcntl.h, and RENAME_EXCHANGE of linux/fs.h."""
_UNKNOWN = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)
"""What a kernel or a file system says that has no such call."""


def exchange(one: Path, other: Path) -> bool:
    """Let two paths of one file system change names at once; False where nobody can, and nothing is done.

    Raises:
        OSError: one of them is not there, or may not be renamed.
    """
    call = _renameat2()
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNKNOWN:
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


@lru_cache(maxsize=1)
def _renameat2() -> Any:
    """The call of the C library; None where it has none."""
    if not sys.platform.startswith("linux"):
        return None
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is not None:
        call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return call
