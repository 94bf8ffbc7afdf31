"""ecCodes, loaded so that it leaves cartopy's map projections intact.

The ecCodes wheels carry a PROJ library of their own and show its symbols to the whole process. When they are
loaded first, pyproj (and with it cartopy) finds a foreign PROJ: projections fail, and the process crashes when
it ends. Loaded second they do no harm, so everything here imports ecCodes from this module.
"""

# isort: off
import pyproj  # noqa: F401
import eccodes

__all__ = ["eccodes"]
