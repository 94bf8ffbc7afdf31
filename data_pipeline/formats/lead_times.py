"""Hours of lead times, in whatever units a file counts them."""

from __future__ import annotations

import numpy as np
import xarray as xr

from weatherfm.errors import InputError

_HOUR_NS = 3.6e12
_UNITS = {  # beside those that xarray decodes
    **dict.fromkeys(("", "1", "h", "hr", "hrs", "hour", "hours"), 1.0),
    **dict.fromkeys(("d", "day", "days"), 24.0),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 1 / 60),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1 / 3600),
    **dict.fromkeys(("ns", "nanosecond", "nanoseconds"), 1 / _HOUR_NS),
}


def lead_hours(values: xr.Variable) -> np.ndarray:
    """The lead times of a coordinate in hours, float64, of the same shape.

    Plain numbers without units are hours; from an hour's nanoseconds on, nanoseconds, as some of WeatherBench2 are.

    Raises:
        InputError: counted in months or another unit of no fixed length (without the file's name).
    """
    raw = np.asarray(values.values)
    if np.issubdtype(raw.dtype, np.timedelta64):
        return raw / np.timedelta64(3600, "s")
    units = str(values.attrs.get("units", "")).strip().lower()
    if units not in _UNITS or raw.dtype.kind not in "iuf":
        counted = f"counted in {units!r}" if raw.dtype.kind in "iuf" else f"no numbers ({raw.ravel()[:1]})"
        raise InputError(
            f"its lead times are {counted}, which tells no span of known length; give them in hours (units: "
            "hours), or make the valid time of each"
        )
    hours = raw.astype(np.float64)
    unsaid = not units and raw.size > 0 and np.nanmax(np.abs(hours)) >= _HOUR_NS
    return hours / _HOUR_NS if unsaid else hours * _UNITS[units]
