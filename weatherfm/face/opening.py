"""Forecasts and scores on disk as xarray has them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import xarray as xr

from weatherfm.data_pipeline.access import Access
from weatherfm.errors import InputError
from weatherfm.evaluation.forecasts import address
from weatherfm.evaluation.forecasts.axes import LEAD, LEVEL, MEMBER, TIME, axes_of
from weatherfm.evaluation.results.scores_file import read_scores
from weatherfm.face.arguments import path_text

_OURS = {TIME: "init_time", LEAD: "lead_time", MEMBER: MEMBER, LEVEL: LEVEL}


def open_forecast(path: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None) -> xr.Dataset:
    """Open a forecast in WeatherBench2's layout, ours or another's; fields are read when they are asked for.

        forecast = weatherfm.open_forecast("runs/demo/forecast.zarr")
        forecast["geopotential"].sel(level=500).isel(init_time=0, lead_time=-1).plot()

    Args:
        path: folder or address (gs://, s3://, https://) of a Zarr store.
        storage_options: what opens a private store by its address, as {"token": ...}; kept nowhere.

    Returns:
        Variables as they are stored, with the dims and coordinates that `weatherfm.forecast` gives: init_time,
        lead_time, latitude, longitude, with level in hPa and number; valid_time as coordinate.

    Raises:
        InputError: nothing there, an unfinished forecast, no Zarr store, no forecast, or access refused.
        OutsideError: the network failed.
    """
    place = address.locate(path_text(path, "a forecast"))
    dataset = address.open_forecast(place, Access.of(dict(storage_options or {})))
    try:
        axes = axes_of(dataset)
    except InputError as error:
        raise InputError(f"the forecast {place} {error}") from None
    named = dataset.rename({dim.name: _OURS.get(ours, ours) for ours, dim in axes.dims.items()})
    valid = (named["init_time"] + named["lead_time"]).assign_attrs(standard_name="time")
    return named.assign_coords(valid_time=valid)


def open_scores(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read scores that `weatherfm.evaluate` or the command has written, whole.

        scores = weatherfm.open_scores("runs/demo/scores.nc")
        scores["acc"].sel(region="global", channel="z500").isel(period=0).plot(hue="forecast")

    Args:
        path: of the NetCDF file.

    Returns:
        `rmse`, `bias`, `acc`, ... with dims forecast (the model, then baselines), period (`all`, then seasons or
        months), region, lead_time and channel; `units` of each channel, weights, grid and provenance beside them.

    Raises:
        InputError: no such file, or not scores of this version of weatherfm.
    """
    return read_scores(path_text(path, "a scores file"))
