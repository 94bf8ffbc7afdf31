"""States of NetCDF, GRIB and Zarr files and of Datasets in memory, read as `prepare` reads them.

Names, levels, units, the order of latitudes and the convention of longitudes are those of `formats`: what is doubtful
there is refused here. An ensemble keeps its members.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.fields.derived import inputs_of, resolve, with_inputs
from weatherfm.data_pipeline.fields.time_axis import name_times
from weatherfm.data_pipeline.formats.choice.rivals import one_name_each
from weatherfm.data_pipeline.formats.datasets.index import index_in_memory
from weatherfm.data_pipeline.formats.file_index import index_files
from weatherfm.data_pipeline.formats.files.paths import find_files
from weatherfm.data_pipeline.formats.meaning.experiments import of_one_experiment
from weatherfm.data_pipeline.formats.meaning.names import NameRules
from weatherfm.data_pipeline.formats.pieces import NO_MEMBER, Contents, Piece
from weatherfm.data_pipeline.formats.reading.lazy_state import Fields
from weatherfm.data_pipeline.formats.reading.selection import Selection, common_grid, select
from weatherfm.data_pipeline.formats.wanted_times import Span
from weatherfm.data_pipeline.source_config import FilesSource
from weatherfm.data_pipeline.sources.files import are_simulated, doubts_about
from weatherfm.data_pipeline.store.states import HAVE_ALL, HAVE_SOME
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError, some_of

NO_RULES: Mapping[str, Any] = {}
_DATASET = "the Dataset"


class FileStates:
    """States that are read when asked for; see `weatherfm.data_pipeline.store.states.States`.

    Args:
        name: what messages call it.
        channels: short names.
        grid: of every field.
        times: [time] datetime64[s], ascending.
        fields: [time, channel, lat, lon] of each member.
        numbers: of the members; None where there is no ensemble.
        simulated: the files say that no observation stands behind the numbers.
        source: JSON-able.
    """

    def __init__(
        self,
        name: str,
        channels: tuple[str, ...],
        grid: Grid,
        times: np.ndarray,
        fields: Sequence[Fields],
        numbers: tuple[int, ...] | None,
        simulated: bool,
        source: Any,
    ) -> None:
        self.name, self.channels, self.grid, self.times = name, channels, grid, times
        self.numbers, self.simulated, self.source = numbers, simulated, source
        self._fields = fields

    def read(self, times: np.ndarray, channels: Sequence[str]) -> np.ndarray:
        """[time, member, channel, lat, lon] float32 in canonical units at datetime64 `times` [time], all held."""
        rows = np.searchsorted(self.times, np.asarray(times).astype("datetime64[s]"))
        index = np.array([self.channels.index(channel) for channel in channels], np.int64)
        return np.stack([fields.read(rows, index) for fields in self._fields], axis=1)


def open_file_states(
    paths: Sequence[str],
    channels: Sequence[str],
    accumulation: int | None = None,
    rules: Mapping[str, Any] = NO_RULES,
    cure: str | None = HAVE_ALL,
) -> FileStates:
    """States of files.

    Args:
        paths: NetCDF, GRIB and Zarr files, patterns, and addresses of Zarr stores.
        channels: short names that are wanted.
        accumulation: hours over which accumulated channels are summed; without it, the files' own.
        rules: how names, levels, units and steps are read (`FilesSource.reading_rules`).
        cure: what to do about channels that are not there, for the message; None: leave them out.

    Raises:
        InputError: unreadable files, a channel they lack, units that differ or are not told, or a doubtful choice.
        OutsideError: the network failed.
    """
    source = _source(list(paths), rules)
    data = _settings(source, channels, accumulation)
    try:
        found = find_files(source.paths, ())
    except InputError as error:
        raise InputError(_of_forecast(error)) from None
    with _cure(f"states of {paths[0]}"):
        contents = index_files(found, NameRules(source), with_inputs(channels), Span.of(data))
    names = sorted(os.path.basename(path.rstrip("/")) for path in found)
    record = {"kind": "files", "files": len(names), "first_file": names[0], "last_file": names[-1]}
    return _states(str(paths[0]) if len(paths) == 1 else f"{paths[0]}, ...", contents, data, source, record, cure)


def open_dataset_states(
    dataset: xr.Dataset,
    channels: Sequence[str],
    accumulation: int | None = None,
    rules: Mapping[str, Any] = NO_RULES,
    cure: str | None = HAVE_ALL,
) -> FileStates:
    """States of a Dataset in memory or lazily opened; arguments and errors as of `open_file_states`."""
    source = _source([_DATASET], rules)
    data = _settings(source, channels, accumulation)
    with _cure(_DATASET):
        contents = index_in_memory(dataset, _DATASET, NameRules(source), with_inputs(channels))
    return _states(_DATASET, [contents], data, source, {"kind": "xarray.Dataset"}, cure)


def _source(paths: list[str], rules: Mapping[str, Any]) -> FilesSource:
    return parse_settings(FilesSource, {"kind": "files", "paths": paths, **rules}, "rules to read states by")


@contextmanager
def _cure(name: str) -> Iterator[None]:
    """What cannot be read is told with its name; where `prepare` has a setting for it, with what there is here."""
    try:
        yield
    except InputError as error:
        text = _of_forecast(error)
        told = "source." in text
        here = (
            " (source.* is of `weatherfm prepare`: here select or mend with xarray, hand in the Dataset)"
            if told
            else ""
        )
        if "source.sums" in text:
            here += "; a name such as total_precipitation_6hr tells the span of a sum"
        raise InputError(f"{name} cannot be used: {text}{here}") from None


def _of_forecast(error: InputError) -> str:
    """A refusal of `formats` with the name that the setting has here."""
    return str(error).replace("source.storage_options", "forecast.storage_options")


def _settings(source: FilesSource, channels: Sequence[str], accumulation: int | None) -> DataConfig:
    hours = None if accumulation is None else f"{accumulation}h"
    return DataConfig.model_validate(
        {"store": "none", "source": source, "channels": list(channels), "accumulation": hours, "allow_gaps": True}
    )


def _states(
    name: str, contents: Sequence[Contents], data: DataConfig, source: FilesSource, record: Any, cure: str | None
) -> FileStates:
    with _cure(name):
        pieces = [piece for one in contents for piece in one_name_each(one.pieces)]
    if cure is None:
        data = data.model_copy(update={"channels": _at_hand(data.channels, pieces, contents) or data.channels})
    derivation = resolve(data, {piece.channel for piece in pieces})
    _require(derivation.stored, pieces, contents, name, cure or HAVE_SOME)
    pieces = [piece for piece in pieces if piece.channel in derivation.stored]
    with _cure(f"states of {name}"):
        pieces = of_one_experiment(pieces, source.experiment)
    channels, grid = tuple(data.channels), common_grid(pieces)
    simulated = are_simulated(contents)
    if min(len(piece.slots.times) for piece in pieces) == 0:
        return FileStates(name, channels, grid, np.zeros(0, "datetime64[s]"), [], None, simulated, record)
    stored = data.model_copy(update={"channels": list(derivation.stored)})
    numbers = sorted({int(n) for piece in pieces for n in np.unique(piece.slots.numbers)} - {NO_MEMBER})
    members: list[int | None] = list(numbers) if len(numbers) > 1 else [None]
    with _cure(f"states of {name}"):
        chosen = [select(pieces, stored, source.model_copy(update={"number": number})) for number in members]
    _require_same_times(chosen, numbers, name)
    fields = [Fields(selection, derivation) for selection in chosen]
    ensemble = tuple(numbers) if len(numbers) > 1 else None
    return FileStates(name, channels, chosen[0].grid, chosen[0].times, fields, ensemble, simulated, record)


def _at_hand(channels: Sequence[str], pieces: Sequence[Piece], contents: Sequence[Contents]) -> list[str]:
    """Channels that are there or follow from what is; a doubtful one is not left out, but refused by `_require`."""
    held = {piece.channel for piece in pieces}
    doubtful = {channel for one in contents for channel in one.refused}
    inputs = {name: inputs_of(name) for name in channels}
    return [n for n in channels if n in held | doubtful or (inputs[n] is not None and held.issuperset(inputs[n] or ()))]


def _require(names: Sequence[str], pieces: Sequence[Piece], contents: Sequence[Contents], name: str, cure: str) -> None:
    found = {piece.channel for piece in pieces}
    if missing := [channel for channel in names if channel not in found]:
        others = sorted({text for one in contents for text in one.others})
        known = some_of([*sorted(found), *others]) or "no known fields"
        told = [one.refused[channel] for channel in missing for one in contents if channel in one.refused]
        why = f": {'; '.join(dict.fromkeys(told))}" if told else ""
        doubts = "".join(f"; {text}" for text in doubts_about(missing, contents))
        raise InputError(
            f"the model needs {some_of(missing)}, which {name} lacks (it has {known}){why}; {cure}{doubts}"
        )


def _require_same_times(chosen: Sequence[Selection], numbers: Sequence[int], name: str) -> None:
    for selection, number in zip(chosen[1:], numbers[1:], strict=False):
        if len(odd := np.setxor1d(selection.times, chosen[0].times)):
            raise InputError(
                f"members {numbers[0]} and {number} of {name} are at different times: only one of them has "
                f"{name_times(odd)}; add these or leave them out"
            )
