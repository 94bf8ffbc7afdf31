"""Source `weatherbench2`: ERA5 as WeatherBench2 keeps it, 6-hourly on several grids, in a public Google bucket.

Names as in its data guide (weatherbench2.readthedocs.io/en/latest/data-guide.html). The stores are Zarr v2 with ERA5's
long names on (time, level, latitude, longitude), or longitude before latitude; latitude ascends in the coarse ones.
Relative humidity, which they derived themselves and keep as a fraction of one, is computed from temperature and
specific humidity instead; what a copy is known not to hold is refused (`known_empty`).
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.formats.datasets.reader import open_dataset
from weatherfm.data_pipeline.formats.files.paths import find_files, recognise
from weatherfm.data_pipeline.source_config import ArcoSource, CdsZarrSource, FilesSource, WeatherBench2Source
from weatherfm.data_pipeline.sources.files import open_files
from weatherfm.data_pipeline.sources.known_empty import never_taken, refuse_empty
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.earth.variables import find_variable
from weatherfm.errors import InputError

FOLDER = "gs://weatherbench2/datasets/era5"
COPIES = {
    "64x32": "1959-2023_01_10-6h-64x32_equiangular_conservative.zarr",
    "240x121": "1959-2023_01_10-6h-240x121_equiangular_with_poles_conservative.zarr",
    "512x256": "1959-2022-6h-512x256_equiangular_conservative.zarr",
    "1440x721": "1959-2023_01_10-wb13-6h-1440x721_with_derived_variables.zarr",
}
"""Longitudes x latitudes -> name in `FOLDER`; all have the 13 levels of WeatherBench."""


def open_source(data: DataConfig) -> SourceData:
    """The copy that the settings name; reads metadata, coordinates and constant fields only.

    Raises:
        InputError: no such store, a channel it lacks or holds no values of, a package missing.
        OutsideError: the network failed.
    """
    source = data.source
    assert isinstance(source, WeatherBench2Source)
    address = (source.address or f"{FOLDER}/{COPIES[source.resolution]}").rstrip("/")
    refuse_empty([*data.channels, *data.static], copy_at(address), address)
    return open_files(data, store_at(address, source), never=never_taken(data.channels))


def copy_at(address: str) -> str:
    """What `known_empty` calls the copy at an address: the resolution of a shipped one, else the store's name."""
    name = PurePosixPath(urlsplit(address).path.rstrip("/")).name
    return next((resolution for resolution, copy in COPIES.items() if copy == name), name)


def store_at(address: str, source: WeatherBench2Source | ArcoSource) -> FilesSource:
    """Settings that read one Zarr store of ERA5 with its long names; units it leaves out are ERA5's own.

    Raises:
        InputError: no Zarr store at `address`.
        OutsideError: the network failed.
    """
    path = find_files([address], ())[0]
    units = units_left_out(attributes_of(path, source)[1])
    return FilesSource(
        kind="files", paths=[path], units=units, sums="1h",  # ERA5's; other spans stand in names
        storage_options=source.storage_options, missing_chunks=source.missing_chunks,
    )  # fmt: skip


def attributes_of(
    address: str, source: WeatherBench2Source | ArcoSource | CdsZarrSource
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(attributes of the Zarr store at `address`, units of each of its variables or None)."""
    path = find_files([address], ())[0]
    try:
        if recognise(path) != "zarr":
            raise InputError("it is no Zarr store; read it with source.kind=files")
        dataset = open_dataset(path, "zarr", source.access)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return dict(dataset.attrs), {str(name): v.attrs.get("units") for name, v in dataset.data_vars.items()}


def units_left_out(units: dict[str, Any]) -> dict[str, str]:
    """ERA5's units, as the channel table has them, of the variables without a word on units."""
    silent = [(name, find_variable(name)) for name, said in units.items() if not str(said or "").strip()]
    return {name: variable.units for name, variable in silent if variable is not None}
