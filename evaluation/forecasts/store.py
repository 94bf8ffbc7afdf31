"""Writes forecasts to Zarr v3 in WeatherBench2's layout, one block of initial times after the other.

    time [init], prediction_timedelta [lead], level, latitude, longitude
    geopotential [time, prediction_timedelta, level, latitude, longitude], 2m_temperature [.. no level ..], ...

One file holds one variable at one lead time for one block of initial times, so that a block is written as it is
computed and an interrupted forecast goes on with the first block that is not finished. While it is unfinished the
folder has a `progress.json` and no group metadata: it does not open, and nobody scores half a forecast.
Needs tensorstore and numpy alone, as clusters have it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from weatherfm.errors import InputError
from weatherfm.evaluation.forecasts.layout import (
    array_metadata,
    coordinates,
    levels_of,
    variable_attributes,
    variables_of,
)
from weatherfm.grid import Grid

FORMAT = "weatherfm forecast 1"
_GROUP = "zarr.json"
_PROGRESS = "progress.json"
_BLOCK_BYTES = 32 * 2**20
"""Memory of one block of initial times at one lead time, all channels; at least one initial time."""


@dataclass(frozen=True, eq=False)
class ForecastRequest:
    """What a forecast file is to hold; two requests with equal `record` are the same forecast."""

    channels: tuple[str, ...]
    grid: Grid
    init_times: np.ndarray
    """[time] datetime64, ascending."""
    lead_times: tuple[int, ...]
    """Hours, ascending."""
    provenance: Mapping[str, Any]
    """JSON-able: how the forecast came about."""

    @property
    def block(self) -> int:
        """Initial times written together."""
        fields = len(self.channels) * int(np.prod(self.grid.shape)) * 4
        return min(len(self.init_times), max(1, _BLOCK_BYTES // fields))

    @property
    def record(self) -> dict[str, Any]:
        """Everything by which two requests may differ, as plain JSON."""
        times = self.init_times.astype("datetime64[s]")
        record = {
            **self.provenance,
            "format": FORMAT,
            "channels": list(self.channels),
            "grid": str(self.grid),
            "grid_sha256": _digest(self.grid.to_dict()),
            "lead_times_hours": list(self.lead_times),
            "init_times": {
                "first": str(times[0]),
                "last": str(times[-1]),
                "count": len(times),
                "sha256": _digest(times.astype(str).tolist()),
            },
            "init_times_a_block": self.block,
        }
        return json.loads(json.dumps(record))  # tuples become lists, as they will when read back


class ForecastWriter:
    """An open forecast on disk, new or half finished.

    Raises:
        InputError: the path holds something else, or the forecast of another request.
    """

    def __init__(self, path: str | Path, request: ForecastRequest) -> None:
        self.path, self.request = Path(path), request
        self.finished, self._blocks_done = _find(self.path, request.record)
        self._variables = variables_of(request.channels)
        self._levels = levels_of(request.channels)
        if not self.finished:
            self.path.mkdir(parents=True, exist_ok=True)
            self._note_progress(self._blocks_done)
            self._arrays = {name: self._create(name) for name in self._variables}

    def remaining(self) -> list[slice]:
        """Blocks of initial times still to be written, in order."""
        if self.finished:
            return []
        step, count = self.request.block, len(self.request.init_times)
        return [slice(i, min(i + step, count)) for i in range(0, count, step)][self._blocks_done :]

    def write(self, block: slice, lead_index: int, fields: np.ndarray) -> None:
        """Write the fields [init, channel, lat, lon], physical units, of one block at one lead time."""
        position = {channel: i for i, channel in enumerate(self.request.channels)}
        rows: dict[int | None, int] = {level: i for i, level in enumerate(self._levels)}
        writes = []
        for name, channels in self._variables.items():
            if None in channels:
                values = fields[:, position[channels[None]]]
            else:  # [init, level, lat, lon]; a level without this variable stays NaN
                values = np.full((len(fields), len(self._levels), *self.request.grid.shape), np.nan, np.float32)
                for level, channel in channels.items():
                    values[:, rows[level]] = fields[:, position[channel]]
            writes.append(self._arrays[name][block, lead_index].write(values))
        for write in writes:
            self._wait(write)

    def block_done(self) -> None:
        """Record that every lead time of the first remaining block is on disk."""
        self._blocks_done += 1
        self._note_progress(self._blocks_done)

    def finish(self) -> None:
        """Write coordinates and group metadata; from now on the forecast opens with xarray."""
        if self.finished:
            return
        if left := self.remaining():
            raise ValueError(f"{len(left)} blocks of {self.path} are not written")
        request = self.request
        names = [*self._variables]
        for name, values, attributes in coordinates(request.init_times, request.lead_times, request.grid, self._levels):
            metadata = array_metadata((name,), values.shape, values.shape, None, values.dtype, attributes)
            self._wait(self._open(name, metadata).write(values))
            names.append(name)
        _write_atomically(self.path / _GROUP, _group_metadata(self.path, names, request))
        _clear_leftovers(self.path)
        self.finished = True

    def _note_progress(self, blocks_done: int) -> None:
        progress = {"format": FORMAT, "record": self.request.record, "blocks_done": blocks_done}
        _write_atomically(self.path / _PROGRESS, progress)

    def _create(self, name: str) -> ts.TensorStore:
        channels = self._variables[name]
        flat = None in channels
        request, block = self.request, self.request.block
        dims = ("time", "prediction_timedelta", *(() if flat else ("level",)), "latitude", "longitude")
        inner = (*(() if flat else (len(self._levels),)), *request.grid.shape)
        shape = (len(request.init_times), len(request.lead_times), *inner)
        attributes = variable_attributes(next(iter(channels.values())))
        return self._open(name, array_metadata(dims, shape, (block, 1, *inner), (1, 1, *inner), np.float32, attributes))

    def _open(self, name: str, metadata: dict[str, Any]) -> ts.TensorStore:
        where = {"driver": "file", "path": str(self.path / name)}
        spec = {"driver": "zarr3", "kvstore": where, "metadata": metadata}
        return self._wait(ts.open(spec, create=True, open=True))

    def _wait(self, task: Any) -> Any:
        try:
            return task.result()
        except ValueError as error:  # tensorstore's for a full disk, a missing right or a damaged file
            raise InputError(
                f"cannot write {self.path}: {str(error).splitlines()[0]}; mend that and forecast again, it goes on"
            ) from error


def _find(path: Path, record: dict[str, Any]) -> tuple[bool, int]:
    """(finished, blocks done) of what is on disk, refused unless it is this forecast or nothing."""
    group, progress = path / _GROUP, path / _PROGRESS
    if group.is_file():
        attributes = json.loads(group.read_text()).get("attributes", {})
        if attributes.get("format") != FORMAT:
            raise InputError(f"{path} exists and is no forecast of weatherfm; choose another path")
        _refuse_difference(path, json.loads(attributes["provenance"]), record)
        _clear_leftovers(path)
        return True, 0
    if progress.is_file():
        state = json.loads(progress.read_text())
        if state.get("format") != FORMAT:
            raise InputError(f"{path} was begun by another version of weatherfm; remove it or choose another path")
        _refuse_difference(path, state["record"], record)
        return False, int(state["blocks_done"])
    if path.exists() and (not path.is_dir() or {p.name for p in path.iterdir()} - {f".{_PROGRESS}"}):
        raise InputError(f"{path} exists and is no forecast of weatherfm; choose another path")
    return False, 0


def _refuse_difference(path: Path, held: dict[str, Any], asked: dict[str, Any]) -> None:
    keys = sorted(key for key in held.keys() | asked.keys() if held.get(key) != asked.get(key))
    if keys:
        key = keys[0]
        raise InputError(
            f"{path} holds another forecast: {', '.join(keys)} differ ({key}: there {held.get(key)!r}, now "
            f"{asked.get(key)!r}); remove it or choose another path"
        )


def _group_metadata(path: Path, names: Sequence[str], request: ForecastRequest) -> dict[str, Any]:
    members = {name: json.loads((path / name / "zarr.json").read_text()) for name in sorted(names)}
    attributes = {
        "Conventions": "CF-1.11",
        "format": FORMAT,
        "title": "Weather forecasts; a level on which a variable was not forecast is NaN",
        "channels": " ".join(request.channels),
        "simulated": "true" if request.provenance.get("simulated") else "false",
        "provenance": json.dumps(request.record, sort_keys=True),
    }
    consolidated = {"kind": "inline", "must_understand": False, "metadata": members}
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes, "consolidated_metadata": consolidated}


def _write_atomically(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}")
    with open(temporary, "w") as file:
        json.dump(content, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _clear_leftovers(path: Path) -> None:
    """Remove the progress note and what a killed writer left half written."""
    for leftover in (path / _PROGRESS, path / f".{_PROGRESS}", path / f".{_GROUP}", *path.rglob("*.__lock")):
        leftover.unlink(missing_ok=True)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
