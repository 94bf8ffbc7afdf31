"""What a file holds that has no field on latitudes and longitudes, and what helps."""

from __future__ import annotations

import netCDF4
import xarray as xr

from weatherfm.data_pipeline.formats.dimensions import role_of
from weatherfm.data_pipeline.formats.paths import Format


def what_it_holds(dataset: xr.Dataset, path: str | None, format: Format) -> str:
    """In words; `path` is that of the file, None for a Dataset in memory."""
    empty = all(variable.ndim < 2 for variable in dataset.variables.values())
    groups = _groups(path) if path is not None and format == "hdf5" and empty else []
    if not groups:
        return _without(dataset)
    return (
        f"its fields in groups ({', '.join(groups[:6])}), which are not looked into; write each as a file, e.g. "
        f"`ncks -G : -g {groups[0]} IN.nc OUT.nc`"
    )


def _groups(path: str) -> list[str]:
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
