"""Valid time, lead time and member of every field of a variable, however the file spells them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.formats.datasets.dimensions import role_of
from weatherfm.data_pipeline.formats.meaning.experiments import experiment_names
from weatherfm.data_pipeline.formats.pieces import NO_MEMBER, Slots, are_era5t
from weatherfm.data_pipeline.formats.time_values import seconds
from weatherfm.errors import InputError

_REFERENCES = ("forecast_reference_time", "init_time", "initial_time", "time")
_HOUR_NS = 3.6e12
_LEAD_UNITS = {  # beside those that xarray decodes
    **dict.fromkeys(("", "1", "h", "hr", "hrs", "hour", "hours"), 1.0),
    **dict.fromkeys(("d", "day", "days"), 24.0),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 1 / 60),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1 / 3600),
    **dict.fromkeys(("ns", "nanosecond", "nanoseconds"), 1 / _HOUR_NS),
}


def slots_of(dataset: xr.Dataset, dims: Sequence[str]) -> Slots:
    """One row for each combination of the dimensions `dims` (times, steps, members), the last varying fastest.

    Raises:
        InputError: times that cannot be read (without the file's name).
    """
    shape = tuple(dataset.sizes[dim] for dim in dims)
    count = int(np.prod(shape, dtype=np.int64))
    found = _coordinates(dataset, dims)
    lead = _lead(found)
    leads = np.full(count, np.nan) if lead is None else _spread(lead, dims, shape, lead_hours)
    times = _valid_times(dict(found["time"]), lead, leads, dims, shape)
    number = next((values for _, values in found["number"]), _counted(dataset, dims))
    members = np.full(count, NO_MEMBER) if number is None else _spread(number, dims, shape, _integers)
    version = next((values for _, values in found["expver"]), None)
    names = None if version is None else _spread(version, dims, shape, _versions)
    preliminary = np.zeros(count, bool) if names is None else are_era5t(names)
    return Slots(times, leads, members, np.arange(count), preliminary, experiments=names)


def _counted(dataset: xr.Dataset, dims: Sequence[str]) -> xr.Variable | None:
    """Members along a dimension without numbers are counted from 0, as arrays are; None without such a dimension."""
    dim = next((dim for dim in dims if dim not in dataset.variables and role_of(dim, None) == "number"), None)
    return None if dim is None else xr.Variable((dim,), np.arange(dataset.sizes[dim]))


def _coordinates(dataset: xr.Dataset, dims: Sequence[str]) -> dict[str, list[tuple[str, xr.Variable]]]:
    """Coordinates that vary only along `dims`, by role; the dimensions' own first."""
    found: dict[str, list[tuple[str, xr.Variable]]] = {
        "time": [],
        "step": [],
        "number": [],
        "expver": [],
    }
    names = sorted(dataset.variables, key=lambda name: (name not in dims, str(name)))
    for name in names:
        values = dataset.variables[name]
        if not set(values.dims) <= set(dims):  # a batch of one, as GraphCast's examples have
            values = values.squeeze([dim for dim in values.dims if dim not in dims and dataset.sizes[dim] == 1])
        if set(values.dims) <= set(dims) and (role := role_of(str(name), values)) in found:
            found[role].append((str(name), values))
    return found


def _lead(found: dict[str, list[tuple[str, xr.Variable]]]) -> xr.Variable | None:
    """The lead time; a span called `time` beside dates on the same axis is none, but counts from the first of them."""
    steps = [
        (name, values)
        for name, values in found["step"]
        if not (name == "time" and any(set(dates.dims) >= set(values.dims) for _, dates in found["time"]))
    ]
    return steps[0][1] if steps else None


def _valid_times(
    times: dict[str, xr.Variable],
    lead: xr.Variable | None,
    leads: np.ndarray,
    dims: Sequence[str],
    shape: tuple[int, ...],
) -> np.ndarray:
    if not times:
        return np.full(len(leads), np.datetime64("NaT"), "datetime64[s]")
    valid = "valid_time" if "valid_time" in times else _cf_time(times, lead)
    own = None if valid is None else _spread(times[valid], dims, shape, seconds)
    if own is None and lead is None:
        name = next((name for name in (*dims, "time") if name in times), next(iter(times)))
        return _spread(times[name], dims, shape, seconds)
    reference = next((name for name in _REFERENCES if name in times and name != valid), None)
    if reference is None and own is not None:
        return own
    start = _spread(times[reference or next(iter(times))], dims, shape, seconds)
    told = start + np.round(np.nan_to_num(leads) * 3600).astype("timedelta64[s]")
    if own is not None and lead is not None and (odd := np.flatnonzero(told != own)).size:
        raise InputError(
            f"its times contradict each other: {valid} is {own[odd[0]]}, but {reference} and the forecast's step make "
            f"{told[odd[0]]}; mend or remove one of them"
        )
    return told if own is None else own


def _cf_time(times: dict[str, xr.Variable], lead: xr.Variable | None) -> str | None:
    """The coordinate of standard_name `time`, which is the valid time (CF).

    Where the lead time has a dimension of its own and no forecast_reference_time stands beside it, as in files whose
    axes are start and step, such a name is a slip: the coordinate must be the start.
    """
    name = next((name for name, values in times.items() if values.attrs.get("standard_name") == "time"), None)
    if name is None or lead is None or set(lead.dims) <= set(times[name].dims):
        return name
    return name if any(_is_reference(other, values) for other, values in times.items() if other != name) else None


def _is_reference(name: str, values: xr.Variable) -> bool:
    return name in _REFERENCES or values.attrs.get("standard_name") == "forecast_reference_time"


def _spread(
    values: xr.Variable, dims: Sequence[str], shape: tuple[int, ...], read: Callable[[xr.Variable], np.ndarray]
) -> np.ndarray:
    """A coordinate repeated along the dimensions it lacks, flattened in the order of `dims`."""
    flat = xr.Variable(values.dims, read(values))
    sizes = dict(zip(dims, shape, strict=True))
    return np.asarray(flat.set_dims(sizes).transpose(*dims).values).reshape(-1)


def _integers(values: xr.Variable) -> np.ndarray:
    raw = np.asarray(values.values)
    if raw.dtype.kind not in "iuf":
        return np.arange(raw.size).reshape(raw.shape)  # names of members: count them
    return raw.astype(np.int64)


def _versions(values: xr.Variable) -> np.ndarray:
    raw = np.asarray(values.values)
    return experiment_names(raw.ravel().tolist()).reshape(raw.shape)


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
    if units not in _LEAD_UNITS or raw.dtype.kind not in "iuf":
        counted = f"counted in {units!r}" if raw.dtype.kind in "iuf" else f"no numbers ({raw.ravel()[:1]})"
        raise InputError(
            f"its lead times are {counted}, which tells no span of known length; give them in hours (units: "
            "hours), or make the valid time of each"
        )
    hours = raw.astype(np.float64)
    unsaid = not units and raw.size > 0 and np.nanmax(np.abs(hours)) >= _HOUR_NS
    return hours / _HOUR_NS if unsaid else hours * _LEAD_UNITS[units]
