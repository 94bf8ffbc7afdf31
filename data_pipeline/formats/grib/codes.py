"""ecCodes, loaded so that it leaves cartopy's map projections intact, and the lock that it may need.

The ecCodes wheels carry a PROJ library of their own and show its symbols to the whole process. When they are
loaded first, pyproj (and with it cartopy) finds a foreign PROJ: projections fail, and the process crashes when
it ends. Loaded second they do no harm, so everything here imports ecCodes from this module.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext

# isort: off
import pyproj  # noqa: F401
import eccodes

__all__ = ["GUARD", "eccodes"]


def _guard() -> AbstractContextManager[object]:
    features = eccodes.codes_get_features() if hasattr(eccodes, "codes_get_features") else ""
    return nullcontext() if "ECCODES_THREADS" in features.split() else threading.Lock()


GUARD = _guard()
"""To be held while ecCodes works: a lock only where ecCodes was built without threads, as the wheels are not.

Built with threads, each handle stands for itself, and what handles share ecCodes locks itself. Only its unpacking of
several fields in one message has one state for the whole process: it is never switched on here (`grib_messages`).
"""
