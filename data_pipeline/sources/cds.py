"""Source `cds`: ERA5 from the Copernicus Climate Data Store, by requests that wait in a queue.

Times and grid follow from the settings, so opening needs neither key nor internet. `fetch` downloads what is missing,
one GRIB file a month and data set where that fits; fields are then read from these files like from any others.
"""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

from weatherfm.data_pipeline.cds.fields import OrderedFields, read_static
from weatherfm.data_pipeline.cds.order import Order
from weatherfm.data_pipeline.cds.wanted import window_hours
from weatherfm.data_pipeline.fields.positions import view
from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError

_BLOCK_BYTES = 32 * 2**20
_FINE = 2**20  # bytes of a field above which a store chunks single channels, and so should a block


def open_source(data: DataConfig) -> SourceData:
    """ERA5 over `data.period`, every `data.step` (hourly without it); nothing is asked or downloaded yet.

    Raises:
        InputError: no period, or a channel, step, grid or area that ERA5 does not have.
    """
    if not data.channels:
        raise InputError(
            f"the Climate Data Store gives {', '.join(data.static)} beside channels alone; name a channel in that part "
            "of the source too, or take its static fields from files"
        )
    order = Order.of(data)
    fields = OrderedFields(order)
    state = view(fields, order.times, data.channels, order.box.grid, _blocks(order))
    attributes = _provenance(order)
    if attributes["accumulated"]:
        state.attrs["accumulated"] = attributes["accumulated"]
    return SourceData(
        state=state,
        static=_lazy_static(order) if data.static else None,
        attributes=attributes,
        simulated=False,
        preliminary=order.preliminary(),
        cost=order.cost,
        fetch=order.fetch,
        download_bytes=order.download_bytes,
        download_folder=order.source.cache,
        read_from=fields,
    )


def _blocks(order: Order) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Lengths along time and channel of what is read at once; each block lies in one month."""
    n_channels, shape = len(order.data.channels), order.box.grid.shape
    field = 4 * int(np.prod(shape))
    channels = 1 if field >= _FINE else min(n_channels, max(1, _BLOCK_BYTES // field))
    times = max(1, _BLOCK_BYTES // (field * channels))
    _, lengths = np.unique(order.times.astype("datetime64[M]"), return_counts=True)
    parts = tuple(part for length in lengths for part in _cut(int(length), times))
    return parts, _cut(n_channels, channels)


def _cut(length: int, most: int) -> tuple[int, ...]:
    whole, rest = divmod(length, most)
    return (most,) * whole + ((rest,) if rest else ())


def _lazy_static(order: Order) -> xr.DataArray:
    """[static, latitude, longitude] float32, lazy: read from files once they are here."""
    names, grid = order.data.static, order.box.grid
    read = dask.delayed(read_static, pure=True)
    fields = [
        da.from_delayed(read(order, name), grid.shape, np.float32, meta=np.empty((0, 0), np.float32)) for name in names
    ]
    coordinates = {"static": list(names), "latitude": grid.latitude, "longitude": grid.longitude}
    return xr.DataArray(da.stack(fields), coordinates, tuple(coordinates), name="static")


def _provenance(order: Order) -> dict[str, Any]:
    """What the manifest tells; the same whether files are here or not, whichever engine brought them."""
    asked = order.requests
    return {
        "title": "ERA5 hourly data from 1940 to present",
        "source": "Copernicus Climate Change Service (C3S) Climate Data Store; contains modified Copernicus Climate "
        "Change Service information, and neither the European Commission nor ECMWF is responsible for any use of it",
        "datasets": sorted({request.dataset for request in asked}),
        "requests": len(asked),
        "first_request": asked[0].name,
        "last_request": asked[-1].name,
        "accumulated": [name for name in order.data.channels if parse_channel(name).variable.accumulated],
        "accumulation": {
            name: {"window_hours": window_hours(name, order.data), "source_hours": 1}
            for name in order.derivation.stored
            if parse_channel(name).variable.accumulated
        }
        | order.derivation.windows(order.times),
        "derived": order.derivation.provenance(),
    }
