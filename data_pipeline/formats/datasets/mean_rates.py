"""Which interval a rate in a NetCDF file or Zarr store is the mean over, so that it adds up to a sum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.fields.time_axis import spacing
from weatherfm.data_pipeline.formats.datasets.kind_of_variable import hours_of_means
from weatherfm.data_pipeline.formats.datasets.span_of_sums import archive_of
from weatherfm.data_pipeline.formats.pieces import Slots

_DAY, _NOON = 24.0, 12
_HOUR = np.timedelta64(3600, "s")


def with_intervals(dataset: xr.Dataset, name: str, slots: Slots, said: float | None, is_mean: bool) -> Slots | None:
    """`slots` of a rate with the hours that each is the mean over, at the end of them; None where nobody says.

    Bounds tell, ERA5 as the Climate Data Store writes it (the hour before), and daily means at noon, which can only be
    of the day around it. How far times are apart tells nothing else: of hourly means some may have been fetched.

    Args:
        dataset: the file.
        name: of the variable.
        slots: of it, with bounds where there are any.
        said: hours before each time, by the settings.
        is_mean: the file says that it is a mean.
    """
    if said is not None:
        return replace(slots, accumulated=np.full(len(slots.times), said))
    if not is_mean or slots.accumulated is not None:
        return slots if is_mean else None
    if archive_of(dataset, name) == "era5":
        return replace(slots, accumulated=np.ones(len(slots.times)))
    if _has_bounds(dataset, name):
        return None  # that were not believed
    if hours_of_means(dataset, dataset.variables[name], slots.times) == _DAY and _are_at_noon(slots.times):
        half, ends = np.full(len(slots.times), _DAY / 2), slots.times + _NOON * _HOUR
        return replace(slots, times=ends, accumulated=2 * half, labels=slots.times, lags=half)
    return None


def _has_bounds(dataset: xr.Dataset, name: str) -> bool:
    coordinates = [dataset.variables[dim] for dim in dataset.variables[name].dims if dim in dataset.variables]
    times = [values for values in coordinates if values.dtype.kind in "MO"]  # O: dates of another calendar
    return any("bounds" in {**values.attrs, **values.encoding} for values in times)


def _are_at_noon(times: np.ndarray) -> bool:
    hours = (times - times.astype("datetime64[D]")) / _HOUR
    return spacing(times) == _DAY and bool((hours == _NOON).all())
