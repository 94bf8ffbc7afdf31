"""Where states are: a store, files, a Dataset. The data stack is imported only for what needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from glob import has_magic
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from weatherfm.config import Hours
from weatherfm.data_pipeline.store.records.manifest import NAME
from weatherfm.data_pipeline.store.states import HAVE_ALL, States
from weatherfm.data_pipeline.store.training_store import Store, open_store
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError
from weatherfm.home import expanded

_FILES = (".nc", ".nc4", ".netcdf", ".cdf", ".grib", ".grib1", ".grib2", ".grb", ".grb2", ".grib.gz", ".h5")
"""Endings of what is meant to be a file, where nothing is there."""


def open_place(
    place: Any,
    channels: Sequence[str],
    provenance: Mapping[str, Any],
    rules: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    cure: str | None = HAVE_ALL,
) -> Store | States:
    """Open what states are to be read from.

    Args:
        place: a store or its folder; NetCDF, GRIB or Zarr files, one or several; an xarray.Dataset; or states.
        channels: short names of the model's.
        provenance: of the weights: it tells what accumulated channels are sums over, and how its files were
            read.
        rules: how files are read, instead of what the weights tell (`FilesSource.reading_rules`).
        storage_options: what opens a private store by its address.
        cure: what to do about channels that files lack, for the message; None: leave them out.

    Raises:
        InputError: nothing there, or not readable as the states of these channels.
        OutsideError: the network failed.
    """
    if isinstance(place, Store):
        return _of_same_fields(place, channels, provenance)
    if isinstance(place, States):
        return place
    rules = _rules(provenance) if rules is None else rules
    if storage_options:
        rules = {**rules, "storage_options": dict(storage_options)}
    if isinstance(place, str | Path):
        path = expanded(place)
        text = str(place)
        if not text.strip():
            raise InputError("states are read from '', which is no path; name a store or files (--store)")
        if text.lower().endswith(_FILES) and not (path.exists() or "://" in text or has_magic(text)):
            raise InputError(f"no file {path} to read states from; name a store, or NetCDF, GRIB or Zarr files")
        if (path / NAME).is_file() or not (path.exists() or "://" in text or has_magic(text)) or _unfinished(path):
            return _of_same_fields(open_store(path), channels, provenance)
        paths = [text]
    elif isinstance(place, list | tuple) and place and all(isinstance(path, str | Path) for path in place):
        paths = [str(path) for path in place]
    else:
        return _of_dataset(place, channels, provenance, rules, cure)
    _refuse_days(provenance)
    from weatherfm.data_pipeline.sources.file_states import open_file_states

    return open_file_states(paths, channels, _accumulation(provenance), rules, cure)


def require_read_alike(
    provenances: Sequence[Mapping[str, Any]], channels: Sequence[str], rules: Mapping[str, Any] | None
) -> None:
    """Refuse files as the states of several weights that would each read them otherwise.

    Args:
        provenances: of the weights.
        channels: that go into any of them.
        rules: how files are read, instead of what the weights tell.

    Raises:
        InputError: they differ, or know daily statistics.
    """
    for told in provenances:
        _refuse_days(told)
    sums = any(parse_channel(name).variable.accumulated for name in channels)
    read = [(_rules(told) if rules is None else rules, _accumulation(told) if sums else None) for told in provenances]
    if any(other != read[0] for other in read[1:]):
        raise InputError(
            "the weights of these members come from files that were read by different rules or sums (data.source, "
            "data.accumulation), and each would read these otherwise; forecast from a store (--store)"
        )


def _of_dataset(
    place: Any,
    channels: Sequence[str],
    provenance: Mapping[str, Any],
    rules: Mapping[str, Any],
    cure: str | None,
) -> States:
    import xarray as xr

    from weatherfm.data_pipeline.sources.file_states import open_dataset_states

    _refuse_days(provenance)
    if isinstance(place, xr.DataArray) and place.name is not None:
        place = place.to_dataset()
    if not isinstance(place, xr.Dataset):
        raise InputError(
            f"states cannot be read from {type(place).__name__}; give a store, a path, several paths, or an "
            "xarray.Dataset"
        )
    return open_dataset_states(place, channels, _accumulation(provenance), rules, cure)


def _of_same_fields(store: Store, channels: Sequence[str], provenance: Mapping[str, Any]) -> Store:
    """The store, if its fields are what the weights know by these names.

    Raises:
        InputError: days where the weights know single times, other statistics of days, or sums over other spans.
    """
    data = provenance.get("settings", {}).get("data", {})
    held = (store.manifest.get("request") or {}).get("daily")
    if data and held != data.get("daily"):
        words = [f"daily {kind}" if kind else "single times" for kind in (data.get("daily"), held)]
        raise InputError(
            f"these weights forecast from {words[0]}, the store {store.path} holds {words[1]}; name a store of theirs"
        )
    spans = provenance.get("store", {}).get("accumulation_hours", {})
    for told in store.manifest["channels"]:
        name, hours = told["name"], told.get("accumulation_hours")
        if name in channels and name in spans and hours is not None and hours != spans[name]:
            raise InputError(
                f"{name} is a sum over {spans[name]:g}h to these weights, and over {hours:g}h in the store "
                f"{store.path}; name a store with their sums"
            )
    return store


def _refuse_days(provenance: Mapping[str, Any]) -> None:
    """Files hold single times, and a model of daily statistics knows none of those."""
    if daily := provenance.get("settings", {}).get("data", {}).get("daily"):
        raise InputError(
            f"these weights forecast from daily statistics (data.daily: {daily}), which are made where a store is "
            "prepared: prepare one of the days to start from, and forecast from it"
        )


def _unfinished(path: Path) -> bool:
    """A folder that is no file of any format: `open_store` says what a store would be."""
    names = (".zgroup", ".zmetadata", "zarr.json")
    return path.is_dir() and not any((path / name).exists() for name in names)


def _rules(provenance: Mapping[str, Any]) -> Mapping[str, Any]:
    """How files were read that the weights come from; nothing where they come from elsewhere."""
    source = provenance.get("settings", {}).get("data", {}).get("source") or {}
    return {key: value for key, value in source.items() if key != "kind"} if source.get("kind") == "files" else {}


def _accumulation(provenance: Mapping[str, Any]) -> int | None:
    """Hours over which the model's accumulated channels are summed, where its weights tell."""
    data = provenance.get("settings", {}).get("data", {})
    told = data.get("accumulation") or data.get("step")
    return None if told is None else TypeAdapter(Hours).validate_python(told)
