"""What every source hands over: fields by position, their axes, where they come from, and what reading them costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.fields.positions import STATE_DIMS, ArrayFields, Readable
from weatherfm.data_pipeline.period_config import Days
from weatherfm.earth.grid import Grid, grid_of


@dataclass(frozen=True)
class ReadCost:
    """Bytes and requests that some fields take, given how their source stores them; costs are added with `+`."""

    wanted: int = 0
    """Bytes of the fields themselves, as float32 on the source's grid."""
    moved: int = 0
    """Bytes of all chunks that hold them, decoded: 3 of 37 levels in one chunk move all 37."""
    compressed: int = 0
    """Bytes that cross the network or leave the disk for them; an estimate where only some chunks were looked at."""
    requests: int = 0
    """Chunks, messages or downloads."""
    advice: tuple[str, ...] = ()
    """Where the request is wasteful: why, and what would be cheaper. One sentence each."""

    def __add__(self, other: ReadCost) -> ReadCost:
        return ReadCost(
            self.wanted + other.wanted,
            self.moved + other.moved,
            self.compressed + other.compressed,
            self.requests + other.requests,
            tuple(dict.fromkeys((*self.advice, *other.advice))),
        )

    @classmethod
    def total(cls, costs: Iterable[ReadCost]) -> ReadCost:
        """The sum of all."""
        return sum(costs, cls())


@dataclass(frozen=True, eq=False)
class SourceData:
    """What every source hands over, whatever its files looked like.

    Raises:
        ValueError: a source broke the contract; a fault of the source, never of the user.
    """

    state: xr.DataArray
    """[time, channel, latitude, longitude] float32, lazy (dask), canonical units; times sorted and unique, the
    grid a valid `weatherfm.earth.grid.Grid`, `channel` the short names of the config in its order. Its chunks are what
    is best read at once. Writing takes its axes from here and its fields from `fields`."""
    static: xr.DataArray | None
    """[static, latitude, longitude] float32 constant fields on the same grid, canonical units."""
    attributes: dict[str, Any]
    """Provenance for the manifest: JSON-able, the same for the same input."""
    simulated: bool
    """True when no observation stands behind the numbers."""
    preliminary: np.ndarray | None = None
    """[time] bool: fields that their centre will replace (ERA5T); None where there are none."""
    cost: Callable[[np.ndarray], ReadCost] | None = None
    """Positions on the time axis [n] -> what reading all channels there takes; None where it cannot be told."""
    block_bytes: int = 0
    """Bytes that reading one block of `state` holds for a moment beside the block itself, such as decoded chunks."""
    together: tuple[tuple[int, ...], ...] = ()
    """Sets of channel positions that the source keeps in the same chunks: reading one of a set costs as much as all,
    so `prepare` writes them from one read."""
    fetch: Callable[[], None] | None = None
    """Brings what reading needs to this machine (downloads), going on where it was interrupted; after it the source is
    opened anew. None where nothing needs to be brought."""
    place: Callable[[int, int], str] | None = None
    """(channel position, position on the time axis) -> file and name of the field there, for messages; None where a
    source has no files."""
    identity: dict[str, str] = field(default_factory=dict)
    """Name of each file or store that is read -> what tells it from another of that name; the same in any folder."""
    download_bytes: int = 0
    """About what `fetch` will keep on this machine's disk; 0 where nothing is missing."""
    download_folder: str | None = None
    """Where that goes."""
    begins: tuple[int, ...] = ()
    """Positions on the time axis from which on another source gives the fields: each is looked at before all are
    read."""
    read_from: Readable | None = None
    """The fields of `state` by position; without it, `state` itself is read, at the cost of its graph."""
    plane: bool = False
    """True where the fields are pictures: the grid is a plane of pixels, and times only number them."""
    periods: Mapping[str, Days | None] | None = None
    """`train`, `validation` and `test`, where the source itself keeps them apart; None where the settings do."""

    def __post_init__(self) -> None:
        if self.state.dims != STATE_DIMS or self.state.dtype != np.float32:
            raise ValueError(f"state must be {STATE_DIMS} float32, got {self.state.dims} {self.state.dtype}")
        if self.read_from is not None and self.read_from.shape != self.state.shape:
            raise ValueError(f"read_from has shape {self.read_from.shape}, state {self.state.shape}")
        if not (np.diff(self.state["time"].values) > np.timedelta64(0)).all():
            raise ValueError("the times of state must ascend strictly")
        if self.static is not None and self.static.dims != ("static", "latitude", "longitude"):
            raise ValueError(f"static must be (static, latitude, longitude), got {self.static.dims}")
        if self.preliminary is not None and self.preliminary.shape != self.state["time"].shape:
            raise ValueError(f"preliminary must be one bool a time, got shape {self.preliminary.shape}")

    @property
    def grid(self) -> Grid:
        """Of every field."""
        return grid_of(self.state["latitude"].values, self.state["longitude"].values, self.plane)

    @property
    def fields(self) -> Readable:
        """The fields by position; small, and it pickles."""
        return self.read_from or ArrayFields(self.state)
