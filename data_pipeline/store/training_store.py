"""Read a finished store (numpy, tensorstore and json only: what training needs where the data stack is absent)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from weatherfm.data_pipeline.fields.time_axis import day_of_year, hour_of_day, name_times
from weatherfm.data_pipeline.store.kept_fields import KeptFields
from weatherfm.data_pipeline.store.read_faults import fault_of_read, shortened
from weatherfm.data_pipeline.store.records.manifest import NAME, TIME_UNITS, canonical_json, checksum
from weatherfm.data_pipeline.store.records.manifest_reading import read_sealed_manifest
from weatherfm.data_pipeline.store.records.record_checks import Damaged, parse_json
from weatherfm.data_pipeline.store.records.store_files import fault_of, read_files, refuse_mixture
from weatherfm.data_pipeline.store.small_arrays import SmallArrays
from weatherfm.data_pipeline.store_config import Days
from weatherfm.earth.domain import Domain, mask_fields
from weatherfm.earth.grid import Grid
from weatherfm.earth.variables import add_variables
from weatherfm.errors import InputError
from weatherfm.home import expanded

_PIECE = 2**28
"""Bytes that `Store.keep` reads at a time."""
EARTH = "Earth"
"""The world of what was observed (`Store.world`)."""
_MOST_SMALL = 2**38
"""Bytes of what is read as a whole: a coordinate, static fields, the climatology of some times."""


def open_store(path: str | Path) -> Store:
    """Open what `weatherfm prepare` finished.

        store = weatherfm.open_store("runs/demo/store.zarr")
        store.read([0, 1], ["z500"])  # [time, channel, latitude, longitude] float32, m2 s-2

    Args:
        path: folder of the store.

    Returns:
        What it holds: `channels`, `grid`, `times`, `periods`, statistics; fields are read when asked for.

    Raises:
        InputError: no store there, an unfinished one, something else, or a manifest that was changed.
    """
    path = expanded(path)
    return Store(path, read_sealed_manifest(path))


def open_array(path: Path, name: str) -> ts.TensorStore:
    """One array of a store for reading, finished or not; a missing shard is an error, never filled in.

    Raises:
        InputError: the array is absent or its metadata damaged.
    """
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(path / name)},
        "fill_missing_data_reads": False,
        "recheck_cached_data": "open",
    }
    try:
        return ts.open(spec, open=True, read=True).result()
    except ValueError as error:
        raise InputError(
            f"cannot open {name} of the store {path} ({shortened(str(error))}); `weatherfm verify` tells what is wrong"
        ) from error


class Store(SmallArrays):
    """A finished store; arrays are opened when first needed and read concurrently.

    Attributes:
        path: its folder.
        manifest: what prepare wrote about it.
        channels: short names, in the order of every [channel] dim.
        grid: of every field.
        step_hours: between neighbouring times.
        static_names: of the constant fields.
        periods: days of `train`, `validation` and `test`; None where not given.
        simulated: True where the data are not observations.
        climatology_period: training days that the climatology averages.
        climatology_window: days around each day of year, or None for one mean over all days.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        add_variables(manifest.get("variables", {}))
        self.channels: tuple[str, ...] = tuple(channel["name"] for channel in manifest["channels"])
        self.grid = Grid.from_dict(manifest["grid"])
        self.step_hours: int = manifest["times"]["step_hours"]
        self.static_names: tuple[str, ...] = tuple(field["name"] for field in manifest["static"])
        self.simulated: bool = manifest["source"]["simulated"]
        self.periods: dict[str, Days | None] = {
            name: None if days is None else Days.model_validate(days) for name, days in manifest["periods"].items()
        }
        self.climatology_period = Days.model_validate(manifest["climatology"]["period"])
        self.climatology_window: int | None = manifest["climatology"]["window_days"]
        self._kept: KeptFields | None = None
        self._seen: tuple[int, ...] | None = None  # of the manifest's file, when it was last known to be ours

    def __repr__(self) -> str:
        first, last = name_times(self.times[:1]), name_times(self.times[-1:])
        kind = "simulated, " if self.simulated else ""
        axes = f"{len(self.channels)} channels, {self.grid}, {len(self.times)} times {first} .. {last}"
        return f"Store({self.path}: {kind}{axes})"

    @cached_property
    def times(self) -> np.ndarray:
        """[time] datetime64[s], ascending."""
        hours = self._small("time").astype("datetime64[h]").astype("datetime64[s]")
        file = self.path / "time" / "zarr.json"
        try:
            units = parse_json(file.read_bytes())["attributes"]["units"]
        except (OSError, Damaged, KeyError, TypeError) as error:
            raise InputError(f"{file} is missing or damaged ({error!r}); `weatherfm verify` tells more") from None
        if units != TIME_UNITS:
            raise InputError(f"time of the store {self.path} is in {units!r}, expected {TIME_UNITS!r}; prepare it anew")
        return hours

    @cached_property
    def climatology_hours(self) -> np.ndarray:
        """[hour] int64 UTC that the climatology knows."""
        return self._small("hour")

    def files(self) -> dict[str, dict[str, Any]]:
        """Key -> {`sha256`, `bytes`} of every file but the manifest and the records: read now, and not held.

        Raises:
            InputError: the list is missing or was changed.
        """
        return read_files(self.path, self.manifest)

    @property
    def world(self) -> str:
        """Whose weather it is: the Earth's, or that of a simulated source, which another request (a seed) would make
        another. Pictures are each request's own."""
        if not self.simulated and not self.grid.plane:
            return EARTH
        request = checksum(canonical_json(self.manifest["source"].get("request") or {}).encode())[:16]
        return f"{'simulated' if self.simulated else 'pictures'} {request}"

    @property
    def shard_shape(self) -> tuple[int, int]:
        """Times and channels in one file of `state`; the last ones may hold fewer."""
        shape: Any = self._state.chunk_layout.write_chunk.shape  # the stub allows for arrays without chunks
        return int(shape[0]), int(shape[1])

    @property
    def chunk_channels(self) -> int:
        """Channels in one chunk of `state`: what reading one of them costs."""
        shape: Any = self._state.chunk_layout.read_chunk.shape
        return int(shape[1])

    def read(
        self,
        time_indices: Sequence[int] | np.ndarray,
        channels: Sequence[str] | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Fields of some times: [n, channel, lat, lon] float32, physical units.

        Args:
            time_indices: positions in `times`, in any order, with repeats if need be.
            channels: short names, in the order wanted; all without it.
            out: where to put them, contiguous; new memory without it.

        Raises:
            InputError: an unknown channel, or a shard that is missing or damaged.
        """
        indices = np.asarray(time_indices, np.int64)
        names = self.channels if channels is None else tuple(channels)
        if out is None:
            out = np.empty((len(indices), len(names), *self.grid.shape), np.float32)
        if self._kept is None or not self._kept.take(indices, names, out):
            self._read_into(out, indices, names)
        return out

    def keep(
        self,
        time_indices: Sequence[int] | np.ndarray,
        channels: Sequence[str] | None = None,
        progress: Callable[[int], object] = lambda n_bytes: None,
        fields: np.ndarray | None = None,
        part: slice = slice(None),
    ) -> None:
        """Hold fields in memory: `read` takes them from there when asked for some of these channels.

        Args:
            time_indices: positions in `times`, each once.
            channels: short names; all without it.
            progress: told the bytes of every piece read.
            fields: where to hold them, [n, channel, lat, lon] float32, contiguous; new memory without it.
            part: of `time_indices`: only these are read now. The rest of `fields` comes from elsewhere, as from other
                processes that share the memory, and must be there before the first `read`.

        Raises:
            InputError: an unknown channel, or a shard that is missing or damaged.
        """
        indices = np.asarray(time_indices, np.int64)
        names = self.channels if channels is None else tuple(channels)
        if fields is None:
            fields = np.empty((len(indices), len(names), *self.grid.shape), np.float32)
        piece = max(1, _PIECE // max(1, fields[:1].nbytes))
        own, own_indices = fields[part], indices[part]
        for start in range(0, len(own), piece):
            now = slice(start, start + piece)
            self._read_into(own[now], own_indices[now], names)
            progress(own[now].nbytes)
        rows = np.full(len(self.times), -1, np.int64)
        rows[indices] = np.arange(len(indices))
        self._kept = KeptFields(fields, rows, names)

    def climatology_at(self, times: np.ndarray, channels: Sequence[str] | None = None) -> np.ndarray:
        """Climatology of the day of year and hour of datetime64 `times` [n]: [n, channel, lat, lon] float32.

        Raises:
            InputError: an hour of day that the training days do not have, or an unknown channel.
        """
        hours = hour_of_day(times)
        unknown = ~np.isin(hours, self.climatology_hours)
        if unknown.any():
            known = ", ".join(f"{hour:02d}" for hour in self.climatology_hours)
            raise InputError(
                f"the climatology of {self.path} has no {hours[unknown][0]:02d} UTC (asked for "
                f"{name_times(times[unknown])}); its hours are {known}: choose times at these"
            )
        days = np.zeros(len(times), np.int64) if self.climatology_window is None else day_of_year(times) - 1
        rows = days * len(self.climatology_hours) + np.searchsorted(self.climatology_hours, hours)
        unique, inverse = np.unique(rows, return_inverse=True)
        index = self._channel_index(channels)
        day, hour = np.divmod(unique, len(self.climatology_hours))
        fields = self._fetch(self._climatology.vindex[day, hour].oindex[:, index])
        return fields[inverse]

    def index_of(self, times: np.ndarray) -> np.ndarray:
        """[n] int64 positions of datetime64 `times` [n].

        Raises:
            InputError: a time that the store does not hold.
        """
        times = np.asarray(times).astype("datetime64[s]")
        found = np.minimum(np.searchsorted(self.times, times), len(self.times) - 1)
        if (absent := self.times[found] != times).any():
            raise InputError(
                f"times {name_times(times[absent])} are not in the store {self.path} ({name_times(self.times[:1])} to "
                f"{name_times(self.times[-1:])}, every {self.step_hours}h); choose others or prepare these days"
            )
        return found

    def domain(self, channels: Sequence[str] | None = None) -> Domain:
        """What a model of these channels (all without `channels`) is a model of; masks are among its constant fields.

        Raises:
            InputError: an unknown channel, or one that does not vary.
        """
        index = np.arange(len(self.channels))[self._channel_index(channels)]
        names = tuple(self.channels[i] for i in index)
        static_names, static = self.static_names, self.static
        masks = {name: self.masks[name] for name in names if name in self.masks}
        if masks:
            shown, fields = mask_fields(masks)
            static_names, static = (*static_names, *shown), np.concatenate([static, fields])
        return Domain(
            channels=names,
            grid=self.grid,
            mean=self.mean[index],
            std=self.std[index],
            tendency_std=self.tendency_std[index],
            static_names=static_names,
            static=static,
            masks=masks,
            log_scales={name: self.log_scales[name] for name in names if name in self.log_scales},
            tendency_std_by_lead={lead: row[index] for lead, row in self.tendency_std_by_lead.items()},
        )

    @cached_property
    def _state(self) -> ts.TensorStore:
        self._refuse_changed("state")
        return open_array(self.path, "state")

    @cached_property
    def _climatology(self) -> ts.TensorStore:
        self._refuse_changed("climatology")
        return open_array(self.path, "climatology")

    def _refuse_changed(self, name: str) -> None:
        """Nothing, when metadata of an array, and its values if it is a small one, are those that prepare wrote."""
        for key, entry in self.manifest["small"].items():
            if key.startswith(f"{name}/") and (fault := fault_of(self.path / key, entry)):
                refuse_mixture(self.path, self.manifest)
                raise InputError(
                    f"{self.path / key} is missing or damaged (it {fault}); `weatherfm verify {self.path} --repair` "
                    "mends it"
                )

    def _was_replaced(self) -> bool:
        """True when an `append` has put a store with the same fields, and later ones, in the place of this one.

        Raises:
            InputError: other fields stand there.
        """
        try:
            found = os.stat(self.path / NAME)
            seen = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
        except FileNotFoundError:  # perhaps between two places
            seen = None
        if seen is not None and seen == self._seen:
            return False
        refuse_mixture(self.path, self.manifest, longer=True)
        first, self._seen = self._seen is None, seen
        return not first

    def _small(self, name: str) -> np.ndarray:
        self._refuse_changed(name)
        return self._fetch(open_array(self.path, name))

    def _fetch(self, view: ts.TensorStore) -> np.ndarray:
        if (n_bytes := view.size * view.dtype.numpy_dtype.itemsize) > _MOST_SMALL:
            raise InputError(
                f"an array of the store {self.path} claims {n_bytes} bytes, which none of its kind takes; "
                "`weatherfm verify` tells what is damaged"
            )
        out = np.empty(view.shape, view.dtype.numpy_dtype)
        self._copy(view, out)
        return out

    def _read_into(self, out: np.ndarray, indices: np.ndarray, channels: tuple[str, ...]) -> None:
        self._copy(self._state.oindex[indices, self._channel_index(channels)], out)

    def _copy(self, view: ts.TensorStore, out: np.ndarray) -> None:
        for again in (True, False):
            try:
                ts.array(out).write(view).result()  # `out` itself is written to
            except ValueError as error:
                if again and self._was_replaced():
                    continue  # it was just changing places
                fault = fault_of_read(error, self.path, self.channels, self._channels_of_file)
                raise InputError(
                    f"{fault}; `weatherfm verify {self.path}` names all such files, with --repair it mends them"
                ) from error
            self._was_replaced()
            return

    def _channels_of_file(self, array: str) -> int:
        return self.shard_shape[1] if array == "state" else self.chunk_channels

    def _channel_index(self, channels: Sequence[str] | None) -> slice | np.ndarray:
        if channels is None or tuple(channels) == self.channels:
            return slice(0, len(self.channels))
        if absent := [name for name in channels if name not in self.channels]:
            raise InputError(
                f"the store {self.path} has no channel {', '.join(absent)}; it holds {' '.join(self.channels)}"
            )
        index = np.array([self.channels.index(name) for name in channels], np.int64)
        if len(index) and (np.diff(index) == 1).all():
            return slice(int(index[0]), int(index[-1]) + 1)  # read much faster than an array of positions
        return index
