"""Valid time, lead time and member of every field of a variable, however the file spells them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.formats.dimensions import role_of
from weatherfm.data_pipeline.formats.experiments import experiment_names
from weatherfm.data_pipeline.formats.pieces import NO_MEMBER, Slots, are_era5t
from weatherfm.errors import InputError

_REFERENCES = ("forecast_reference_time", "init_time", "initial_time", "time")


def slots_of(dataset: xr.Dataset, dims: Sequence[str]) -> Slots:
    """One row for each combination of the dimensions `dims` (times, steps, members), the last varying fastest.

    Raises:
        InputError: times that cannot be read (without the file's name).
    """
    shape = tuple(dataset.sizes[dim] for dim in dims)
    count = int(np.prod(shape, dtype=np.int64))
    found = _coordinates(dataset, dims)
    lead = next((values for _, values in found["step"]), None)
    leads = np.full(count, np.nan) if lead is None else _spread(lead, dims, shape, _hours)
    times = _valid_times(dict(found["time"]), leads, dims, shape)
    number = next((values for _, values in found["number"]), None)
    members = np.full(count, NO_MEMBER) if number is None else _spread(number, dims, shape, _integers)
    version = next((values for _, values in found["expver"]), None)
    names = None if version is None else _spread(version, dims, shape, _versions)
    preliminary = np.zeros(count, bool) if names is None else are_era5t(names)
    return Slots(times, leads, members, np.arange(count), preliminary, experiments=names)


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
        if set(values.dims) <= set(dims) and (role := role_of(str(name), values)) in found:
            found[role].append((str(name), values))
    return found


def _valid_times(
    times: dict[str, xr.Variable], leads: np.ndarray, dims: Sequence[str], shape: tuple[int, ...]
) -> np.ndarray:
    if not times:
        return np.full(len(leads), np.datetime64("NaT"), "datetime64[s]")
    if "valid_time" in times:
        return _spread(times["valid_time"], dims, shape, _seconds)
    if np.isnan(leads).all():
        own = next((times[name] for name in (*dims, "time") if name in times), next(iter(times.values())))
        return _spread(own, dims, shape, _seconds)
    reference = next((times[name] for name in _REFERENCES if name in times), next(iter(times.values())))
    start = _spread(reference, dims, shape, _seconds)
    return start + np.round(leads * 3600).astype("timedelta64[s]")


def _spread(
    values: xr.Variable, dims: Sequence[str], shape: tuple[int, ...], read: Callable[[xr.Variable], np.ndarray]
) -> np.ndarray:
    """A coordinate repeated along the dimensions it lacks, flattened in the order of `dims`."""
    flat = xr.Variable(values.dims, read(values))
    sizes = dict(zip(dims, shape, strict=True))
    return np.asarray(flat.set_dims(sizes).transpose(*dims).values).reshape(-1)


def _seconds(values: xr.Variable) -> np.ndarray:
    """datetime64[s] of a time coordinate; also of plain integers such as 20200131."""
    raw = np.asarray(values.values)
    if np.issubdtype(raw.dtype, np.datetime64):
        return (raw.astype("datetime64[ms]") + np.timedelta64(500, "ms")).astype("datetime64[s]")
    if raw.dtype == object:
        calendar = values.encoding.get("calendar", getattr(raw.flat[0], "calendar", "unknown"))
        raise InputError(
            f"its times follow the {calendar!r} calendar, which real weather does not; only gregorian times are read"
        )
    if raw.dtype.kind in "iu" and ((raw > 18000101) & (raw < 22000101)).all():
        text = raw.astype(str)
        days = [f"{day[:4]}-{day[4:6]}-{day[6:]}" for day in text.ravel()]
        return np.array(days, "datetime64[s]").reshape(raw.shape)
    raise InputError(
        f"its times are plain numbers (first {raw.ravel()[:1]}) without 'units: ... since ...'; set that attribute"
    )


def _hours(values: xr.Variable) -> np.ndarray:
    """Lead time in hours; a plain number without units is hours already."""
    raw = np.asarray(values.values)
    if np.issubdtype(raw.dtype, np.timedelta64):
        return raw / np.timedelta64(3600, "s")
    return raw.astype(np.float64)


def _integers(values: xr.Variable) -> np.ndarray:
    raw = np.asarray(values.values)
    if raw.dtype.kind not in "iuf":
        return np.arange(raw.size).reshape(raw.shape)  # names of members: count them
    return raw.astype(np.int64)


def _versions(values: xr.Variable) -> np.ndarray:
    raw = np.asarray(values.values)
    return experiment_names(raw.ravel().tolist()).reshape(raw.shape)
