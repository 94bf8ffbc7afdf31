"""Source `cds-zarr`: ERA5 as ECMWF keeps it in Zarr for the Climate Data Store, read with the store's key.

One store of single levels (hourly) and one of pressure levels (6-hourly), each in two copies: `timeChunked`, whose
chunks are whole fields, and `geoChunked`, whose chunks are years of a few points (ECMWF's guides to its ARCO data,
confluence.ecmwf.int/x/Vw4nJw). Short names; latitude ascends and longitude begins at 180 W. The stores grow from day to
day, and do not say which months are ERA5T: those younger than ECMWF takes to replace them are taken for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from urllib.parse import urlsplit

import numpy as np
import xarray as xr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from weatherfm.data_pipeline.cds.held import FINAL_MONTHS
from weatherfm.data_pipeline.cds.key import WEB_SITE, find_key, how_to_set
from weatherfm.data_pipeline.cds.queue import today
from weatherfm.data_pipeline.fields.derived import with_inputs
from weatherfm.data_pipeline.fields.source_data import ReadCost, SourceData
from weatherfm.data_pipeline.formats.chunks import Chunking
from weatherfm.data_pipeline.formats.datasets.reader import open_dataset
from weatherfm.data_pipeline.formats.files.paths import find_files
from weatherfm.data_pipeline.formats.zarr.opening import is_address, open_store
from weatherfm.data_pipeline.source_config import CdsZarrSource, FilesSource
from weatherfm.data_pipeline.sources.arco import check_period
from weatherfm.data_pipeline.sources.files import open_files
from weatherfm.data_pipeline.sources.weatherbench2 import attributes_of, units_left_out
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError

HOSTS = ("ecmwf.int", "copernicus.eu")
"""Whose servers, over https, are given the key."""
_FIRST = np.datetime64("1940-01-01T00", "s")
_LONG = 24
"""Times in a chunk of part of a field from which on it holds series of points."""


def open_source(data: DataConfig) -> SourceData:
    """The hours that hold (final) ERA5; reads metadata and coordinates only.

    Raises:
        InputError: no key, one that is refused, no such store, days it does not have, a channel it lacks, a package
            missing.
        OutsideError: the network failed.
    """
    source = data.source
    assert isinstance(source, CdsZarrSource)
    paths = find_files(_needed(data, source), ())
    source = _with_key(source, paths)
    for path in paths:
        _refuse_denied(path, source)
    units = {name: told for path in paths for name, told in units_left_out(attributes_of(path, source)[1]).items()}
    datasets = {path: open_dataset(path, "zarr", source.access) for path in paths}
    last, final = min(_last_hour(path, dataset) for path, dataset in datasets.items()), last_final_hour(today())
    offered = _FIRST, last if source.preliminary else min(last, final)
    check_period(data, paths[0], source.preliminary, offered, last)
    files = FilesSource(
        kind="files", paths=paths, static_paths=source.static_paths, units=units, sums="1h",
        storage_options=source.storage_options, missing_chunks=source.missing_chunks,
    )  # fmt: skip
    opened = open_files(data, files, offered, grows=True)
    preliminary = opened.state["time"].values > final
    points = [path for path, dataset in datasets.items() if _holds_series(dataset)]
    cost = opened.cost if opened.cost is None or not points else partial(_with_advice, opened.cost, points)
    return replace(opened, preliminary=preliminary if preliminary.any() else None, cost=cost)


def last_final_hour(today: date) -> np.datetime64:
    """Of ERA5 that is final by now: ECMWF replaces ERA5T two to three months after its day, by whole months."""
    month = np.datetime64(today, "M") - FINAL_MONTHS
    return month.astype("datetime64[s]") - np.timedelta64(1, "h")


def _needed(data: DataConfig, source: CdsZarrSource) -> list[str]:
    """Addresses of the stores that may hold what is asked for."""
    on_levels = {parse_channel(name).variable.on_levels for name in with_inputs(data.channels)}
    single, levels = [source.single_levels], [source.pressure_levels]
    return [*(single if on_levels != {True} else []), *(levels if True in on_levels else [])]


def _with_key(source: CdsZarrSource, paths: Sequence[str]) -> CdsZarrSource:
    """The settings with the key, which ECMWF's servers alone are sent; `storage_options` of one's own go before."""
    remote = [path for path in paths if is_address(path)]
    if source.storage_options or not any(map(_is_ecmwf, remote)):
        return source
    if foreign := [path for path in remote if not _is_ecmwf(path)]:
        raise InputError(
            f"{foreign[0]} is no server of ECMWF's, and is not sent the key of the Climate Data Store; give what opens "
            "both stores as source.storage_options, or take both from ECMWF"
        )
    return source.model_copy(update={"storage_options": {"token": find_key().token}})


def _is_ecmwf(address: str) -> bool:
    place = urlsplit(address)
    host = place.hostname or ""
    return place.scheme == "https" and any(host == one or host.endswith(f".{one}") for one in HOSTS)


def _refuse_denied(path: str, source: CdsZarrSource) -> None:
    """Say it by its true reason when the key is not taken: to a reader, what is denied is only not there."""
    if not is_address(path):
        return
    store = open_store(path, source.access)
    found = [sync(store.get(name, default_buffer_prototype())) for name in (".zmetadata", "zarr.json")]
    if any(found) or store.refusal is None or store.refusal.cure is None:
        return
    if not _is_ecmwf(path):
        raise InputError(
            f"{path} cannot be read: it {store.refusal.reason}; give a key that may read it as source.storage_options"
        )
    raise InputError(
        f"{path} cannot be read: it {store.refusal.reason}. The key of the Climate Data Store is wrong, or the licence "
        f"of its data set is not accepted yet (at the end of the download tab of {WEB_SITE}/datasets); {how_to_set()}"
    )


def _last_hour(path: str, dataset: xr.Dataset) -> np.datetime64:
    name = next((name for name in ("time", "valid_time") if name in dataset.variables), None)
    if name is None or not dataset.sizes.get(name):
        raise InputError(f"{path} has no times, as ECMWF's ERA5 has them; correct the address")
    return dataset.variables[name].values[-1].astype("datetime64[s]")


def _holds_series(dataset: xr.Dataset) -> bool:
    """True of the copies whose chunks are long in time and hold only part of a field."""
    for variable in dataset.variables.values():
        slots = [dim for dim in map(str, variable.dims) if dim in ("time", "valid_time")]
        if variable.ndim > 2 and slots:
            levels = [str(dim) for dim in variable.dims[1:-2]]
            chunks = Chunking.of(variable, slots, levels[0] if levels else None)
            return chunks.tiles > 1 and chunks.times > _LONG
    return False


def _with_advice(cost: Callable[[np.ndarray], ReadCost], points: Sequence[str], indices: np.ndarray) -> ReadCost:
    text = (
        f"{' and '.join(points)} hold{'s' * (len(points) == 1)} long series of a few points in a chunk: one field "
        "takes all chunks of its time, and each part of the record reads them again; ECMWF's timeChunked copies (the "
        "default) hold whole fields"
    )
    return cost(indices) + ReadCost(advice=(text,))
