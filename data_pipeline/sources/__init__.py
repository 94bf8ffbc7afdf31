"""Where data come from: one module a source, each with `open_source`, found by the `kind` of its settings."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.config import DataConfig

STATE_DIMS = ("time", "channel", "latitude", "longitude")


@dataclass(frozen=True, eq=False)
class SourceData:
    """What every source hands over, whatever its files looked like.

    Raises:
        ValueError: a source broke the contract; a fault of the source, never of the user.
    """

    state: xr.DataArray
    """[time, channel, latitude, longitude] float32, lazy (dask), canonical units; times sorted and unique, the
    grid a valid `weatherfm.grid.Grid`, `channel` the short names of the config in its order."""
    static: xr.DataArray | None
    """[static, latitude, longitude] float32 constant fields on the same grid, canonical units."""
    attributes: dict[str, Any]
    """Provenance for the manifest: JSON-able, the same for the same input."""
    simulated: bool
    """True when no observation stands behind the numbers."""

    def __post_init__(self) -> None:
        if self.state.dims != STATE_DIMS or self.state.dtype != np.float32:
            raise ValueError(f"state must be {STATE_DIMS} float32, got {self.state.dims} {self.state.dtype}")
        if not (np.diff(self.state["time"].values) > np.timedelta64(0)).all():
            raise ValueError("the times of state must ascend strictly")
        if self.static is not None and self.static.dims != ("static", "latitude", "longitude"):
            raise ValueError(f"static must be (static, latitude, longitude), got {self.static.dims}")


def open_source(data: DataConfig) -> SourceData:
    """Open the source the settings name; reads headers, no fields.

    Raises:
        InputError: the source cannot give what the settings ask for.
    """
    module = importlib.import_module(f"weatherfm.data_pipeline.sources.{data.source.kind}")
    source: SourceData = module.open_source(data)
    return source
