"""Where a forecast is: a folder of this machine or an address, what it is called after, and how it is opened."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import xarray as xr

from weatherfm.data_pipeline.access import PUBLIC, Access, refuse_secret_address
from weatherfm.data_pipeline.formats.datasets.reader import FILL_CURE, open_dataset
from weatherfm.data_pipeline.formats.files.paths import local_path
from weatherfm.data_pipeline.formats.zarr.opening import is_address
from weatherfm.errors import InputError
from weatherfm.evaluation.forecasts.metadata_checksums import check_checksums, refuse_pipes


def locate(path: str | Path) -> str | Path:
    """An address (gs://, s3://, https://) without its last slashes, anything else as a path of this machine.

    Raises:
        InputError: a password or signature in it: addresses are written into scores.
    """
    local = local_path(str(path))
    if not is_address(local):
        return Path(local)
    try:
        refuse_secret_address(local)
    except InputError as error:
        raise of_evaluation(error) from None
    return local


def split_name(given: str | Path) -> tuple[str | None, str]:
    """NAME and PATH of NAME=PATH; no name where there is a folder of that name, or none is given."""
    named = re.fullmatch(r"([\w.-]+)=(.+)", str(given))
    return (None, str(given)) if named is None or Path(str(given)).exists() else (named[1], named[2])


def name_of(path: str | Path) -> str:
    """What the last part of a path or address says up to its first dot, e.g. `pangu` of gs://bucket/pangu.zarr."""
    last = Path(urlsplit(str(path)).path).name if is_address(str(path)) else Path(path).name
    return last.split(".")[0]


def open_forecast(path: str | Path, access: Access = PUBLIC) -> xr.Dataset:
    """The dataset of a Zarr store (version 2 or 3), decoded and lazy; opened once for all who ask.

    Raises:
        InputError: nothing there, an unfinished forecast, no Zarr store, access refused or a package missing.
        OutsideError: the network failed.
    """
    if isinstance(path, Path):
        if path.is_file():
            raise InputError(
                f"{path} is a file, and forecasts are read from folders of Zarr; a NetCDF file becomes one by "
                'xarray.open_dataset(file).to_zarr("forecast.zarr")'
            )
        if not path.is_dir():
            raise InputError(f"no forecast {path}; `weatherfm forecast` writes one")
        if (path / "progress.json").is_file() and not (path / "zarr.json").is_file():
            raise InputError(f"the forecast {path} is unfinished; run the same `weatherfm forecast` again, it goes on")
        refuse_pipes(path)
        check_checksums(path)
    try:
        return open_dataset(str(path), "zarr", access)
    except InputError as error:
        raise of_evaluation(
            f"{path} is no readable Zarr store ({error}); name a forecast in WeatherBench2's layout, ours or others'"
        ) from error


def of_evaluation(told: InputError | str) -> InputError:
    """A refusal of `formats` with the name that a setting has here, and without one that is not here."""
    text = str(told).replace("source.storage_options", "evaluation.storage_options")
    return InputError(text.replace(FILL_CURE, ""))
