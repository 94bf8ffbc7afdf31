"""Source `join`: some variables from one source, others from another, each regridded before they meet."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.fields.time_axis import name_times, spacing
from weatherfm.data_pipeline.joined_config import JoinSource
from weatherfm.data_pipeline.sources import open_source as open_any
from weatherfm.data_pipeline.sources.joining import Member, face, named, open_on, provenance, windows_of
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError

_log = logging.getLogger(__name__)


def open_source(data: DataConfig) -> SourceData:
    """All parts on the grid of the main one, at the times that all have; reads what the parts read on opening.

    Raises:
        InputError: a channel that no part or several give, a part that cannot give its own, grids or times without
            anything in common, or sums over another span than the step.
        OutsideError: the network failed.
    """
    source = data.source
    assert isinstance(source, JoinSource)
    shares = _shares(data, source)
    with named(source.main):
        main = open_any(shares[source.main])
    parts = []
    for i, own in enumerate(shares):
        with named(i):
            parts.append(main if i == source.main else open_on(own, main.grid, _method(data, source, i)))
    gives = [bool(own.channels) for own in shares]
    times = _common_times(parts, gives, data)
    members = [_member(i, part, own, times, data) for i, (part, own) in enumerate(zip(parts, shares, strict=True))]
    told = [{"kind": own.source.kind, "channels": list(own.channels), "static": list(own.static)} for own in shares]
    static = _static(data, shares, parts)
    return face(members, static, times, data.channels, provenance(members, told))


def _member(number: int, part: SourceData, own: DataConfig, times: np.ndarray, data: DataConfig) -> Member:
    has = np.full(len(times), -1)
    if own.channels:
        has = np.searchsorted(part.state["time"].values.astype("datetime64[ns]"), times)
    channels = [own.channels.index(name) if name in own.channels else -1 for name in data.channels]
    return Member(part, has, np.array(channels), f"parts.{number}")


def _shares(data: DataConfig, source: JoinSource) -> list[DataConfig]:
    """The settings of each part, as if it were alone.

    Raises:
        InputError: names that the store does not want, names that no part gives, or a part with nothing to give.
    """
    given = [name for part in source.parts for name in (*part.channels, *part.static)]
    wanted = [*data.channels, *data.static]
    if unknown := [name for name in given if name not in wanted]:
        raise InputError(
            f"a part of the source gives {', '.join(unknown)}, which neither data.channels nor data.static asks for; "
            "ask for it there, or leave it out"
        )
    rest = [not part.channels and not part.static for part in source.parts]
    left = [name for name in wanted if name not in given]
    if left and not any(rest):
        raise InputError(
            f"no part of the source gives {', '.join(left)}; name it in one, or let one part name nothing: it gives "
            "all that the others do not"
        )
    if any(rest) and not left:
        raise InputError("a part of the source names nothing, and the others give everything; leave it out")
    shares = []
    for part, gives_rest in zip(source.parts, rest, strict=True):
        own = left if gives_rest else [*part.channels, *part.static]
        update = {
            "source": part.source,
            "channels": [name for name in data.channels if name in own],
            "static": [name for name in data.static if name in own],
        }
        shares.append(data.model_copy(update=update))
    return shares


def _method(data: DataConfig, source: JoinSource, part: int) -> str:
    return source.parts[part].method or (data.regrid.method if data.regrid else "conservative")


def _common_times(parts: Sequence[SourceData], gives: Sequence[bool], data: DataConfig) -> np.ndarray:
    """[time] datetime64[ns] that all parts with channels have.

    Raises:
        InputError: there are none, or a part's sums are not over the time from one to the next.
    """
    axes = {
        f"parts.{i}": part.state["time"].values.astype("datetime64[ns]") for i, part in enumerate(parts) if gives[i]
    }
    times = reduce(np.intersect1d, axes.values())
    if not len(times):
        spans = "; ".join(f"{label} has {name_times(axis[[0, -1]])}" for label, axis in axes.items())
        raise InputError(f"the parts of the source have no time in common ({spans}); mend their paths, or data.period")
    for label, axis in axes.items():
        inside = axis[(axis >= times[0]) & (axis <= times[-1])]
        if len(inside) > len(times):
            lost = np.setdiff1d(inside, times)
            _log.info("%d times of %s are not in all parts: %s", len(lost), label, name_times(lost, 3))
    _refuse_other_sums(windows_of(parts), spacing(times) or 0.0, data)
    return times


def _refuse_other_sums(spans: dict[str, Any], apart: float, data: DataConfig) -> None:
    other = {name: told["window_hours"] for name, told in spans.items() if told["window_hours"] != apart}
    if other and data.step is None and data.accumulation is None:
        name, hours = next(iter(other.items()))
        raise InputError(
            f"{name} is a sum over {hours:g}h, and the times that all parts have are {apart:g}h apart; say which sums "
            f"are wanted: data.accumulation={apart:g}h or {hours:g}h"
        )


def _static(data: DataConfig, shares: Sequence[DataConfig], parts: Sequence[SourceData]) -> xr.DataArray | None:
    """[static, lat, lon] in the order of the settings."""
    if not data.static:
        return None
    found = [
        part.static.sel(static=list(own.static))
        for own, part in zip(shares, parts, strict=True)
        if part.static is not None and own.static
    ]
    return xr.concat(found, "static").sel(static=list(data.static))
