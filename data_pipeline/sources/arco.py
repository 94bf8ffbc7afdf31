"""Source `arco`: ARCO-ERA5, hourly ERA5 from 1940 on at 0.25 degrees in a public Google bucket.

One Zarr array a variable, in chunks of one hour and all 37 levels. Its time axis is padded: it runs from 1900 to 2050,
and hours without data read as fill values. Which hours hold data is told by the attributes `valid_time_start`,
`valid_time_stop` (final ERA5) and `valid_time_stop_era5t` (with preliminary ERA5T behind it), all whole days, the last
one included (github.com/google-research/arco-era5).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from weatherfm.data_pipeline.fields.source_data import ReadCost, SourceData
from weatherfm.data_pipeline.formats.wanted_times import Range
from weatherfm.data_pipeline.source_config import ArcoSource
from weatherfm.data_pipeline.sources.files import open_files
from weatherfm.data_pipeline.sources.weatherbench2 import attributes_of, store_at
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError

_log = logging.getLogger(__name__)
_ALTERNATIVE = (
    "WeatherBench2's copies (source.kind=weatherbench2) hold 13 levels every 6 hours, at 0.25 degrees and coarser: "
    "for those levels and hours they move less"
)


def open_source(data: DataConfig) -> SourceData:
    """The hours that hold data; reads metadata, coordinates and constant fields only.

    Raises:
        InputError: no such store, one that does not say which hours hold data, days it does not have, a channel it
            lacks, a package missing.
        OutsideError: the network failed.
    """
    source = data.source
    assert isinstance(source, ArcoSource)
    attributes, _ = attributes_of(source.address, source)
    first, final, last = valid_hours(attributes, source.address)
    offered = first, last if source.preliminary else final
    check_period(data, source.address, source.preliminary, offered, last)
    opened = open_files(data, store_at(source.address, source), offered)
    preliminary = opened.state["time"].values > final
    cost = None if opened.cost is None else partial(_with_alternative, opened.cost)
    # the ends stay out of the provenance: they move on daily, and an interrupted run must know its source again
    return replace(opened, preliminary=preliminary if preliminary.any() else None, cost=cost)


def valid_hours(attributes: dict[str, Any], address: str) -> tuple[np.datetime64, np.datetime64, np.datetime64]:
    """(first hour, last hour of final ERA5, last hour of all) that hold data, as the store's attributes say.

    Raises:
        InputError: an attribute is missing or no date.
    """
    days = {}
    for key in ("valid_time_start", "valid_time_stop", "valid_time_stop_era5t"):
        told = attributes.get(key, attributes.get("valid_time_stop"))
        try:
            days[key] = np.datetime64(str(told), "D")
        except ValueError:
            raise InputError(
                f"{address}: its attribute {key} is {told!r}, no date; without it nobody knows which hours hold data "
                "(ARCO's time axis runs on to 2050): correct the address, or read it with source.kind=files"
            ) from None
    hour = np.timedelta64(23, "h")
    start, final, last = (days[key].astype("datetime64[s]") for key in days)
    return start, final + hour, max(final, last) + hour


def check_period(data: DataConfig, address: str, preliminary: bool, offered: Range, last: np.datetime64) -> None:
    """Refuse days without data by their true reason, before they are only missing.

    Args:
        data: what is asked for.
        address: of the store.
        preliminary: ERA5T is asked for, too.
        offered: first and last hour of what is asked for that holds data.
        last: hour that holds data, ERA5T or not.

    Raises:
        InputError: the period reaches beyond what is offered.
    """
    if data.period is None:
        return
    first, end = np.datetime64(data.period.start, "s"), np.datetime64(data.period.end, "s") + np.timedelta64(23, "h")
    if first >= offered[0] and end <= offered[1]:
        return
    has = f"it has final ERA5 from {_day(offered[0])} to {_day(offered[1])}"
    if preliminary:
        has = f"it has ERA5 from {_day(offered[0])} to {_day(offered[1])}, the last months preliminary"
    elif last > offered[1]:
        has += f" and preliminary ERA5T to {_day(last)} (source.preliminary=true takes it)"
    if data.allow_gaps and first <= offered[1] and end >= offered[0]:
        _log.warning("%s: %s; data.period %s reaches beyond", address, has, data.period)
        return
    raise InputError(f"{address}: {has}, but data.period is {data.period}; choose days that it has")


def _day(time: np.datetime64) -> str:
    return str(time.astype("datetime64[D]"))


def _with_alternative(cost: Callable[[np.ndarray], ReadCost], indices: np.ndarray) -> ReadCost:
    found = cost(indices)
    return found + ReadCost(advice=(_ALTERNATIVE,)) if found.advice else found
