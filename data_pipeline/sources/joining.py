"""What sources that are made of others have in common: one face for several, and grids brought together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.fields.joined import JoinedFields, Place
from weatherfm.data_pipeline.fields.positions import BlockEnds, view
from weatherfm.data_pipeline.fields.regrid import bring_to
from weatherfm.data_pipeline.fields.source_data import ReadCost, SourceData
from weatherfm.data_pipeline.source_config import CdsSource
from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.store_config import Area, DataConfig
from weatherfm.earth.grid import Grid
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError

_MARGIN = 2
"""Cells around a box that a download needs so that all of the box can be regridded from it."""


@dataclass(frozen=True, eq=False)
class Member:
    """A source among several."""

    source: SourceData
    times: np.ndarray
    """[time] positions on its axis, one a time of the whole; -1 where another source has it."""
    channels: np.ndarray
    """[channel] the same for channels."""
    label: str
    """As `parts.1`, for what must not be mixed up with the other sources'."""

    def own_times(self, positions: np.ndarray) -> np.ndarray:
        """Its own positions of those of the whole that it has."""
        found = self.times[positions]
        return found[found >= 0]


@contextmanager
def named(number: int) -> Iterator[None]:
    """Inside the block, errors say which part of a source they are about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"source.parts.{number}: {error}") from error


def open_on(data: DataConfig, target: Grid, method: str) -> SourceData:
    """A source on the grid of another.

    Args:
        data: its settings; their area and regridding led to `target`.
        target: the grid of the other.
        method: of regridding, where its own grid is not that one.

    Raises:
        InputError: it cannot be opened, or does not reach over all of the target.
    """
    area = _with_margin(data.area, data.source.grid) if data.area and isinstance(data.source, CdsSource) else None
    source = open_source(data.model_copy(update={"area": area, "regrid": None}))
    try:
        return bring_to(source, target, method)
    except InputError as error:
        raise InputError(
            f"its fields ({data.source.kind}) are on the grid {source.grid}, which cannot be brought to "
            f"{target}: {error}; set data.area to what all parts cover"
        ) from None


def face(
    members: Sequence[Member],
    static: xr.DataArray | None,
    times: np.ndarray,
    channels: Sequence[str],
    attributes: dict[str, Any],
) -> SourceData:
    """Several sources on one grid as one.

    Args:
        members: each time of each channel is exactly one's.
        static: of the whole.
        times: [time] datetime64 of the whole.
        channels: of the whole.
        attributes: the provenance of the whole.
    """
    fields = JoinedFields([Place.of(one.source, one.times, one.channels) for one in members])
    state = view(fields, times, channels, members[0].source.grid, (_times_of(members), _channels_of(members)))
    if summed := [name for name in channels if parse_channel(name).variable.accumulated]:
        state.attrs["accumulated"] = summed
        attributes = {**attributes, "accumulated": summed}
    sources = [one.source for one in members]
    fetching = [source.fetch for source in sources if source.fetch is not None]
    return SourceData(
        state,
        static,
        attributes,
        simulated=any(source.simulated for source in sources),
        preliminary=_preliminary(members, len(times)),
        cost=_cost(members) if all(source.cost for source in sources) else None,
        block_bytes=max(_held(source) for source in sources),
        together=tuple(group for one in members for group in _together(one)),
        fetch=_all(fetching) if fetching else None,
        place=lambda channel, time: _place(members, channel, time),
        identity={f"{one.label}/{name}": said for one in members for name, said in one.source.identity.items()},
        download_bytes=sum(source.download_bytes for source in sources),
        download_folder=next((source.download_folder for source in sources if source.download_folder), None),
        read_from=fields,
    )


def windows_of(sources: Sequence[SourceData]) -> dict[str, Any]:
    """Provenance of sums: channel -> what it is summed over."""
    return {name: told for one in sources for name, told in one.attributes.get("accumulation", {}).items()}


def _with_margin(area: Area, step: float) -> Area:
    north, south = min(90.0, area.north + _MARGIN * step), max(-90.0, area.south - _MARGIN * step)
    west, east = area.west - _MARGIN * step, area.east + _MARGIN * step
    if west < -180:
        west, east = west + 360, east + 360
    if east > 360 or east - west > 360 or area.west + 360 == area.east:
        west, east = 0.0, 360.0
    return Area(north=north, west=west, south=south, east=east)


def _times_of(members: Sequence[Member]) -> tuple[int, ...]:
    """Lengths of blocks along time: of each time those of the source with the most channels there."""
    ordered = sorted(members, key=lambda one: -int((one.channels >= 0).sum()))
    return _lengths([(one.times, BlockEnds.of(one.source.state).times) for one in ordered])


def _channels_of(members: Sequence[Member]) -> tuple[int, ...]:
    """Lengths of blocks along channel: neighbours that lie in one block of one source."""
    return _lengths([(one.channels, BlockEnds.of(one.source.state).channels) for one in members])


def _lengths(places: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[int, ...]:
    """Of stretches that lie in one block of one source, the first that has a place.

    Args:
        places: of each source ([place] positions on its axis or -1, [block] where its blocks end).
    """
    owner = np.argmax([own >= 0 for own, _ in places], axis=0)
    block = np.zeros(len(owner), int)
    for number, (own, ends) in enumerate(places):
        mine = owner == number
        block[mine] = np.searchsorted(ends, own[mine], side="right")
    changes = np.flatnonzero((np.diff(block) != 0) | (np.diff(owner) != 0)) + 1
    return tuple(np.diff([0, *changes.tolist(), len(owner)]).tolist())


def _held(source: SourceData) -> int:
    """Bytes that reading one block of a source holds, its fields included: they are copied into those of the whole."""
    times, channels = BlockEnds.of(source.state).largest()
    return source.block_bytes + 4 * times * channels * int(np.prod(source.state.shape[2:]))


def _preliminary(members: Sequence[Member], n_times: int) -> np.ndarray | None:
    found = np.zeros(n_times, bool)
    for one in members:
        if one.source.preliminary is not None:
            has = one.times >= 0
            found[has] |= one.source.preliminary[one.times[has]]
    return found if found.any() else None


def _cost(members: Sequence[Member]) -> Callable[[np.ndarray], ReadCost]:
    def cost(positions: np.ndarray) -> ReadCost:
        own = [(one.source.cost, one.own_times(positions)) for one in members]
        return ReadCost.total(of(times) for of, times in own if of is not None and len(times))

    return cost


def _together(member: Member) -> list[tuple[int, ...]]:
    """Sets of positions in the whole that the source keeps together."""
    where = {int(own): position for position, own in enumerate(member.channels) if own >= 0}
    return [tuple(where[channel] for channel in group) for group in member.source.together]


def _all(fetching: Sequence[Callable[[], None]]) -> Callable[[], None]:
    def fetch() -> None:
        for one in fetching:
            one()

    return fetch


def _place(members: Sequence[Member], channel: int, time: int) -> str:
    for one in members:
        if one.channels[channel] >= 0 and one.times[time] >= 0:
            inside = one.source.place and one.source.place(int(one.channels[channel]), int(one.times[time]))
            return inside or one.label
    raise IndexError(f"no source has channel {channel} at time {time}")


def provenance(members: Sequence[Member], told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For the manifest: what each source says of itself, and the sums of all.

    Args:
        members: the sources.
        told: of each, what it gives and how it got to the grid.
    """
    sources = [one.source for one in members]
    parts = [{**dict(own), "attributes": source.attributes} for own, source in zip(told, sources, strict=True)]
    return {"parts": parts, "accumulation": windows_of(sources)}
