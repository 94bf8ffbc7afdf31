"""One time of each channel, read before anything long begins: what is wrong everywhere is wrong there, too."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from weatherfm.data_pipeline.plausible import (
    MAY_BE_UNIFORM,
    bounds_of_sums,
    is_fraction,
    plausible_bounds,
    suspect_units,
)
from weatherfm.errors import InputError
from weatherfm.grid import Grid
from weatherfm.variables import Channel, parse_channel

if TYPE_CHECKING:
    from weatherfm.data_pipeline.plan import StorePlan
    from weatherfm.data_pipeline.sources import SourceData

_log = logging.getLogger(__name__)
_SHOWN = 8
"""Faults that a message names before it only counts."""


def probe(plan: StorePlan, source: SourceData) -> None:
    """Read one time of each channel and refuse what cannot be the field it is called.

    Channels that the source keeps in the same chunks are read at once, so that each chunk is read once: of a store
    across a network it moves one chunk a variable. The time is that in the middle of those wanted.

    Raises:
        InputError: fields without any value, with missing values, the same everywhere though weather never is, relative
            humidity as a fraction, or values beyond all that is possible on Earth (of a simulated planet, which may be
            another world, only a warning): channel, file, time and what to do.
        OutsideError: the network failed.
    """
    position = int(plan.axis.indices[len(plan.axis.indices) // 2])
    time = np.datetime_as_string(plan.axis.times[len(plan.axis.times) // 2], "m")
    grid = Grid(source.state["latitude"].values, source.state["longitude"].values)
    lengths, start = source.state.chunks[1] if source.state.chunks else (len(plan.config.channels),), 0
    faults, doubts = [], []
    with tqdm(total=len(plan.config.channels), desc=f"a look at {time}", unit="channel", disable=None, leave=False) as bar:
        for length in lengths:
            block = source.state[position, start : start + length]
            for channel, field in enumerate(np.asarray(block.data.compute(scheduler="synchronous")), start):
                name = plan.config.channels[channel]
                hours = source.attributes.get("accumulation", {}).get(name, {}).get("window_hours")
                fault, certain = fault_of(parse_channel(name), field, grid, hours)
                if fault:
                    text = f"{name} {fault}, at {time}{_place(source, channel, position)}"
                    (faults if certain and not _may_be(source, fault) else doubts).append(text)
            start += length
            bar.update(length)
    for text in doubts:
        _log.warning("%s; look at the source", text)
    if faults:
        more = f"\n  ... and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise InputError(
            "one time was looked at before all are read, and it cannot be used:\n  "
            + "\n  ".join(faults[:_SHOWN])
            + f"{more}\nleave these channels out, choose other days, or mend the source or what the settings say of it "
            "(source.units, source.rename, source.levels)"
        )


def fault_of(channel: Channel, field: np.ndarray, grid: Grid, hours: float | None = None) -> tuple[str, bool]:
    """(what is wrong with a field in words, empty where nothing is; True where it is certain).

    Args:
        channel: what it is called.
        field: [lat, lon] in canonical units.
        grid: of the field.
        hours: that it is summed over, where it is a sum and that is known.
    """
    finite = np.isfinite(field)
    if not finite.any():
        return "has no value at all (every one is missing)", True
    if not finite.all():
        missing = int(field.size - finite.sum())
        return (
            f"has values that are not finite (NaN or infinite): {missing} of {field.size}; a channel needs a value at "
            "every point and time"
        ), True
    low, high = float(field.min()), float(field.max())
    if is_fraction(channel, field, grid):
        return (
            f"is at most {high:.3g} {channel.units} all over the globe: it is a fraction of one; say so with "
            f"source.units: {{{channel.variable.short}: '1'}}, or have it computed from temperature and humidity"
        ), True
    if (text := _out_of_bounds(channel, low, high, hours)) is not None:
        return text, True
    if low == high and field.size > 1 and channel.variable.short not in MAY_BE_UNIFORM:
        return f"is the same everywhere ({low:.6g} {channel.units})", low == 0
    return "", False


def _out_of_bounds(channel: Channel, low: float, high: float, hours: float | None) -> str | None:
    bounds = plausible_bounds(channel)
    if low < bounds[0] or high > bounds[1]:
        units = suspect_units(channel, low, high)
        guess = f"it looks like {units}" if units else "wrong units, another field, or damaged"
        return (
            f"reaches from {low:.6g} to {high:.6g} {channel.units}, possible on Earth is {bounds[0]:g} to {bounds[1]:g}: "
            f"{guess}"
        )
    most = bounds_of_sums(channel, hours)
    if most is not None and max(abs(low), abs(high)) > most:
        return (
            f"reaches from {low:.6g} to {high:.6g} {channel.units} as a sum over {hours:g}h: more than the sun gives "
            f"({most:.3g}); it is a sum over a longer span"
        )
    return None


def _may_be(source: SourceData, fault: str) -> bool:
    """True of a planet that is not the Earth, whose values may be others; they must be there all the same."""
    return source.simulated and "finite" not in fault and "missing" not in fault


def _place(source: SourceData, channel: int, position: int) -> str:
    where: Any = source.place
    return "" if where is None else f" ({where(channel, position)})"
