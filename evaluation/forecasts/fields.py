"""The fields of a forecast in WeatherBench2's layout: which channels there are, and reading them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.access import PUBLIC, Access
from weatherfm.data_pipeline.formats.chunks import Chunking
from weatherfm.data_pipeline.formats.datasets.reader import DatasetReader, FieldShape
from weatherfm.data_pipeline.formats.meaning.contradictions import contradiction
from weatherfm.data_pipeline.formats.meaning.kinds import KINDS, clues_of_attributes
from weatherfm.data_pipeline.formats.meaning.names import channel_name
from weatherfm.data_pipeline.formats.units import Conversion
from weatherfm.earth.variables import Channel, Variable, find_variable, parse_channel
from weatherfm.errors import InputError, OutsideError
from weatherfm.evaluation.forecasts.address import of_evaluation
from weatherfm.evaluation.forecasts.axes import DIMS, LATITUDE, LEAD, LEVEL, LONGITUDE, MEMBER, TIME, Axes
from weatherfm.evaluation.forecasts.schema import variables_of
from weatherfm.evaluation.forecasts.unit_checks import check_units

_SCORED = ("ensemble_mean", "daily_mean", "mean", "monthly_mean", "sum")
"""Kinds of forecasts that can be scored beside the field itself."""
_log = logging.getLogger(__name__)


class ForecastFields:
    """The variables of a file that we know.

    Args:
        path: folder or address.
        dataset: what is there.
        axes: what its fields lie along.
        sums: ending of the names of sums such as precipitation (`_6hr`); None leaves them out.
        access: what opens a private store.
    """

    def __init__(self, path: str, dataset: xr.Dataset, axes: Axes, sums: str | None, access: Access = PUBLIC) -> None:
        self._access = access
        self._path, self._dataset, self._axes, self._sums = path, dataset, axes, sums
        self._levels = {round(level): i for i, level in reversed(list(enumerate(axes.levels))) if level == round(level)}
        self._readers: dict[str, DatasetReader] = {}
        self._conversions: dict[str, Conversion] = {}
        known = [(name, find_variable(name)) for name in map(str, dataset.data_vars)]
        self._variables = {v.era5: v for name, v in known if v and self._is_field(name, v)}
        self.channels: tuple[str, ...] = tuple(
            channel for v in self._variables.values() for channel in self._channels_of(v)
        )
        """Short names, in the file's order."""

    def check(self, channel: Channel) -> None:
        """That a channel is there as it has to be.

        Raises:
            InputError: it is not there, or has other dims or units.
        """
        name = self._name(channel.variable)
        if channel.variable.era5 not in self._variables:
            raise InputError(f"{self._path} lacks {name} (channel {channel.name}); it has {', '.join(self.channels)}")
        self._check_dims(name, channel.level is not None)
        self._check_kind(name, channel.variable)
        if channel.level is not None and channel.level not in self._levels:
            levels = ", ".join(f"{level:g} hPa" for level in self._axes.levels)
            raise InputError(
                f"{self._path} lacks level {channel.level} (channel {channel.name}); it has levels {levels}"
            )
        self._conversion(channel.variable)

    @property
    def leads_in_chunk(self) -> int:
        """Lead times that are stored together, and cannot be read apart."""
        readers = [self._reader(self._name(variable)) for variable in self._variables.values()]
        lead = self._axes.dims[LEAD].name
        lengths = [dict(zip(reader.shape.slots, reader.chunks.slot_chunks, strict=True)) for reader in readers]
        return max((length.get(lead, 1) for length in lengths), default=1)

    def read(
        self, inits: np.ndarray, leads: Sequence[int], channels: Sequence[str], members: int | None = None
    ) -> np.ndarray:
        """[lead, init, member, channel, lat, lon] float32 in canonical units, at these initial and lead times.

        Args:
            inits: [init] positions.
            leads: [lead] positions.
            channels: short names.
            members: the first so many, without it all.

        Raises:
            InputError: a part of the store is not there, or values that cannot be in the units they should be.
            OutsideError: the network failed.
        """
        variables = [parse_channel(next(iter(wanted.values()))).variable for wanted in variables_of(channels).values()]
        conversions = {variable.short: self._conversion(variable) for variable in variables}
        return self._read(inits, leads, channels, members, conversions)

    def _read(
        self,
        inits: np.ndarray,
        leads: Sequence[int],
        channels: Sequence[str],
        members: int | None,
        conversions: Mapping[str, Conversion],
    ) -> np.ndarray:
        """As `read`, by conversions of variables (short names); those that have none stay as they are."""
        grid = self._axes.orientation.grid
        count = members or self._axes.members or 1
        out = np.empty((len(leads), len(inits), count, len(channels), *grid.shape), np.float32)
        position = {channel: i for i, channel in enumerate(channels)}
        for wanted in variables_of(channels).values():
            variable = parse_channel(next(iter(wanted.values()))).variable
            conversion = conversions.get(variable.short, Conversion())
            rows = {0 if level is None else self._levels[level]: channel for level, channel in wanted.items()}
            levels = sorted(rows)
            values = self._load(self._name(variable), inits, leads, count, levels)
            for i, level in enumerate(levels):
                fields = self._axes.orientation.arrange(values[:, :, :, i])
                out[:, :, :, position[rows[level]]] = conversion.apply(fields)
        return out

    def _load(
        self, name: str, inits: np.ndarray, leads: Sequence[int], members: int, levels: Sequence[int]
    ) -> np.ndarray:
        """[lead, init, member, level, file lat, file lon] of a variable."""
        reader = self._reader(name)
        order = self._axes.order(reader.shape.slots)
        slots, shape = self._axes.slots(inits, leads, members, order)
        try:
            values = reader.read(slots, levels)
        except InputError as error:
            raise of_evaluation(error) from error
        except OutsideError:
            raise
        except (OSError, RuntimeError, IndexError, ValueError) as error:
            raise InputError(
                f"{name} of {self._path} could not be read ({type(error).__name__}: {error}): a file of it is damaged; "
                "fetch the forecast again, or make it anew"
            ) from error
        values = values.reshape(*shape, *values.shape[1:])
        wanted = [order.index(dim) for dim in (LEAD, TIME, MEMBER) if dim in order]
        values = values.transpose(*wanted, *range(len(order), values.ndim))
        return values if MEMBER in order else values[:, :, None]

    def _reader(self, name: str) -> DatasetReader:
        if name not in self._readers:
            dims, variable = self._axes.dims, self._dataset.variables[name]
            slots = {dims[dim].name for dim in (TIME, LEAD, MEMBER) if dim in dims}
            along = tuple(str(dim) for dim in variable.dims if dim in slots)
            level = dims[LEVEL] if LEVEL in dims and dims[LEVEL].name in variable.dims else None
            shape = FieldShape(dims[LATITUDE], dims[LONGITUDE], level, self._axes.levels, along, None, ())
            chunks = Chunking.of(variable, along, None if level is None else level.name)
            self._readers[name] = DatasetReader(self._path, "zarr", name, shape, chunks, access=self._access)
        return self._readers[name]

    def _name(self, variable: Variable) -> str:
        """What the file calls a variable; sums of others carry their span."""
        return f"{variable.era5}{(self._sums or '') if variable.accumulated else ''}"

    def _is_field(self, name: str, variable: Variable) -> bool:
        if variable.accumulated and self._sums is None:
            return False
        return name == self._name(variable) and self._axes.dims[LEAD].name in self._dataset.variables[name].dims

    def _channels_of(self, variable: Variable) -> list[str]:
        if not variable.on_levels:
            return [Channel(variable).name]
        dims = self._dataset.variables[self._name(variable)].dims
        if LEVEL not in self._axes.dims or self._axes.dims[LEVEL].name not in dims:
            return []
        named = [channel_name(variable, level) for level in self._axes.levels]
        return [name for name in named if name is not None]

    def _check_dims(self, name: str, on_levels: bool) -> None:
        dims = self._dataset.variables[name].dims
        own = self._axes.dims
        required = {own[dim].name if dim in own else dim for dim in (*DIMS, *([LEVEL] if on_levels else []))}
        member = {own[MEMBER].name} if MEMBER in own else set()
        required |= member if self._axes.members else set()
        if not required <= set(dims) <= required | member:
            raise InputError(
                f"{name} of {self._path} has dims {', '.join(map(str, dims))}, expected "
                f"{', '.join(sorted(required))}; select or rename the others"
            )

    def _check_kind(self, name: str, variable: Variable) -> None:
        """A forecast of the field; the mean of an ensemble is one, and of a mean over time the truth has to be one."""
        dataset = self._dataset
        said = _beside_name(dataset[name].attrs, variable)
        clues = clues_of_attributes(said, dataset.attrs, None, variable.accumulated)
        odd = [clue for clue in clues if clue.kind not in _SCORED]
        if text := contradiction(variable, name, dataset[name].attrs):
            raise InputError(
                f"{self._path}: {text.partition(' (if')[0]}; mend its attributes, or leave the channel out"
            )
        if odd:
            told = " and ".join(f"{KINDS.get(clue.kind, 'of an unknown kind')} ({clue.said})" for clue in odd)
            raise InputError(
                f"{name} of {self._path} is {told}, no forecast of the field itself; leave the channel out, or "
                "mend the attribute"
            )

    def _conversion(self, variable: Variable) -> Conversion:
        """What makes the file's values canonical; looked for once."""
        name = self._name(variable)
        if name in self._conversions:
            return self._conversions[name]
        said, grid = self._dataset.variables[name].attrs.get("units"), self._axes.orientation.grid
        try:
            found = check_units(variable, said, lambda: self._sample(variable), grid)
        except InputError as error:
            raise InputError(f"{name} of {self._path} {error}") from error
        if not found.is_identity:
            _log.warning("%s of %s is a fraction of one without a word on units: read as such", name, self._path)
        self._conversions[name] = found
        return found

    def _sample(self, variable: Variable) -> Mapping[Channel, np.ndarray]:
        """Some fields of each of a variable's channels: one member's, the first lead time, from three initial times."""
        channels = self._channels_of(variable)
        inits = np.unique([0, len(self._axes.init_times) // 2, len(self._axes.init_times) - 1])
        lead = next((i for i, hours in enumerate(self._axes.lead_times) if hours > 0), 0)
        fields = self._read(inits, [lead], channels, 1, {})
        return {parse_channel(channel): fields[:, :, :, i] for i, channel in enumerate(channels)}


def _beside_name(attributes: Mapping[Any, Any], variable: Variable) -> dict[Any, Any]:
    """Without a long_name that is the variable's own, as that of a daily minimum: it is what is asked for."""
    text = str(attributes.get("long_name", "")).lower().replace(" ", "_")
    return {key: value for key, value in attributes.items() if key != "long_name" or text != variable.era5}
