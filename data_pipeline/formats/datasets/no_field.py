"""What a file holds that cannot be read as fields of one variable on latitudes and longitudes, and what helps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import netCDF4
import numpy as np
import xarray as xr
import zarr

from weatherfm.data_pipeline.access import PUBLIC, Access
from weatherfm.data_pipeline.formats.datasets.dimensions import map_of, role_of
from weatherfm.data_pipeline.formats.files.paths import Format
from weatherfm.data_pipeline.formats.meaning.ambiguous_names import reading_of
from weatherfm.data_pipeline.formats.zarr.icechunk_repository import is_repository
from weatherfm.data_pipeline.formats.zarr.opening import open_store
from weatherfm.earth.variables import find_variable

_SHOWN = 6


def what_it_holds(dataset: xr.Dataset, path: str | None, format: Format, access: Access = PUBLIC) -> str:
    """In words; `path` is that of the file, None for a Dataset in memory; `access` is how a store was opened."""
    empty = all(variable.ndim < 2 for variable in dataset.variables.values())
    groups = _groups(path, format, access) if path is not None and empty else []
    if not groups:
        return _without(dataset)
    if path is not None and format == "zarr":
        return (
            f"its fields in groups ({', '.join(groups[:6])}), which are not looked into; give the group as a store of "
            f"its own: {path.rstrip('/')}/{groups[0]}"
        )
    return (
        f"its fields in groups ({', '.join(groups[:6])}), which are not looked into; write each as a file, e.g. "
        f"`ncks -G : -g {groups[0]} IN.nc OUT.nc`"
    )


def names_along(dataset: xr.Dataset, name: str) -> str | None:
    """Where a field holds several variables along a dimension of their names, how to take it apart; None where not."""
    for dim in dataset.variables[name].dims:
        values = dataset.variables[dim].values if dim in dataset.variables else np.zeros(0)
        texts = [str(one) for one in values.ravel()[:_SHOWN].tolist()] if values.dtype.kind in "UO" else []
        if any(find_variable(text) or reading_of(text) for text in texts):
            return (
                f"{name} holds several variables along {dim} ({', '.join(texts)}, ...): write each as a variable of "
                f"its own, e.g. with xarray: dataset['{name}'].to_dataset('{dim}').to_netcdf(...)"
            )
    return None


def unknown_dimensions(name: str, dims: Sequence[str]) -> str:
    """What to do with a field that has more dimensions than are known here."""
    return (
        f"{name} has several fields along {' and '.join(dims)}, and what these are is not known here: write one of "
        f"them, e.g. `ncks -d {dims[0]},0 IN.nc OUT.nc`"
    )


def _groups(path: str, format: Format, access: Access) -> list[str]:
    if is_repository(path):
        group = zarr.open_group(open_store(path, access), mode="r")
        return [name for name, member in group.members(max_depth=None) if isinstance(member, zarr.Group)][::-1]
    if format == "zarr":
        known = ("zarr.json", ".zgroup")
        folders = sorted(Path(path).iterdir()) if Path(path).is_dir() else []
        return [folder.name for folder in folders if any((folder / name).is_file() for name in known)]
    if format != "hdf5":
        return []
    with netCDF4.Dataset(path) as file:
        return list(file.groups)


def _without(dataset: xr.Dataset) -> str:
    """What a dataset without any field on latitudes and longitudes holds, and what helps."""
    sizes = ", ".join(f"{name} {size}" for name, size in dataset.sizes.items()) or "none"
    if {"variable", "cell"} <= set(map(str, dataset.sizes)) and "data" in dataset.variables:
        names = ", ".join(map(str, dataset.attrs.get("variables", [])[:6]))
        return (
            f"one array of all variables ({names}, ...) on {dataset.sizes['cell']} flattened cells, as anemoi-datasets "
            "writes: such stores are not read; give weatherfm what they were made from, or write each variable on its "
            "latitudes and longitudes"
        )
    if maps := sorted({found for name in map(str, dataset.variables) if (found := map_of(dataset, name))}):
        return (
            f"its fields on a map of its own (grid_mapping_name {', '.join(maps)}), whose coordinates are no latitudes "
            "and longitudes of the Earth: regrid it first, e.g. with `cdo remapbil,r360x180`"
        )
    for name, role in ((str(name), role_of(str(name), v)) for name, v in dataset.variables.items() if v.ndim == 1):
        along = dataset.variables[name].dims
        alike = [other for other, v in dataset.variables.items() if v.dims == along]
        if role == "latitude" and any(role_of(str(other), dataset.variables[other]) == "longitude" for other in alike):
            return (
                f"its fields on a list of {dataset.sizes[along[0]]} points ({along[0]}), as reduced Gaussian, "
                "icosahedral and unstructured grids: bring them to a regular grid first, e.g. with "
                "`cdo setgridtype,regular` or `cdo remapcon,r360x180`"
            )
    return f"no field on a latitude-longitude grid (dimensions {sizes}); regrid it first"
