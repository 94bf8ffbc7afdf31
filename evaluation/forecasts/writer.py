"""Writes forecasts to Zarr v3 in WeatherBench2's layout, one block of initial times after the other.

    time [init], prediction_timedelta [lead], level, latitude, longitude, and number [member] of an ensemble
    geopotential [time, prediction_timedelta, level, latitude, longitude], 2m_temperature [.. no level ..], ...
    of an ensemble [time, number, prediction_timedelta, ...]

One file holds one variable at one lead time for one block of initial times, so that a block is written as it is
computed and an interrupted forecast goes on with the blocks that are not finished. While it is unfinished the folder
has a `progress.json`, an empty file in `progress/` for each finished block, and no group metadata: it does not open,
and nobody scores half a forecast. Several processes may write blocks of their own. Needs tensorstore and
numpy alone, as clusters have it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from weatherfm.data_pipeline.fields.masks import Masks
from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError
from weatherfm.evaluation.forecasts.metadata_checksums import write_checksums
from weatherfm.evaluation.forecasts.progress import (
    FORMAT,
    GROUP,
    as_written,
    begin_progress,
    clear_leftovers,
    find_progress,
    note_done,
    write_atomically,
)
from weatherfm.evaluation.forecasts.schema import (
    array_metadata,
    coordinates,
    levels_of,
    variable_attributes,
    variables_of,
)

_BLOCK_BYTES = 32 * 2**20
"""Memory of one block of initial times at one lead time, all channels and members; at least one initial time."""


@dataclass(frozen=True, eq=False)
class ForecastContents:
    """What a forecast file is to hold; two with equal `record` are the same forecast."""

    channels: tuple[str, ...]
    grid: Grid
    init_times: np.ndarray
    """[time] datetime64, ascending."""
    lead_times: tuple[int, ...]
    """Hours, ascending."""
    provenance: Mapping[str, Any]
    """JSON-able: how the forecast came about."""
    numbers: tuple[int, ...] | None = None
    """Members of an ensemble."""
    parts: int = 1
    """Processes that make blocks of their own: there should be at least as many blocks."""
    masks: Masks = field(default_factory=dict)
    """Of channels that some points have no value of: there the forecast has none."""

    @property
    def block(self) -> int:
        """Initial times written together."""
        fields = len(self.channels) * len(self.numbers or (0,)) * int(np.prod(self.grid.shape)) * 4
        return max(1, min(-(-len(self.init_times) // self.parts), _BLOCK_BYTES // fields))

    @property
    def record(self) -> dict[str, Any]:
        """Everything by which two forecasts may differ, as plain JSON."""
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
        } | ({"numbers": list(self.numbers)} if self.numbers else {})
        return json.loads(json.dumps(record))  # tuples become lists, as they will when read back


class ForecastWriter:
    """An open forecast on disk, new or half finished.

    Raises:
        InputError: the path holds something else, or another forecast.
    """

    def __init__(self, path: str | Path, contents: ForecastContents) -> None:
        self.path, self.contents = Path(path), contents
        found = find_progress(self.path, contents.record)
        self.finished, self._done = found.finished, found.done
        self.block = found.block or contents.block
        """Initial times in a block: as it was begun, perhaps by another number of processes."""
        self._variables = variables_of(contents.channels)
        self._levels = levels_of(contents.channels)
        if not self.finished:
            self.path.mkdir(parents=True, exist_ok=True)
            if found.block is None:
                begin_progress(self.path, contents.record, self.block)
            self._arrays = {name: self._create(name) for name in self._variables}

    def remaining(self) -> list[slice]:
        """Blocks of initial times still to be written when this was opened or since written here, in order."""
        if self.finished:
            return []
        step, count = self.block, len(self.contents.init_times)
        blocks = [slice(i, min(i + step, count)) for i in range(0, count, step)]
        return [block for number, block in enumerate(blocks) if number not in self._done]

    def write(self, block: slice, lead_index: int, fields: np.ndarray) -> None:
        """Write the fields of one block at one lead time.

        Args:
            block: of initial times.
            lead_index: which lead time.
            fields: [init, channel, lat, lon] in physical units; of an ensemble [init, member, channel, lat, lon].
        """
        position = {channel: i for i, channel in enumerate(self.contents.channels)}
        rows: dict[int | None, int] = {level: i for i, level in enumerate(self._levels)}
        writes = []
        for name, channels in self._variables.items():
            if None in channels:
                values = fields[..., position[channels[None]], :, :]
            else:  # [init, (member,) level, lat, lon]; a level without this variable stays NaN
                shape = (*fields.shape[:-3], len(self._levels), *self.contents.grid.shape)
                values = np.full(shape, np.nan, np.float32)
                for level, channel in channels.items():
                    values[..., rows[level], :, :] = fields[..., position[channel], :, :]
            index = (block, lead_index) if self.contents.numbers is None else (block, slice(None), lead_index)
            writes.append(self._arrays[name][index].write(values))
        for write in writes:
            self._wait(write)

    def block_done(self, block: slice) -> None:
        """Record that every lead time of a block is on disk."""
        number = block.start // self.block
        note_done(self.path, number)
        self._done.add(number)

    def finish(self) -> None:
        """Write coordinates and group metadata; from now on the forecast opens with xarray."""
        if self.finished:
            return
        contents = self.contents
        self._done |= find_progress(self.path, contents.record).done  # by other processes
        if left := self.remaining():
            raise ValueError(f"{len(left)} blocks of {self.path} are not written")
        names = [*self._variables]
        grid, numbers = contents.grid, contents.numbers
        for name, values, attributes in coordinates(
            contents.init_times, contents.lead_times, grid, self._levels, numbers
        ):
            metadata = array_metadata((name,), values.shape, values.shape, None, values.dtype, attributes)
            self._wait(self._open(name, metadata).write(values))
            names.append(name)
        group = _group_metadata(self.path, names, contents)
        write_checksums(self.path, as_written(group), names)
        write_atomically(self.path / GROUP, group)
        clear_leftovers(self.path)
        self.finished = True

    def _create(self, name: str) -> ts.TensorStore:
        channels = self._variables[name]
        flat = None in channels
        contents, numbers = self.contents, self.contents.numbers
        member = () if numbers is None else ("number",)
        members = () if numbers is None else (len(numbers),)
        dims = ("time", *member, "prediction_timedelta", *(() if flat else ("level",)), "latitude", "longitude")
        inner = (*(() if flat else (len(self._levels),)), *contents.grid.shape)
        shape = (len(contents.init_times), *members, len(contents.lead_times), *inner)
        file, chunk = (self.block, *members, 1, *inner), (1, *(1 for _ in members), 1, *inner)
        attributes = variable_attributes(next(iter(channels.values())))
        return self._open(name, array_metadata(dims, shape, file, chunk, np.float32, attributes))

    def _open(self, name: str, metadata: dict[str, Any]) -> ts.TensorStore:
        if (self.path / name / GROUP).is_file():  # begun, perhaps by a version that knew no checksums of chunks
            metadata = {key: value for key, value in metadata.items() if key != "codecs"}
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


def _group_metadata(path: Path, names: Sequence[str], contents: ForecastContents) -> dict[str, Any]:
    members = {name: json.loads((path / name / "zarr.json").read_text()) for name in sorted(names)}
    attributes = {
        "Conventions": "CF-1.11",
        "format": FORMAT,
        "title": "Weather forecasts; a level on which a variable was not forecast is NaN",
        "channels": " ".join(contents.channels),
        "simulated": "true" if contents.provenance.get("simulated") else "false",
        "provenance": json.dumps(contents.record, sort_keys=True),
    }
    consolidated = {"kind": "inline", "must_understand": False, "metadata": members}
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes, "consolidated_metadata": consolidated}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
