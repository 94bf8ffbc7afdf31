"""Which span a field of an accumulated variable is summed over, as far as a NetCDF file or Zarr store says."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.fields.time_axis import spacing
from weatherfm.data_pipeline.formats.pieces import Slots
from weatherfm.data_pipeline.formats.time_values import evenly, seconds, without_leap_days

_log = logging.getLogger(__name__)
_HOUR = np.timedelta64(3600, "s")
_ERA5_DEGREES = 0.25
_SPARSE = 1000  # more than any rank of a name

Archive = Literal["", "era5", "era5_land", "climate data store"]
"""Where a file comes from: ERA5 (hourly sums), ERA5-Land (sums since 00 UTC), one of both, or it does not say."""


def with_bounds(slots: Slots, dataset: xr.Dataset, dims: Sequence[str]) -> Slots:
    """`slots` of a sum with the spans that bounds of the times tell (CF), each at the end of its span.

    Bounds that leave something between one sum and the next are not believed: CDO writes the first and the last label
    of what it added, which is an hour too little for hourly sums.
    """
    found = _bounds(dataset, dims)
    if found is None:
        return slots
    along = np.unravel_index(np.arange(len(slots.index)), tuple(dataset.sizes[dim] for dim in dims))
    row = along[list(dims).index(found.dim)] if found.dim in dims else np.zeros(len(slots.index), int)
    return replace(slots, times=found.ends[row], accumulated=found.hours[row], labels=slots.times, lags=found.lags[row])


def said_hours(name: str, variable: xr.Variable, slots: Slots) -> np.ndarray:
    """[slot] hours that each field of an accumulated variable is summed over; NaN where the file does not say."""
    known = np.full(len(slots.times), np.nan) if slots.accumulated is None else slots.accumulated
    told = hours_in(name)
    for said in (variable.attrs.get("GRIB_stepRange"), variable.attrs.get("stepRange")):
        if np.isnan(told) and (steps := re.fullmatch(r"(\d+)-(\d+)h?", str(said or "").strip())):
            told = float(steps[2]) - float(steps[1])
    if np.isnan(told):
        told = _hours_in_words(" ".join(str(variable.attrs.get(key, "")) for key in ("long_name", "description")))
    if np.isnan(told):
        told = _sampled_as_summed(str(variable.attrs.get("cell_methods", "")), slots.times)
    return np.where(np.isnan(known), told, known)


def hours_in(name: str) -> float:
    """Span that a name such as `total_precipitation_6hr`, `tp06` or `tp_1h` tells; NaN for others."""
    low = name.lower()
    told = re.search(r"_(\d+)h(r|rs|ours?)?$", low) or re.search(r"_(\d+)_hours?_accumulation$", low)
    told = told or re.fullmatch(r"[a-z]+?_?(?:acc(?:um)?_?)?(\d{1,2})h(?:r|rs)?", low)
    told = told or re.fullmatch(r"[a-z]+(\d\d)", low)  # earth2studio
    return float(told[1]) if told and float(told[1]) > 0 else float("nan")


def archive_of(dataset: xr.Dataset, name: str) -> Archive:
    """Which of ECMWF's archives a variable comes from, by what the file says of itself and by its grid.

    The Climate Data Store labels ERA5 and ERA5-Land alike; their own grids are of 0.25 and 0.1 degrees.
    """
    attributes = dataset.variables[name].attrs
    keys = ("title", "source", "dataset", "dataset_id", "summary", "comment", "history", "references")
    text = " ".join(str(dataset.attrs.get(key, "")) for key in keys).lower()
    if "sum" in str(attributes.get("cell_methods", "")) or re.search(
        r"\bcdo\b|\bnc(ra|wa|ea|ap2)\b|temporal\.(daily|monthly)_", text
    ):
        return ""  # what was made of it need not have its span any more
    if re.search(r"era5[-_ ]?land", text):
        return "era5_land"
    if re.search(r"reanalysis-era5-single-levels\b(?!-monthly)|\bera5 hourly\b", text):
        return "era5"
    if not _is_of_the_store(dataset, attributes):
        return ""
    degrees = _grid_degrees(dataset, attributes)
    return "era5" if degrees is not None and abs(degrees - _ERA5_DEGREES) < 1e-3 else "climate data store"


def _is_of_the_store(dataset: xr.Dataset, attributes: dict[Any, Any]) -> bool:
    """A reanalysis as the Climate Data Store writes it since 2024, and no ensemble (whose sums span 3 h)."""
    ecmwf = str(attributes.get("GRIB_centre", dataset.attrs.get("GRIB_centre", ""))) in ("ecmf", "98")
    accumulated = str(attributes.get("GRIB_stepType", "accum")) in ("accum", "avg")  # a mean rate is over as long
    one = "number" not in dataset.variables or dataset.variables["number"].size == 1
    steps = any(str(dim) in ("step", "forecast_period", "prediction_timedelta") for dim in dataset.sizes)
    return ecmwf and accumulated and one and not steps and "valid_time" in dataset.variables and "expver" in dataset


def _grid_degrees(dataset: xr.Dataset, attributes: dict[Any, Any]) -> float | None:
    told = attributes.get("GRIB_iDirectionIncrementInDegrees")
    if told is not None:
        return float(told)
    longitude = next((dataset.variables[n] for n in ("longitude", "lon") if n in dataset.variables), None)
    if longitude is None or longitude.size < 2:
        return None
    return abs(float(np.median(np.diff(np.asarray(longitude.values, float)))))


def _hours_in_words(text: str) -> float:
    """`6-hour accumulation`, `accumulated over the last 3 hours`; NaN for others."""
    low = text.lower()
    if not re.search(r"accum|\bsum|total|\b(past|last|previous|preceding)\b", low):
        return float("nan")
    found = set(re.findall(r"(\d+)[\s_-]*(?:hours?|hrs?|h)\b(?!\s*(?:forecast|lead))", low))
    return float(found.pop()) if len(found) == 1 else float("nan")


def _sampled_as_summed(methods: str, times: np.ndarray) -> float:
    """`time: sum (interval: 1 hour)` where times are that interval apart; NaN for others.

    CF's interval is that of what was summed. Where times are further apart, the sum may be of one such interval or of
    all of them.
    """
    told = re.search(r"time: sum\s*\([^)]*interval:\s*(\d+)\s*(hours?|hrs?|h|days?|d)\b", methods.lower())
    if told is None:
        return float("nan")
    hours = float(told[1]) * (24 if told[2].startswith("d") else 1)
    apart = np.unique(np.diff(np.unique(times)) / _HOUR)
    return hours if len(apart) and np.median(apart) == hours else float("nan")


@dataclass(frozen=True, eq=False)
class _Bounds:
    """Spans of the times along a dimension; hours are those of the file's own calendar."""

    dim: str
    ends: np.ndarray
    """[time] datetime64[s]."""
    hours: np.ndarray
    lags: np.ndarray
    """[time] hours from a time to the end of its span."""


def _bounds(dataset: xr.Dataset, dims: Sequence[str]) -> _Bounds | None:
    """None without bounds that can be believed."""
    for name, coordinate in dataset.variables.items():
        told = coordinate.attrs.get("bounds", coordinate.encoding.get("bounds"))
        bounds = None if told is None else dataset.variables.get(str(told))
        if bounds is None or coordinate.ndim > 1 or bounds.shape[-1:] != (2,) or not _are_times(bounds):
            continue
        if coordinate.dims and coordinate.dims[0] not in dims:
            continue
        even = evenly(bounds).reshape(-1, 2)
        if len(even) == max(1, coordinate.size) and _are_believable(even, str(name)):
            lags = (even[:, 1] - evenly(coordinate).reshape(-1)) / _HOUR
            ends = seconds(bounds).reshape(-1, 2)[:, 1]
            return _Bounds(str(coordinate.dims[0]) if coordinate.dims else "", ends, np.diff(even)[:, 0] / _HOUR, lags)
    return None


def _are_times(values: xr.Variable) -> bool:
    return values.dtype.kind == "M" or without_leap_days(values) is not None


def _are_believable(bounds: np.ndarray, name: str) -> bool:
    spans = bounds[:, 1] - bounds[:, 0]
    hours = spans / _HOUR
    order = np.argsort(bounds[:, 0])
    apart = (bounds[order][1:, 0] - bounds[order][:-1, 1]) / _HOUR
    whole = (hours > 0) & ((24 % np.maximum(hours, 1e-9) == 0) | (hours % 24 == 0))
    believed = bool(whole.all() and not ((apart > 0) & (apart < hours[order][:-1])).any())
    if not believed:
        _log.warning("the bounds of %s do not tell what sums span: they leave something between two of them", name)
    return believed


def rank_of_sum(rank: int, slots: Slots) -> int:
    """Rank of an accumulated field's name: one that tells its span comes before one whose times lie further apart.

    WeatherBench2 keeps hourly `toa_incident_solar_radiation` every 6 h, beside `toa_incident_solar_radiation_6hr`:
    the spacing of the former would mislead.
    """
    apart = spacing(slots.times)
    unsaid = slots.accumulated is None or bool(np.isnan(slots.accumulated).all())
    return rank + _SPARSE if unsaid and apart is not None and apart > 1 else rank
