"""The coordinates of a forecast in WeatherBench2's layout, checked: times, lead times, members, levels and grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.formats.datasets.dimensions import Dimension, orientation_of_dims
from weatherfm.data_pipeline.formats.meaning.levels import levels_in_hpa, why_no_pressures
from weatherfm.data_pipeline.formats.orientation import Orientation
from weatherfm.errors import InputError

TIME, LEAD, MEMBER = "time", "prediction_timedelta", "number"
LATITUDE, LONGITUDE, LEVEL = "latitude", "longitude", "level"
DIMS = (TIME, LEAD, LATITUDE, LONGITUDE)
"""Dims that every field has; `level` and `number` come on top."""

_NAMES: dict[str, tuple[str, ...]] = {
    TIME: ("time", "init_time"),
    LEAD: ("prediction_timedelta", "lead_time"),
    MEMBER: ("number", "realization", "sample", "member"),
    LEVEL: ("level", "pressure_level"),
    LATITUDE: ("latitude", "lat"),
    LONGITUDE: ("longitude", "lon"),
}
"""Dim -> names it goes by: WeatherBench2's first, then those of WeatherBench-X and of ensembles."""
_HOURS = ("h", "hr", "hrs", "hour", "hours")
_HOUR_NS = 3_600_000_000_000


@dataclass(frozen=True, eq=False)
class Axes:
    """What the fields of a forecast lie along."""

    dims: dict[str, Dimension]
    """Dim of WeatherBench2 -> dim of the file; `number` and `level` only where it has them."""
    init_times: np.ndarray
    """[init] datetime64[s], ascending."""
    lead_times: tuple[int, ...]
    """Hours, ascending."""
    members: int | None
    """None where there is no ensemble, or one of a single member."""
    levels: tuple[float, ...]
    """hPa, in the file's order."""
    orientation: Orientation
    """Grid, and the file's rows and columns on it."""

    def order(self, dims: Sequence[str]) -> tuple[str, ...]:
        """WeatherBench2's names of some dims of the file."""
        ours = {dim.name: name for name, dim in self.dims.items()}
        return tuple(ours[dim] for dim in dims)

    def slots(
        self, inits: np.ndarray, leads: Sequence[int], members: int, order: Sequence[str]
    ) -> tuple[np.ndarray, tuple[int, ...]]:
        """(numbers of the fields at some initial and lead times, their sizes along `order`).

        Args:
            inits: [init] positions.
            leads: [lead] positions.
            members: the first so many.
            order: `time`, `prediction_timedelta` and, where fields have it, `number`, as the file orders them.
        """
        wanted = {TIME: inits, LEAD: np.asarray(leads), MEMBER: np.arange(members)}
        sizes = {TIME: len(self.init_times), LEAD: len(self.lead_times), MEMBER: self.members or 1}
        index = np.meshgrid(*[wanted[dim] for dim in order], indexing="ij")
        numbers = np.ravel_multi_index(index, [sizes[dim] for dim in order])
        return numbers.ravel(), numbers.shape


def axes_of(dataset: xr.Dataset) -> Axes:
    """The axes of a forecast.

    Raises:
        InputError: a coordinate missing, empty, repeated or of the wrong kind (without the file's name).
    """
    dims = {ours: found for ours in _NAMES if (found := _dimension(dataset, ours)) is not None}
    for name in DIMS:
        if name not in dims or dims[name].coordinate is None:
            raise InputError(_absent(dataset, name))
    for ours, dim in dims.items():
        if dataset.sizes[dim.name] == 0:
            raise InputError(f"is empty: it holds no {dim.name}; make the forecast again")
        if ours != TIME and ours != LEAD and dim.coordinate is not None:
            _refuse_repeats(dim.name, dataset.variables[dim.name].values)
    times = dataset.variables[dims[TIME].name]
    if times.dtype.kind != "M":
        raise InputError(f"is not readable: its {dims[TIME].name} ({times.dtype}) is no time; give it CF units")
    level = dims.get(LEVEL)
    levels = () if level is None or level.coordinate is None else _pressures(level.name, dataset.variables[level.name])
    count = dataset.sizes[dims[MEMBER].name] if MEMBER in dims else 1
    try:
        orientation = orientation_of_dims(dataset, dims[LATITUDE], dims[LONGITUDE])
    except InputError as error:
        raise InputError(f"is on no grid we know: {error}") from error
    return Axes(
        dims,
        _ascending(dims[TIME].name, times.values).astype("datetime64[s]"),
        _hours(dims[LEAD].name, dataset.variables[dims[LEAD].name]),
        count if count > 1 else None,
        levels,
        orientation,
    )


def _dimension(dataset: xr.Dataset, ours: str) -> Dimension | None:
    """The file's dim for one of ours; it has a coordinate where the file gives values."""
    name = next((name for name in _NAMES[ours] if name in dataset.sizes), None)
    if name is None:
        return None
    role = {LEAD: "step"}.get(ours, ours)
    return Dimension(name, role, name if name in dataset.variables else None)  # type: ignore[arg-type]


def _absent(dataset: xr.Dataset, dim: str) -> str:
    have = ", ".join(map(str, dataset.sizes)) or "none"
    text = f"has no coordinate {dim!r}, only {have}; "
    if dim == LEAD and any(name in dataset.sizes for name in _NAMES[TIME]):
        text += "an analysis is no forecast: "
    return text + f"forecasts are read in WeatherBench2's layout, dims {', '.join(DIMS)} and level"


def _pressures(name: str, levels: xr.Variable) -> tuple[float, ...]:
    """[level] hPa, in the file's order."""
    if reason := why_no_pressures(levels, LEVEL):
        raise InputError(
            f"is not readable: its levels {name} {reason}; give them in hPa, with the attribute units: hPa"
        )
    return tuple(levels_in_hpa(levels, LEVEL).tolist())


def _hours(name: str, spans: xr.Variable) -> tuple[int, ...]:
    """Lead times in hours; nanoseconds where a file stores them without a word, as some of WeatherBench2 do."""
    values = spans.values
    if values.dtype.kind in "iuf":
        units = str(spans.attrs.get("units", "")).strip().lower()
        if units in _HOURS:
            values = (values * _HOUR_NS).astype("timedelta64[ns]")
        elif not units and values.max() >= _HOUR_NS:
            values = values.astype("timedelta64[ns]")
    if values.dtype.kind != "m":
        raise InputError(f"is not readable: its {name} ({values.dtype}) is no time span; give it CF units, e.g. hours")
    hours = _ascending(name, values) / np.timedelta64(1, "h")
    if not (hours == np.round(hours)).all():
        raise InputError(f"has lead times that are not whole hours: {hours.tolist()}; select whole hours")
    return tuple(int(h) for h in hours)


def _ascending(name: str, values: np.ndarray) -> np.ndarray:
    if np.isnat(values).any():
        raise InputError(f"is damaged: {name} has {np.isnat(values).sum()} values that are no time; make it again")
    steps = np.diff(values) > np.timedelta64(0, "ns")
    if not steps.all():
        at = int(np.argmin(steps))
        raise InputError(
            f"is out of order: {name} does not ascend strictly ({values[at + 1]} follows {values[at]}); sort it and "
            "drop repeats"
        )
    return values


def _refuse_repeats(name: str, values: np.ndarray) -> None:
    unique, counts = np.unique(values, return_counts=True)
    if (counts > 1).any():
        raise InputError(f"is ambiguous: its {name} holds {unique[counts > 1][0]} more than once; drop the repeats")
