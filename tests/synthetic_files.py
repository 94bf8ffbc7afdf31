"""Small weather files for tests: the values are known formulas of channel, time and place."""

from __future__ import annotations

from pathlib import Path

import eccodes
import numpy as np
import xarray as xr

from weatherfm.data_pipeline.config import DataConfig
from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.sources import open_source

LATITUDE = np.array([60.0, 20.0, -20.0, -60.0])
LONGITUDE = np.arange(0, 360, 45.0)
TIMES = np.arange("2020-01-01", "2020-01-03", np.timedelta64(12, "h"), "datetime64[h]").astype("datetime64[ns]")


def open_files(paths: list[Path] | Path, channels: list[str], static: tuple[str, ...] = (), **settings) -> SourceData:
    """`open_source` on files; settings of the data section by name, all others are the source's."""
    names = [str(path) for path in (paths if isinstance(paths, list) else [paths])]
    data = {key: settings.pop(key) for key in ("period", "step", "allow_gaps", "accumulation") if key in settings}
    source = {"kind": "files", "paths": names, **settings}
    return open_source(DataConfig(store="unused", source=source, channels=channels, static=list(static), **data))


def wave(times=TIMES, latitude=LATITUDE, longitude=LONGITUDE, base=280.0) -> np.ndarray:
    """[time, lat, lon] smooth and different at every point."""
    days = (np.asarray(times) - TIMES[0]) / np.timedelta64(1, "D")
    lat, lon = np.deg2rad(latitude)[:, None], np.deg2rad(longitude)
    return base + days[:, None, None] + 10 * np.sin(lat) + 3 * np.cos(lon - 0.3)


def field(name="t2m", units="K", base=280.0, times=TIMES, latitude=LATITUDE, longitude=LONGITUDE) -> xr.Dataset:
    """One surface variable [time, latitude, longitude]."""
    attributes = {} if units is None else {"units": units}
    values = (("time", "latitude", "longitude"), wave(times, latitude, longitude, base), attributes)
    return xr.Dataset({name: values}, coords={"time": times, "latitude": latitude, "longitude": longitude})


def write_netcdf(path: Path, dataset: xr.Dataset, **options) -> Path:
    """Write, and return the path."""
    dataset.to_netcdf(path, engine="netcdf4", **options)
    return path


def grib_message(short_name="t", level=500, kind="isobaricInhPa", date=20200101, time=0, values=None, **keys) -> bytes:
    """One GRIB message on the grid of this module, edition 1 unless `edition` is given."""
    edition = keys.pop("edition", 1)
    message = eccodes.codes_grib_new_from_samples(
        f"regular_ll_{'pl' if kind == 'isobaricInhPa' else 'sfc'}_grib{edition}"
    )
    settings = {
        "Ni": len(LONGITUDE), "Nj": len(LATITUDE),
        "latitudeOfFirstGridPointInDegrees": LATITUDE[0], "latitudeOfLastGridPointInDegrees": LATITUDE[-1],
        "longitudeOfFirstGridPointInDegrees": LONGITUDE[0], "longitudeOfLastGridPointInDegrees": LONGITUDE[-1],
        "iDirectionIncrementInDegrees": 45.0, "jDirectionIncrementInDegrees": 40.0,
        "dataDate": date, "dataTime": time, "typeOfLevel": kind, "level": level, "shortName": short_name,
        "bitsPerValue": 24, **keys,
    }  # fmt: skip
    for key, value in settings.items():
        if key == "level" and kind in ("surface", "meanSea"):
            continue
        eccodes.codes_set(message, key, value)
    field_values = wave(TIMES[:1])[0] if values is None else values
    eccodes.codes_set_values(message, np.ascontiguousarray(field_values, float).ravel())
    encoded = eccodes.codes_get_message(message)
    eccodes.codes_release(message)
    return bytes(encoded)
