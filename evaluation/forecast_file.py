"""Reads forecasts in WeatherBench2's layout, ours or others', and checks them before anything is scored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.formats.units import Conversion, conversion_to
from weatherfm.errors import InputError
from weatherfm.evaluation.forecast_layout import variables_of
from weatherfm.grid import Grid
from weatherfm.variables import Channel, find_variable, parse_channel

_DIMS = ("time", "prediction_timedelta", "latitude", "longitude")


class ForecastFile:
    """A forecast on disk.

    Longitude may come before latitude, and latitude may ascend, as in files of WeatherBench2; fields are given as
    [init, channel, lat, lon] with latitude descending all the same.

    Raises:
        InputError: nothing there, an unfinished forecast, a missing or repeated coordinate, or no channel we know.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._dataset = _open(self.path)
        coordinates = {name: self._coordinate(name) for name in _DIMS}
        self.init_times: np.ndarray = coordinates["time"].astype("datetime64[s]")
        """[init] datetime64[s], ascending."""
        self.lead_times: tuple[int, ...] = _hours(coordinates["prediction_timedelta"], self.path)
        """Hours."""
        latitude = coordinates["latitude"]
        self._flip = bool(latitude[0] < latitude[-1])
        self.grid = Grid(latitude[::-1] if self._flip else latitude, coordinates["longitude"])
        attributes = self._dataset.attrs
        self.provenance: dict[str, Any] = json.loads(attributes.get("provenance", "{}"))
        """How it came about; empty for a file of others."""
        self.channels: tuple[str, ...] = tuple(attributes.get("channels", "").split()) or self._known_channels()
        """Short names."""
        if not self.channels:
            raise InputError(
                f"{self.path} holds no variable we know, only {', '.join(map(str, self._dataset.data_vars))}; "
                "variables carry ERA5 long names, e.g. 2m_temperature"
            )

    @property
    def name(self) -> str:
        """What scores call it: as its provenance says, else `model` for ours and the file's name for others'."""
        return str(self.provenance.get("name") or ("model" if self.provenance else self.path.name.split(".")[0]))

    @property
    def simulated(self) -> bool:
        """True when the forecast started from a simulated atmosphere."""
        return bool(self.provenance.get("simulated"))

    def require(self, channels: Sequence[str], lead_times: Sequence[int], grid: Grid) -> None:
        """Check that the forecast can be scored.

        Raises:
            InputError: a channel or lead time it lacks, another grid, wrong units or dims.
        """
        if self.grid != grid:
            raise InputError(
                f"the grid of {self.path} is {self.grid}, that of the truth is {grid}; regrid the forecast"
            )
        if missing := [hours for hours in lead_times if hours not in self.lead_times]:
            raise InputError(
                f"{self.path} lacks lead times {_list(missing)}; it has {_list(self.lead_times)}: forecast again with "
                "all of them"
            )
        for channel in channels:
            self._check(parse_channel(channel))

    def read(self, init_indices: Sequence[int] | np.ndarray, lead_time: int, channels: Sequence[str]) -> np.ndarray:
        """[init, channel, lat, lon] float32 in physical units at one lead time (hours).

        Raises:
            InputError: a value that is not finite, named by channel, initial time and lead time.
        """
        inits = np.asarray(init_indices)
        lead_index = self.lead_times.index(lead_time)
        out = np.empty((len(inits), len(channels), *self.grid.shape), np.float32)
        position = {channel: i for i, channel in enumerate(channels)}
        for name, levels in variables_of(channels).items():
            array = self._dataset[name].isel(time=inits, prediction_timedelta=lead_index)
            if None not in levels:
                array = array.sel(level=list(levels)).transpose("time", "level", "latitude", "longitude")
            else:
                array = array.transpose("time", "latitude", "longitude").expand_dims("level", axis=1)
            values = array.values[:, :, ::-1] if self._flip else array.values
            for i, channel in enumerate(levels.values()):
                out[:, position[channel]] = values[:, i]
        self._refuse_not_finite(out, channels, inits, lead_time)
        return out

    def _coordinate(self, name: str) -> np.ndarray:
        if name not in self._dataset.dims or name not in self._dataset.coords:
            raise InputError(
                f"{self.path} has no coordinate {name!r}, only {', '.join(map(str, self._dataset.dims))}; "
                f"forecasts are read in WeatherBench2's layout, dims {', '.join(_DIMS)} and level"
            )
        values = self._dataset[name].values
        if name in ("time", "prediction_timedelta"):
            if values.dtype.kind != ("M" if name == "time" else "m"):
                raise InputError(f"{name} of {self.path} is no time but {values.dtype}; give it CF units")
            if not (np.diff(values) > np.timedelta64(0, "ns")).all():
                raise InputError(f"{name} of {self.path} does not ascend strictly; sort it and drop repeats")
        return values

    def _known_channels(self) -> tuple[str, ...]:
        channels: list[str] = []
        for name, array in self._dataset.data_vars.items():
            variable = find_variable(str(name))
            if variable is None or variable.era5 != name or "prediction_timedelta" not in array.dims:
                continue
            if variable.on_levels:
                levels = array["level"].values if "level" in array.dims else ()
                channels += [Channel(variable, int(level)).name for level in levels]
            else:
                channels.append(Channel(variable).name)
        return tuple(channels)

    def _check(self, channel: Channel) -> None:
        name = channel.variable.era5
        if name not in self._dataset:
            raise InputError(f"{self.path} lacks {name} (channel {channel.name}); it has {', '.join(self.channels)}")
        array = self._dataset[name]
        expected = {*_DIMS, "level"} if channel.level is not None else {*_DIMS}
        if set(array.dims) != expected or len(array.dims) != len(expected):
            raise InputError(
                f"{name} of {self.path} has dims {', '.join(map(str, array.dims))}, expected "
                f"{', '.join(sorted(expected))}; select or rename the others"
            )
        if channel.level is not None and channel.level not in array["level"].values:
            raise InputError(
                f"{self.path} lacks level {channel.level} (channel {channel.name}); it has levels "
                f"{_list(array['level'].values, ' hPa')}"
            )
        self._check_units(channel, array.attrs.get("units"))

    def _check_units(self, channel: Channel, units: str | None) -> None:
        """Any spelling of the canonical units will do; values in other units are not converted here."""
        what = f"{channel.variable.era5} of {self.path} has units {units!r}, expected {channel.units!r}"
        try:
            same = conversion_to(channel.variable, units) == Conversion()
        except InputError as error:
            raise InputError(f"{what}: {error}") from None
        if not same:
            raise InputError(f"{what}; convert the values, or mend the attribute")

    def _refuse_not_finite(self, fields: np.ndarray, channels: Sequence[str], inits: np.ndarray, lead: int) -> None:
        finite = np.isfinite(fields).all((2, 3))  # [init, channel]
        if not finite.all():
            init, channel = np.argwhere(~finite)[0]
            raise InputError(
                f"{self.path} has a value that is not finite: {channels[channel]} from "
                f"{self.init_times[inits[init]]} at {lead}h; the forecast is incomplete or damaged, make it again"
            )


def _open(path: Path) -> xr.Dataset:
    if not path.is_dir():
        raise InputError(f"no forecast {path}; `weatherfm forecast` writes one")
    if (path / "progress.json").is_file() and not (path / "zarr.json").is_file():
        raise InputError(f"the forecast {path} is unfinished; run the same `weatherfm forecast` again, it goes on")
    try:
        return xr.open_zarr(path, chunks=None, decode_timedelta=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is no readable Zarr store ({error}); name a forecast written by weatherfm") from None


def _hours(spans: np.ndarray, path: Path) -> tuple[int, ...]:
    hours = spans / np.timedelta64(1, "h")
    if not (hours == hours.astype(int)).all():
        raise InputError(f"lead times of {path} are not whole hours: {hours.tolist()}; select whole hours")
    return tuple(int(h) for h in hours)


def _list(values: Sequence[int] | np.ndarray, unit: str = "h") -> str:
    return ", ".join(f"{value:g}{unit}" for value in values)
