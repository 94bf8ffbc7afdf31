"""Small Zarr v2 stores laid out like the public ones in the cloud, and a local web server that can fail like a cloud.

Names, dimensions and their order, chunking along time and level, calendar and attributes are those of ARCO-ERA5 and of
WeatherBench2's ERA5; grids are small, and the values are formulas of variable, level, time and place.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numcodecs
import numpy as np
import zarr

LEVELS = [
    1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 125, 150, 175, 200, 225, 250, 300, 350, 400, 450, 500, 550, 600, 650, 700,
    750, 775, 800, 825, 850, 875, 900, 925, 950, 975, 1000,
]  # fmt: skip
"""hPa of ERA5's 37 levels, as ARCO orders them."""
LEVELS_13 = [50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000]
UNITS = {
    "geopotential": "m**2 s**-2", "temperature": "K", "u_component_of_wind": "m s**-1", "2m_temperature": "K",
    "total_precipitation": "m", "total_precipitation_6hr": "m", "mean_sea_level_pressure": "Pa",
    "geopotential_at_surface": "m**2 s**-2", "land_sea_mask": "(0 - 1)",
}  # fmt: skip
_BASE = {
    "geopotential": 1e3, "temperature": 230.0, "u_component_of_wind": 0.0, "2m_temperature": 280.0,
    "total_precipitation": 1e-3, "total_precipitation_6hr": 6e-3, "mean_sea_level_pressure": 1e5,
    "geopotential_at_surface": 1e3, "land_sea_mask": 0.5,
}  # fmt: skip
_SCALE = {"total_precipitation": 1e-5, "total_precipitation_6hr": 1e-5, "land_sea_mask": 1e-3}

ARCO_GRID = np.linspace(90, -90, 19), np.arange(0, 360, 10.0)
WB2_GRID = np.linspace(-87.1875, 87.1875, 32), np.arange(64) * 5.625
"""(latitude, longitude); WeatherBench2's coarse copies go from south to north."""
ARCO_HOURS = np.arange("1900-01-01", "2051-01-01", np.timedelta64(1, "h"), "datetime64[h]")
"""1,323,648: of which few hold data."""


def values(name: str, times, grid, levels=None) -> np.ndarray:
    """[time, (level,) lat, lon] float32, different at every point; as stored, in `UNITS`."""
    latitude, longitude = (np.deg2rad(part) for part in grid)
    hours = (np.asarray(times) - np.datetime64("2020-01-01T00", "h")) / np.timedelta64(1, "h")
    field = 3 * np.sin(latitude)[:, None] + np.cos(longitude - 0.3)
    above = np.zeros(1) if levels is None else _profile(name, np.asarray(levels, float))
    out = hours[:, None, None, None] / 100 + above[:, None, None] + field
    out = _BASE[name] + _SCALE.get(name, 1.0) * out
    return (out[:, 0] if levels is None else out).astype(np.float32)


def _profile(name: str, levels: np.ndarray) -> np.ndarray:
    """[level] what a level adds, so that values are possible on Earth."""
    return 68600 * np.log(1000 / levels) if name == "geopotential" else levels * 0.06


def write_arco(
    folder: Path,
    hours=("2020-01-01", "2020-01-09"),
    variables=("geopotential", "temperature", "2m_temperature", "total_precipitation"),
    constants_in_time=False,
    **attributes,
) -> Path:
    """`ar/full_37-1h-0p25deg-chunk-1.zarr-v3` in small: a Zarr v2 store, whatever its name says.

    Args:
        folder: to make it in.
        hours: from, to (not included) that are written; all other chunks do not exist.
        variables: long names.
        constants_in_time: constant fields stand there once an hour, instead of once.
        attributes: in place of `valid_time_start` and its like.
    """
    path = folder / "full_37-1h-0p25deg-chunk-1.zarr-v3"
    said = {
        "valid_time_start": "2020-01-01",
        "valid_time_stop": "2020-01-06",
        "valid_time_stop_era5t": "2020-01-08",
        "last_updated": "2020-01-12 02:00:00+00:00",
    }
    group = zarr.create_group(path, zarr_format=2, attributes={**said, **attributes})
    axis = (ARCO_HOURS - ARCO_HOURS[0]).astype(np.int64)
    clock = {"units": "hours since 1900-01-01", "calendar": "proleptic_gregorian"}
    _put(group, "time", axis, ["time"], clock, (len(axis),))
    _put_axes(group, ARCO_GRID, LEVELS)
    first, last = (int((np.datetime64(day, "h") - ARCO_HOURS[0]).astype(int)) for day in hours)
    times = ARCO_HOURS[first:last]
    for name in variables:
        dims, levels = _dims(name, ("time", "level", "latitude", "longitude"))
        shape = (len(axis), *([37] if levels else []), 19, 36)
        array = _array(group, name, shape, (1, *shape[1:]), dims)
        array[first:last] = values(name, times, ARCO_GRID, LEVELS if levels else None)
    for name in ("geopotential_at_surface", "land_sea_mask"):
        field = values(name, times[:1], ARCO_GRID)
        if constants_in_time:
            array = _array(group, name, (len(axis), 19, 36), (1, 19, 36), ["time", "latitude", "longitude"])
            array[first:last] = np.broadcast_to(field, (len(times), 19, 36))
        else:
            _put(group, name, field[0], ["latitude", "longitude"], {"units": UNITS[name]}, (19, 36))
    zarr.consolidate_metadata(path, zarr_format=2)
    return path


def write_weatherbench2(
    folder: Path,
    days=8,
    time_chunk=8,
    variables=("geopotential", "temperature", "2m_temperature", "total_precipitation_6hr"),
    silent=(),
    consolidated=True,
) -> Path:
    """`1959-2023_01_10-6h-64x32_equiangular_conservative.zarr`, from 2020-01-01 on.

    Args:
        folder: to make it in.
        days: of 6-hourly fields.
        time_chunk: times in a chunk.
        variables: long names.
        silent: names of variables that do not tell their units.
        consolidated: with consolidated metadata.
    """
    path = folder / "1959-2023_01_10-6h-64x32_equiangular_conservative.zarr"
    group = zarr.create_group(path, zarr_format=2)
    times = np.datetime64("2020-01-01", "h") + np.arange(4 * days) * 6
    clock = {"units": "hours since 1959-01-01", "calendar": "proleptic_gregorian"}
    _put(group, "time", (times - np.datetime64("1959-01-01", "h")).astype(np.int64), ["time"], clock, (len(times),))
    _put_axes(group, WB2_GRID, LEVELS_13)
    for name in variables:
        dims, levels = _dims(name, ("time", "level", "longitude", "latitude"))
        shape = (len(times), *([13] if levels else []), 64, 32)
        array = _array(group, name, shape, (time_chunk, *shape[1:]), dims, units=name not in silent)
        array[:] = values(name, times, WB2_GRID, LEVELS_13 if levels else None).swapaxes(-1, -2)
    for name in ("geopotential_at_surface", "land_sea_mask"):
        attributes = {} if name in silent else {"units": UNITS[name]}
        field = values(name, times[:1], WB2_GRID)[0].T
        _put(group, name, field, ["longitude", "latitude"], attributes, (64, 32))
    if consolidated:
        zarr.consolidate_metadata(path, zarr_format=2)
    return path


def _dims(name: str, dims: tuple[str, ...]) -> tuple[list[str], bool]:
    on_levels = name in ("geopotential", "temperature", "u_component_of_wind")
    return [dim for dim in dims if on_levels or dim != "level"], on_levels


def _put_axes(group, grid, levels) -> None:
    for name, axis, units in (("latitude", grid[0], "degrees_north"), ("longitude", grid[1], "degrees_east")):
        _put(group, name, axis.astype(np.float32), [name], {"units": units}, axis.shape)
    _put(group, "level", np.array(levels, np.int64), ["level"], {}, (len(levels),))


def _put(group, name, data, dims, attributes, chunks) -> None:
    array = group.create_array(
        name, shape=data.shape, dtype=data.dtype, chunks=chunks, fill_value=None, config={"write_empty_chunks": True}
    )
    array[...] = data
    array.update_attributes({"_ARRAY_DIMENSIONS": dims, **attributes})


def _array(group, name, shape, chunks, dims, units=True):
    array = group.create_array(
        name, shape=shape, chunks=chunks, dtype="float32", fill_value=np.nan,
        compressors=numcodecs.Blosc("lz4", 5, numcodecs.Blosc.SHUFFLE),
    )  # fmt: skip
    array.update_attributes({"_ARRAY_DIMENSIONS": dims, **({"units": UNITS[name]} if units else {})})
    return array


class _Quiet(ThreadingHTTPServer):
    """Clients that hang up are part of the tests."""

    def handle_error(self, request, client_address) -> None:
        pass


class Server:
    """A folder behind http://127.0.0.1, with a log of what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        """Paths of GET requests, in order."""
        self.faults: dict[str, list[str]] = {}
        """Part of a path -> what befalls the next requests for it: a status (`503`, or
        `503 7` with Retry-After), `reset`, `short` or `slow`."""
        self.headers: list[dict[str, str]] = []
        """Of GET requests, in order."""
        self.secret = ""
        """Text that must stand in the query or in the header Authorization of every request; else it is refused."""
        self.down_after: int | None = None
        """Requests after which nobody answers any more."""
        self._http = _Quiet(("127.0.0.1", 0), partial(_Handler, self, directory=str(folder)))
        self._http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def chunks(self, part: str = "") -> list[str]:
        """Paths of the fields asked for so far."""
        return [
            path for path in self.asked if part in path and path.count(".") >= 3 and path.split("/")[-1][0].isdigit()
        ]

    def fault(self, path: str) -> str | None:
        """What befalls this request."""
        if self.down_after is not None and len(self.asked) > self.down_after:
            return "reset"
        waiting = next((faults for part, faults in self.faults.items() if part in path and faults), None)
        return waiting.pop(0) if waiting else None

    def close(self) -> None:
        """Stop answering."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, server: Server, *arguments, **options) -> None:
        self._told = server
        super().__init__(*arguments, **options)

    def do_GET(self) -> None:
        self._told.asked.append(self.path)
        self._told.headers.append(dict(self.headers))
        if self._told.secret and not self._may_read():
            self.send_error(403)
            return
        fault = self._told.fault(self.path)
        if fault is None:
            self._send()
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif fault == "short":
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
            self.close_connection = True
        elif fault == "slow":
            time.sleep(0.5)
            super().do_GET()
        else:
            status, _, later = fault.partition(" ")
            self.send_response(int(status))
            if later:
                self.send_header("Retry-After", later)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def do_HEAD(self) -> None:
        if self._told.secret and not self._may_read():
            self.send_error(403)
            return
        super().do_HEAD()

    def _may_read(self) -> bool:
        return self._told.secret in self.path or self._told.secret in self.headers.get("Authorization", "")

    def _send(self) -> None:
        """A file, or the range of it that is asked for."""
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        file = Path(self.translate_path(self.path))
        if asked is None or not file.is_file():
            super().do_GET()
            return
        content = file.read_bytes()
        last = int(asked[2] or len(content) - 1) if asked[1] else len(content) - 1
        first = int(asked[1]) if asked[1] else len(content) - int(asked[2])
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(len(content[first : last + 1])))
        self.end_headers()
        self.wfile.write(content[first : last + 1])

    def log_message(self, *arguments) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server of `folder` while the block runs."""
    server = Server(folder)
    try:
        yield server
    finally:
        server.close()
