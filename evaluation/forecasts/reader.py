"""Reads forecasts in WeatherBench2's layout, ours or others', and checks them before anything is scored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weatherfm.data_pipeline.access import PUBLIC, Access
from weatherfm.data_pipeline.fields.masks import Masks, zero_masked
from weatherfm.earth.grid import Grid
from weatherfm.earth.variables import add_variables, parse_channel
from weatherfm.errors import InputError
from weatherfm.evaluation.forecasts.address import locate, name_of, open_forecast
from weatherfm.evaluation.forecasts.axes import axes_of
from weatherfm.evaluation.forecasts.fields import ForecastFields
from weatherfm.evaluation.forecasts.progress import FORMAT
from weatherfm.evaluation.forecasts.read_ahead import ReadAhead
from weatherfm.evaluation.forecasts.schema import MADE_BY

_OURS = FORMAT.rpartition(" ")[0]
"""How the format of forecasts by any version of weatherfm begins."""


class ForecastFile:
    """A forecast in a folder or at an address: a Zarr store of version 2 or 3.

    Dims may come in any order and latitude may ascend, as in files of WeatherBench2; fields are given as
    [init, channel, lat, lon], those of an ensemble as [init, member, channel, lat, lon], with latitude descending all
    the same. Reading from several threads is safe.

    Args:
        path: folder, or address (gs://, s3://, https://).
        step_hours: span over which the truth sums precipitation and its like. Files of others say it in the name
            (`total_precipitation_6hr`); without it their sums are not read.
        access: what opens a private store.

    Raises:
        InputError: nothing there, an unfinished forecast, a missing or repeated coordinate, or no channel we know.
        OutsideError: the network failed.
    """

    def __init__(self, path: str | Path, step_hours: int | None = None, access: Access = PUBLIC) -> None:
        self.path: str | Path = locate(path)
        self.access = access
        dataset = open_forecast(self.path, access)
        attributes = dataset.attrs
        ours = str(attributes.get("format", "")).startswith(_OURS)
        known = ours or str(attributes.get("source", "")).startswith(f"{MADE_BY} ")  # a Dataset, written by its user
        self.provenance: dict[str, Any] = json.loads(attributes.get("provenance", "{}")) if known else {}
        """How it came about; empty for a file of others."""
        add_variables(self.provenance.get("variables", {}))
        try:
            axes = axes_of(dataset)
        except InputError as error:
            raise InputError(f"{self.path} {error}") from error
        sums = "" if known else None if step_hours is None else f"_{step_hours}hr"
        self._fields = ForecastFields(str(self.path), dataset, axes, sums, access)
        self.init_times: np.ndarray = axes.init_times
        """[init] datetime64[s], ascending."""
        self.lead_times: tuple[int, ...] = axes.lead_times
        """Hours, ascending; 0 where a file holds its analysis, too."""
        self.members: int | None = axes.members
        """Of the ensemble; None for a deterministic forecast, also where there is one member."""
        self.grid: Grid = axes.orientation.grid
        self.channels: tuple[str, ...] = _channels(attributes, self._fields.channels, ours)
        """Short names."""
        if not self.channels:
            raise InputError(
                f"{self.path} holds no variable we know, only {', '.join(map(str, dataset.data_vars))}; "
                "variables carry ERA5 long names, e.g. 2m_temperature"
            )
        case_bytes = 4 * (self.members or 1) * int(np.prod(self.grid.shape))
        self._ahead = ReadAhead(self._fields.read, self._fields.leads_in_chunk, case_bytes)
        self._expected = tuple(range(len(self.lead_times)))
        self._rows: slice | None = None
        self.gaps: set[str] = set()
        """Channels without a value at some points, as `missing_points` found."""

    @property
    def name(self) -> str:
        """What scores call it: as its provenance says, else `model` for ours and the file's name for others'."""
        return str(self.provenance.get("name") or ("model" if self.provenance else name_of(self.path)))

    @property
    def simulated(self) -> bool:
        """True when the forecast started from a simulated atmosphere."""
        return bool(self.provenance.get("simulated"))

    def require(self, channels: Sequence[str], lead_times: Sequence[int], grid: Grid) -> None:
        """Check that the forecast can be scored, and prepare for being read at these lead times.

        Raises:
            InputError: a channel or lead time it lacks, another grid, wrong units or dims.
        """
        if self.grid != grid:
            raise InputError(
                f"the grid of {self.path} is {self.grid}, that of the truth is {grid}; regrid the forecast"
            )
        if missing := [hours for hours in lead_times if hours not in self.lead_times]:
            raise InputError(
                f"{self.path} lacks lead times {_list(missing)}; it has {_list(self.lead_times)}: forecast again with "
                "all of them"
            )
        for channel in channels:
            self._fields.check(parse_channel(channel))
        self._expected = tuple(i for i, hours in enumerate(self.lead_times) if hours in lead_times)

    def keep_rows(self, latitude: np.ndarray) -> None:
        """Give these rows alone, [lat] degrees, from now on: a run of the forecast's own."""
        first = int(np.abs(self.grid.latitude - latitude[0]).argmin())
        self.grid = Grid(self.grid.latitude[first : first + len(latitude)], self.grid.longitude)
        first += 0 if self._rows is None else self._rows.start
        self._rows = slice(first, first + len(latitude))

    def missing_points(self, channels: Sequence[str], init_time: np.ndarray, lead_time: int) -> dict[str, np.ndarray]:
        """Channel -> [lat, lon] bool of points without a value (in any member) from one time; those that have some.

        Raises:
            InputError: the forecast lacks the time; as of `read`.
        """
        at = self.positions(np.atleast_1d(init_time))
        fields = self._fields.read(at, [self.lead_times.index(lead_time)], channels)[0, 0]  # [member, channel, ...]
        missing = ~np.isfinite(fields if self._rows is None else fields[..., self._rows, :]).all(0)
        found = {name: points for name, points in zip(channels, missing, strict=True) if points.any()}
        self.gaps |= found.keys()
        return found

    def positions(self, init_times: np.ndarray) -> np.ndarray:
        """[n] where the initial times [n] datetime64 are, for `read`; the file may have more, in any step.

        Raises:
            InputError: times it lacks, with their number and the first; or none in common.
        """
        absent = init_times[~np.isin(init_times, self.init_times)]
        if len(absent):
            span = f"{self.init_times[0]} to {self.init_times[-1]}"
            if len(absent) == len(init_times):
                raise InputError(
                    f"{self.path} has no initial time in common with those to score ({init_times[0]} to "
                    f"{init_times[-1]}); its {len(self.init_times)} go from {span}: name forecasts of the same days"
                )
            raise InputError(
                f"{self.path} lacks {len(absent)} of the {len(init_times)} initial times to score, the first is "
                f"{absent[0]}; its {len(self.init_times)} initial times go from {span}: scores on different cases say "
                "nothing, forecast from the same initial times"
            )
        return np.searchsorted(self.init_times, init_times.astype("datetime64[s]"))

    def read(
        self,
        init_indices: Sequence[int] | np.ndarray,
        lead_time: int,
        channels: Sequence[str],
        masks: Masks | None = None,
    ) -> np.ndarray:
        """[init, channel, lat, lon] float32 in physical units at one lead time (hours).

        An ensemble gives [init, member, channel, lat, lon]. At points of the truth's masks it is 0: what a forecast has
        there, values or none, is not scored.

        Raises:
            InputError: a value that is not finite, named by channel, initial time, lead time and member; a part of the
                file that is not there.
            OutsideError: the network failed.
        """
        inits = np.asarray(init_indices)
        out = self._ahead.read(inits, self.lead_times.index(lead_time), channels, self._expected)
        if self._rows is not None:
            out = np.ascontiguousarray(out[..., self._rows, :])
        self._refuse_not_finite(zero_masked(out, channels, masks or {}), channels, inits, lead_time)
        return out[:, 0] if self.members is None else out

    def _refuse_not_finite(self, fields: np.ndarray, channels: Sequence[str], inits: np.ndarray, lead: int) -> None:
        """`fields` is [init, member, channel, lat, lon]."""
        if np.isfinite(fields.sum((3, 4), dtype=np.float32)).all():  # quicker than to look at every value
            return
        finite = np.isfinite(fields).all((3, 4))
        if not finite.all():
            init, member, channel = np.argwhere(~finite)[0]
            of = "" if self.members is None else f", member {member + 1} of {self.members}"
            why = "the forecast is incomplete or damaged, make it again"
            count = int((~np.isfinite(fields[init, member, channel])).sum())
            if channels[channel] in self.gaps:
                why = (
                    f"{count} points have no value here, and had one at the first time: what comes and goes cannot be "
                )
                why += "left out; score other channels, or times at which the same points are missing"
            elif parse_channel(channels[channel]).variable.masked:
                why = f"the truth has values at {count} points where the forecast has none: it has another mask, or is "
                why += "damaged; score other channels, or against a truth with its mask"
            raise InputError(
                f"{self.path} has a value that is not finite: {channels[channel]} from "
                f"{self.init_times[inits[init]]} at {lead}h{of}; {why}"
            )


def _channels(attributes: Mapping[str, Any], found: tuple[str, ...], ours: bool) -> tuple[str, ...]:
    """Short names as the file lists them: not every variable has to be there on every level.

    Others may have changed what is in the file since the list was written: then what is not there is not asked for.
    """
    listed = tuple(str(attributes.get("channels", "")).split())
    return listed if ours and listed else tuple(name for name in listed if name in found) or found


def _list(values: Sequence[int] | np.ndarray, unit: str = "h") -> str:
    return ", ".join(f"{value:g}{unit}" for value in values)
