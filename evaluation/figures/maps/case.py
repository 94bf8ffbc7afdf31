"""One forecast field beside the truth: what a map shows, and which initial time it shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.metrics.array_scores import ArrayScores

_MOST_CANDIDATES = 120
"""Initial times among which the ordinary and the extreme are looked for; spread evenly over all of them."""


@dataclass(frozen=True, eq=False)
class Case:
    """Forecast and truth of one channel at one valid time."""

    channel: str
    grid: Grid
    init_time: np.datetime64
    lead_time: int
    """Hours."""
    forecast: np.ndarray
    """[lat, lon] in canonical units."""
    truth: np.ndarray
    """[lat, lon] in canonical units."""
    forecast_name: str = "model"
    simulated: bool = False
    orography: np.ndarray | None = None
    """[lat, lon] surface geopotential in m2 s-2, drawn where there are no coastlines."""
    land: np.ndarray | None = None
    """[lat, lon] share of land, drawn where there are no coastlines."""
    members: int | None = None
    """Of the ensemble whose mean the forecast is; None for a single forecast."""

    @property
    def valid_time(self) -> np.datetime64:
        """When the forecast is for."""
        return self.init_time + np.timedelta64(self.lead_time, "h")

    @property
    def rmse(self) -> float:
        """Area-weighted root mean squared error of this one field, canonical units."""
        return float(map_rmse(self.grid, self.forecast[None], self.truth[None])[0])


def map_rmse(grid: Grid, forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """[n] area-weighted RMSE of each of n fields [n, lat, lon], but for points where neither has a value: a mask."""
    region = "global" if grid.periodic else "area"
    there = ~(np.isnan(forecast) & np.isnan(truth)).all(0)
    verification = ArrayScores(grid, ("field",), range(len(forecast)), (region,), there)
    for i, fields in enumerate(zip(forecast, truth, strict=True)):
        field, true = (np.where(there, one, 0)[None, None] for one in fields)
        verification.update(field, true, lead_index=i)
    return verification.metrics()["rmse"][0, :, 0]


def load_case(file: ForecastFile, store: Store, channel: str, lead_time: int, init_time: np.datetime64) -> Case:
    """Read the fields of a case, of an ensemble its mean; lead time in hours.

    Raises:
        InputError: an initial or lead time, a channel or a grid that forecast and store do not share.
    """
    init_time = require_init_time(file, init_time)
    found = np.flatnonzero(file.init_times == init_time)
    file.require([channel], [lead_time], store.grid)
    valid = file.init_times[found] + np.timedelta64(lead_time, "h")
    static = {name: store.static[i] for i, name in enumerate(store.static_names)}
    return Case(
        channel,
        store.grid,
        init_time,
        lead_time,
        forecasts_of(file, store, found, lead_time, channel)[0],
        truth_at(store, valid, channel)[0],
        file.name,
        bool(store.simulated),
        static.get("orography"),
        static.get("lsm"),
        file.members,
    )


@dataclass(frozen=True, eq=False)
class EnsembleCase:
    """The members behind a case."""

    mean: Case
    """Of the members' mean, beside the truth."""
    members: np.ndarray
    """[member, lat, lon] in canonical units, NaN where the channel never has a value."""

    @property
    def spread(self) -> np.ndarray:
        """[lat, lon] standard deviation of the members, divided by their number less one."""
        spread: np.ndarray = self.members.std(0, ddof=1, dtype=np.float64)
        return spread


def load_ensemble_case(
    file: ForecastFile, store: Store, channel: str, lead_time: int, init_time: np.datetime64
) -> EnsembleCase:
    """Read all members of a case; lead time in hours.

    Raises:
        InputError: a single forecast; or as of `load_case`.
    """
    if file.members is None:
        raise InputError(f"{file.path} holds a single forecast, of which there are no members to show")
    mean = load_case(file, store, channel, lead_time, init_time)
    found = np.flatnonzero(file.init_times == mean.init_time)
    return EnsembleCase(mean, _members(file, store, found, lead_time, channel)[0])


def require_init_time(file: ForecastFile, init_time: np.datetime64) -> np.datetime64:
    """The initial time as the file has it.

    Raises:
        InputError: the file has no forecast from it; the nearest it has are named.
    """
    wanted = init_time.astype("datetime64[s]")
    if wanted in file.init_times:
        return wanted
    near = file.init_times[np.argsort(np.abs(file.init_times - wanted), kind="stable")[:3]]
    names = ", ".join(str(time.astype("datetime64[h]")) for time in np.sort(near))
    raise InputError(
        f"{file.path} has no forecast from {wanted}; the nearest of its {len(file.init_times)} initial times are "
        f"{names} (first {file.init_times[0]}, last {file.init_times[-1]})"
    )


def pick_init_times(
    file: ForecastFile, store: Store, channel: str, lead_time: int, init_times: np.ndarray | None = None
) -> dict[str, np.datetime64]:
    """Initial times by the error of one channel at one lead time (hours): `median`, `best` and `worst`.

    Looks at no more than 120 initial times, spread evenly over `init_times` [n] datetime64, or all of the file.

    Raises:
        InputError: a channel, lead time, grid or initial time that forecast and store do not share.
    """
    file.require([channel], [lead_time], store.grid)
    among = np.arange(len(file.init_times)) if init_times is None else file.positions(init_times)
    candidates = spread_evenly(among, _MOST_CANDIDATES)
    errors = np.concatenate([_errors(file, store, channel, lead_time, part) for part in in_parts(candidates)])
    return by_error(errors, file.init_times[candidates])


def by_error(errors: np.ndarray, init_times: np.ndarray) -> dict[str, np.datetime64]:
    """`median`, `best` and `worst` of initial times [n] by their errors [n]."""
    order = init_times[np.argsort(errors, kind="stable")]
    return {"median": order[len(order) // 2], "best": order[0], "worst": order[-1]}


def spread_evenly(among: np.ndarray, most: int) -> np.ndarray:
    """At most so many of a series [n], the first and the last among them."""
    places = np.linspace(0, len(among) - 1, min(len(among), most)).round().astype(int)
    chosen: np.ndarray = among[np.unique(places)]
    return chosen


def in_parts(candidates: np.ndarray) -> list[np.ndarray]:
    """Some sixteen at a time, which bounds memory."""
    return np.array_split(candidates, max(1, len(candidates) // 16))


def _errors(file: ForecastFile, store: Store, channel: str, lead_time: int, inits: np.ndarray) -> np.ndarray:
    valid = file.init_times[inits] + np.timedelta64(lead_time, "h")
    return map_rmse(store.grid, forecasts_of(file, store, inits, lead_time, channel), truth_at(store, valid, channel))


def truth_at(store: Store, times: np.ndarray, channel: str) -> np.ndarray:
    """[n, lat, lon] of one channel at datetime64 `times` [n], NaN where its mask is.

    Raises:
        InputError: a time that the store lacks.
    """
    return _blank(store.read(store.index_of(times), [channel])[:, 0], store, channel)


def forecasts_of(file: ForecastFile, store: Store, inits: np.ndarray, lead_time: int, channel: str) -> np.ndarray:
    """[init, lat, lon] of one channel, NaN where its mask is; of an ensemble its mean."""
    fields: np.ndarray = _members(file, store, inits, lead_time, channel).mean(1)
    return fields


def _members(file: ForecastFile, store: Store, inits: np.ndarray, lead_time: int, channel: str) -> np.ndarray:
    """[init, member, lat, lon] of one channel, NaN where its mask is; of a single forecast one member."""
    fields = file.read(inits, lead_time, [channel], store.masks)
    members: np.ndarray = fields if file.members is None else fields[:, :, 0]
    return _blank(members, store, channel)


def _blank(fields: np.ndarray, store: Store, channel: str) -> np.ndarray:
    """Fields [..., lat, lon], NaN where nothing is scored."""
    return np.where(store.masks[channel], np.float32(np.nan), fields) if channel in store.masks else fields
