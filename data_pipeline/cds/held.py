"""What the files of earlier downloads hold, told by the notes beside them: nothing that is here is asked again."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from weatherfm.data_pipeline.cds.box import NATIVE_STEP, Box
from weatherfm.data_pipeline.cds.requests import PRESSURE_LEVELS, channels_of, store_name
from weatherfm.data_pipeline.cds.wanted import Wanted
from weatherfm.data_pipeline.store.records.manifest import is_sealed
from weatherfm.earth.variables import VARIABLES

FINAL_MONTHS = 2
"""Whole months after which ECMWF has replaced ERA5T by final ERA5, which it does two to three months after its day."""

_log = logging.getLogger(__name__)
_END = b"7777"  # of every GRIB message


@dataclass(frozen=True, eq=False)
class Held:
    """One file that is here whole."""

    path: Path
    place: tuple[float, ...]
    """Grid step and area; comparable to `place_of`."""
    channels: frozenset[str]
    times: np.ndarray
    """[time] datetime64[s], ascending."""
    preliminary: np.ndarray
    """[time] datetime64[s] of those that are ERA5T."""
    downloaded: np.datetime64
    """Day, UTC: what came as ERA5T is not asked again on the same day."""
    arrived: int
    """Nanoseconds since 1970; a later file is newer."""

    def serves(self, channel: str, box: Box) -> bool:
        """True when it holds this channel on this grid."""
        return channel in self.channels and self.place == place_of(box)


def read_notes(folder: Path, until: int | None = None) -> list[Held]:
    """All files in a folder that are whole, the newest first.

    Args:
        folder: of downloads; need not exist.
        until: leave out what arrived later.
    """
    found = [held for note in folder.glob("*.json") if (held := read_note(note.with_suffix(""))) is not None]
    found.sort(key=lambda held: (held.arrived, held.path), reverse=True)
    return [held for held in found if until is None or held.arrived <= until]


def read_note(path: Path) -> Held | None:
    """What a file holds; None where it is not there whole, or has no note."""
    note = Path(f"{path}.json")
    try:
        told = json.loads(note.read_bytes())
        if "checksum" in told and not is_sealed(told):  # those of former versions have none
            _log.warning("%s was changed since it was written; its file is not believed and fetched again", note)
            return None
        if path.stat().st_size != told["bytes"] or not _ends_well(path):
            _log.warning("%s is not as long as its note says, or cut; it is not believed and fetched again", path)
            return None
        body = told["request"]
        days = [f"{year}-{month}-{day}" for year, month, day in product(body["year"], body["month"], body["day"])]
        times = np.array([f"{day}T{hour}" for day, hour in product(days, body["time"])], "datetime64[s]")
        preliminary = np.array([str(one) for one in told["preliminary"]], "datetime64[s]")
        arrived = int(told.get("arrived") or note.stat().st_mtime_ns)
        downloaded = np.datetime64(told["downloaded"], "D")
        channels = _channels(told["dataset"], body)
        return Held(path, _place(body), channels, np.sort(times), preliminary, downloaded, arrived)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        _log.warning("%s is no note of a download (%r); its file is not believed and fetched again", note, error)
        return None


def _ends_well(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-len(_END), os.SEEK_END)
        return file.read() == _END


def _channels(dataset: str, body: dict[str, Any]) -> frozenset[str]:
    on_levels = dataset == PRESSURE_LEVELS
    shorts = {store_name(v.short): v.short for v in VARIABLES.values() if v.on_levels == on_levels}
    known = [shorts[name] for name in body["variable"] if name in shorts]
    return frozenset(channels_of(known, [int(level) for level in body["pressure_level"]] if on_levels else ()))


def _place(body: dict[str, Any]) -> tuple[float, ...]:
    """Of a request; of former times too, when `grid` was a list."""
    grid = body.get("grid", [NATIVE_STEP])
    step = float(grid.split("/")[0] if isinstance(grid, str) else grid[0])
    return _rounded([step, *(body.get("area") or Box.globe(step).area)])


def place_of(box: Box) -> tuple[float, ...]:
    """Grid step and area."""
    return _rounded([box.step, *box.area])


def _rounded(degrees: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(float(one), 6) for one in degrees)


def is_final_by(times: np.ndarray, today: date) -> np.ndarray:
    """[time] bool: final ERA5 of these times should be there, by whole months."""
    due = times.astype("datetime64[M]") + 1 + FINAL_MONTHS
    found: np.ndarray = due <= np.datetime64(today, "M")
    return found


def not_held(wanted: Wanted, box: Box, files: Sequence[Held], today: date) -> Wanted:
    """What is still to be asked: what no file holds, and what is only here as ERA5T although final ERA5 is due."""
    known: dict[tuple[int, ...], np.ndarray] = {}
    lacking = {}
    for channel, hours in wanted.items():
        serving = [held for held in files if held.serves(channel, box)]
        key = (id(hours), *map(id, serving))  # most channels share both
        if key not in known:
            final, preliminary = _versions(serving)
            _, of_today = _versions([held for held in serving if held.downloaded >= np.datetime64(today)])
            waiting = np.isin(hours, preliminary) & (~is_final_by(hours, today) | np.isin(hours, of_today))
            here = np.isin(hours, final) | waiting
            known[key] = hours[~here]
        if len(known[key]):
            lacking[channel] = known[key]
    return lacking


def only_preliminary(channel: str, hours: np.ndarray, box: Box, files: Sequence[Held]) -> np.ndarray:
    """[hour] bool: ERA5T is here, final ERA5 is not."""
    final, preliminary = _versions([held for held in files if held.serves(channel, box)])
    found: np.ndarray = np.isin(hours, preliminary) & ~np.isin(hours, final)
    return found


def shares(channel: str, hours: np.ndarray, box: Box, files: Sequence[Held]) -> list[tuple[Held, np.ndarray]]:
    """(file, hours [n] to take from it): each hour once, final before preliminary, then the newest; lacking ones not.

    Args:
        channel: its name.
        hours: [hour] datetime64[s].
        box: grid and area.
        files: the newest first.
    """
    found, left = [], hours
    serving = [held for held in files if held.serves(channel, box)]
    for final in (True, False):
        for held in serving:
            offered = np.setdiff1d(held.times, held.preliminary) if final else held.preliminary
            if len(taken := np.intersect1d(left, offered)):
                found.append((held, taken))
                left = np.setdiff1d(left, taken)
    return found


def _versions(files: Sequence[Held]) -> tuple[np.ndarray, np.ndarray]:
    """([time] of final fields, [time] of ERA5T) in all of them."""
    empty = np.zeros(0, "datetime64[s]")
    final = [np.setdiff1d(held.times, held.preliminary) for held in files]
    return np.concatenate([empty, *final]), np.concatenate([empty, *(held.preliminary for held in files)])
