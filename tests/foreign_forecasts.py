"""Forecasts as other centres publish them: WeatherBench2's names and order of dims, on a small grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

GRID = np.linspace(-80, 80, 5), np.arange(8) * 45.0
"""(latitude, longitude); WeatherBench2's go from south to north."""
INITS = np.datetime64("2020-01-01", "ns") + np.arange(6) * np.timedelta64(12, "h")
LEADS = (0, 6, 12, 24)
LEVELS = (500, 850)
CHANNELS = ("t2m", "z850", "z500")
ORDER = ("time", "number", "prediction_timedelta", "level", "longitude", "latitude")
ON_LEVELS = ("geopotential", "temperature", "relative_humidity")

_BASE = {"geopotential": 1.6e4, "temperature": 260.0, "2m_temperature": 280.0}


def dataset(variables=("geopotential", "2m_temperature"), members: int | None = None, levels=LEVELS) -> xr.Dataset:
    """Fields that differ at every point, with units; dims in WeatherBench2's order."""
    sizes = {"time": INITS, "number": np.arange(members or 1), "prediction_timedelta": hours(LEADS)}
    sizes |= {"level": np.array(levels), "longitude": GRID[1], "latitude": GRID[0]}
    made = xr.Dataset(coords=sizes)
    for name in variables:
        dims = [dim for dim in ORDER if name in ON_LEVELS or dim != "level"]
        count = [len(sizes[dim]) for dim in dims]
        field = _BASE.get(name, 1e-3) * (1 + 1e-4 * np.arange(np.prod(count)).reshape(count) / np.prod(count))
        made[name] = xr.DataArray(field.astype(np.float32), dims=dims, attrs={"units": _units(name)})
        if name == "geopotential":
            made[name] = made[name] + xr.where(made["level"] == 500, 3.6e4, 0).astype(np.float32)
            made[name] = made[name].transpose(*dims).assign_attrs(units="m**2 s**-2")
    return made if members is not None else made.isel(number=0, drop=True)


def hours(values) -> np.ndarray:
    """timedelta64[ns]."""
    return np.asarray(values, "timedelta64[h]").astype("timedelta64[ns]")


def write(made: xr.Dataset, path: Path, zarr_format: int = 2, chunks: dict[str, int] | None = None) -> Path:
    """The Zarr store `path`, chunked field by field, or as `chunks` (dim -> length) says."""
    lengths = {"time": 1, "prediction_timedelta": 1, "number": 1, **(chunks or {})}
    encoding = {
        name: {"chunks": tuple(min(size, lengths.get(str(dim), size)) for dim, size in array.sizes.items())}
        for name, array in made.data_vars.items()
        if 0 not in array.shape
    }
    made.to_zarr(path, zarr_format=zarr_format, consolidated=zarr_format == 2, encoding=encoding)
    return path


def expected(made: xr.Dataset, lead: int, channels=CHANNELS) -> np.ndarray:
    """[init, (member,) channel, lat, lon], north first, of a dataset with the names and axes of `dataset`."""
    names = {"t2m": ("2m_temperature", None), "z850": ("geopotential", 850), "z500": ("geopotential", 500)}
    chosen = made.sel(prediction_timedelta=np.timedelta64(lead, "h")).sortby("latitude", ascending=False)
    fields = []
    for name, level in map(names.__getitem__, channels):
        field = chosen[name] if level is None else chosen[name].sel(level=level, drop=True)
        fields.append(field.transpose("time", ..., "latitude", "longitude").values)
    return np.stack(fields, axis=-3)


def _units(name: str) -> str:
    return {"geopotential": "m**2 s**-2"}.get(name, "K" if "temperature" in name else "m")
