"""One time of each channel, read before anything long begins: what is wrong everywhere is wrong there, too."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from weatherfm.data_pipeline.fields.missing_values import of_pictures
from weatherfm.data_pipeline.fields.plausible import (
    HUMIDITY,
    MAY_BE_UNIFORM,
    bounds_of_sums,
    is_fraction,
    plausible_bounds,
    suspect_units,
    with_units,
)
from weatherfm.data_pipeline.store.records.manifest import PROGRESS
from weatherfm.earth.grid import Grid
from weatherfm.earth.variables import Channel, parse_channel
from weatherfm.errors import InputError

if TYPE_CHECKING:
    from weatherfm.data_pipeline.design.store_design import StoreDesign
    from weatherfm.data_pipeline.fields.source_data import SourceData

_log = logging.getLogger(__name__)
_SHOWN = 8
_OF_WEATHER = (
    "leave these channels out, choose other days, or mend the source or what the settings say of it (source.units, "
    "source.rename, source.levels)"
)
_OF_PICTURES = (
    "say which value marks missing pixels (the headers' `data ignore value`), make reflectances of what the sensor "
    "counted (source.white and source.dark, or the headers' `reflectance scale factor`), clip them (source.clip), "
    "leave these wavelengths out, or mend the files"
)
"""Faults that a message names before it only counts."""


def probe(design: StoreDesign, source: SourceData, root: Path, new: np.ndarray | None = None) -> None:
    """Read one time of each channel and refuse what cannot be the field it is called.

    Channels that the source keeps in the same chunks are read at once, so that each chunk is read once: of a store
    across a network it moves one chunk a variable. It is the first time that is wanted and new; where one source
    follows another, the first of each.

    Args:
        design: of the store.
        source: of its fields.
        root: folder to be written; where an interrupted run has begun there, it had this look already.
        new: [time] bool: of the design's times, which are not in the store yet; without it, all.

    Raises:
        InputError: fields without any value, with missing values, the same everywhere though weather never is, relative
            humidity as a fraction, or values beyond all that is possible on Earth (of a simulated planet, which may be
            another world, only a warning): channel, file, time and what to do.
        OutsideError: the network failed.
    """
    if (root / PROGRESS).exists():
        return
    faults: list[str] = []
    doubts: list[str] = []
    for first in _firsts(design, source, new):
        position, time = int(design.axis.indices[first]), np.datetime_as_string(design.axis.times[first], "m")
        found = _look(design, source, position, time)
        faults += found[0]
        doubts += found[1]
    for text in doubts:
        _log.warning("%s; look at the source", text)
    if faults:
        more = f"\n  ... and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise InputError(
            "one time was looked at before all are read, and it cannot be used:\n  "
            + "\n  ".join(faults[:_SHOWN])
            + f"{more}\n{_OF_PICTURES if of_pictures(design.config.channels) else _OF_WEATHER}"
        )


def _firsts(design: StoreDesign, source: SourceData, new: np.ndarray | None) -> list[int]:
    """Positions on the store's time axis: the first that is new, of each source that follows another."""
    wanted = np.arange(len(design.axis.times)) if new is None else np.flatnonzero(new)
    behind = np.searchsorted(design.axis.indices[wanted], [0, *source.begins])
    return sorted({int(wanted[i]) for i in behind if i < len(wanted)})


def _look(design: StoreDesign, source: SourceData, position: int, time: str) -> tuple[list[str], list[str]]:
    """(faults, doubts) of all channels at one time."""
    grid = source.grid
    names = design.config.channels
    lengths, start = source.state.chunks[1] if source.state.chunks else (len(names),), 0
    faults: list[str] = []
    doubts: list[str] = []
    with tqdm(total=len(names), desc=f"a look at {time}", unit="channel", disable=None, leave=False) as bar:
        for length in lengths:
            block = source.fields.read(np.array([position]), np.arange(start, start + length))[0]
            for channel, field in enumerate(block, start):
                hours = source.attributes.get("accumulation", {}).get(names[channel], {}).get("window_hours")
                fault = fault_of(parse_channel(names[channel]), field, grid, hours)
                if fault is None:
                    continue
                file = "" if source.place is None else f" ({source.place(channel, position)})"
                elsewhere = source.simulated and not fault.missing
                told = doubts if elsewhere or not fault.certain else faults
                told.append(f"{names[channel]} {fault.text}, at {time}{file}")
            start += length
            bar.update(length)
    return faults, doubts


@dataclass(frozen=True)
class Fault:
    """What is wrong with a field."""

    text: str
    """In words, after the channel's name."""
    certain: bool = True
    """False where a field can be so, if seldom."""
    missing: bool = False
    """True where values are missing: of another planet, all others may be as they are."""


def fault_of(channel: Channel, field: np.ndarray, grid: Grid, hours: float | None = None) -> Fault | None:
    """What is wrong with a field; None where nothing is.

    Args:
        channel: what it is called.
        field: [lat, lon] in canonical units.
        grid: of the field.
        hours: that it is summed over, where it is a sum and that is known.
    """
    finite = np.isfinite(field)
    masked = channel.variable.masked and finite.any() and not np.isinf(field).any()
    if not finite.all() and not masked:
        return Fault(_missing(field.size, int(finite.sum())), missing=True)
    field = field[finite] if masked else field
    low, high = float(field.min()), float(field.max())
    if is_fraction(channel, high, grid):
        computed = ", or have it computed from temperature and humidity" * (channel.variable.short in HUMIDITY)
        return Fault(
            f"is at most {with_units(high, channel)} all over the globe: it is a fraction of one that is called %; "
            f"say so with source.units: {{{channel.variable.short}: '1'}}{computed}"
        )
    if (text := _out_of_bounds(channel, low, high, hours)) is not None:
        return Fault(text)
    empty = grid.plane and low == 0  # background alone
    if low == high and field.size > 1 and not empty and channel.variable.short not in MAY_BE_UNIFORM:
        return Fault(f"is the same everywhere ({low:.6g} {channel.units})", certain=low == 0)
    return None


def _missing(size: int, there: int) -> str:
    if not there:
        return "has no value at all: every one is missing (NaN)"
    return (
        f"has values that are not finite (NaN or infinite): {size - there} of {size}; a channel needs a value at every "
        "point and time"
    )


def _out_of_bounds(channel: Channel, low: float, high: float, hours: float | None) -> str | None:
    bounds, reaches = plausible_bounds(channel), f"reaches from {low:.6g} to {high:.6g} {channel.units}"
    if low < bounds[0] or high > bounds[1]:
        units = suspect_units(channel, low, high)
        guess = f"it looks like {units}" if units else "wrong units, another field, or damaged"
        return f"{reaches}, possible on Earth is {bounds[0]:g} to {bounds[1]:g}: {guess}"
    most = bounds_of_sums(channel, hours)
    if most is not None and max(abs(low), abs(high)) > most:
        return f"{reaches} as a sum over {hours:g}h, more than the sun gives ({most:.3g}): it is one over a longer span"
    return None
