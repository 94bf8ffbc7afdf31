"""Source `planet`: the weather of a simulated dry atmosphere, for demo, tests and documentation; never observations.

dinosaur-dycore (T21, 8 layers) with Held-Suarez forcing over idealised mountains: mid-latitude jets and storms, no
moisture, no seasons, no day and night. A history starts at `EPOCH` and is a pure function of its seed, on one kind of
processor and one version of the dynamical core. It is simulated when it is first read, month by month, and kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import xarray as xr

from weatherfm.config import Hours
from weatherfm.data_pipeline.fields.positions import Readable, view
from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.planet.conditions import SPIN_UP, Conditions
from weatherfm.data_pipeline.planet.history import CHANNELS, STEPS_PER_DAY, History, planet_grid
from weatherfm.data_pipeline.source_config import PlanetSource
from weatherfm.data_pipeline.store_config import DataConfig, Period
from weatherfm.earth.constants import GRAVITY
from weatherfm.errors import InputError
from weatherfm.home import expanded

EPOCH = date(2001, 1, 1)
"""The first day of every history."""
LAND_GEOPOTENTIAL = 400 * GRAVITY
"""m2 s-2 of the ground above which the land-sea mask is 1."""

_STEP_HOURS = 24 // STEPS_PER_DAY
_VERSION = 1  # raise it when the same seed would give other numbers: old caches are then left alone


def open_source(data: DataConfig) -> SourceData:
    """The planet's weather over `data.period`, 6-hourly; nothing is simulated before it is read.

    Raises:
        InputError: no period or one before `EPOCH`, a channel or step the planet does not have, no dynamical core, or
            no place in `source.cache` for what is still to be simulated.
    """
    if not isinstance(data.source, PlanetSource):
        raise TypeError(f"the planet cannot open a source of kind {data.source.kind!r}")
    period = _checked_period(data.period)
    _check_step(data.step, "step")
    _check_step(data.step_offset, "step_offset")
    _check_channels(data.channels)
    history = open_history(data.source)
    history.check_place(_segments(history, period))
    fields = PlanetFields(history, period, data.channels)
    return SourceData(
        state=view(fields, fields.times, data.channels, planet_grid(), (fields.segments, (len(data.channels),))),
        static=_static(data.static, history.conditions) if data.static else None,
        attributes=_provenance(history),
        simulated=True,
        read_from=fields,
    )


def open_history(source: PlanetSource) -> History:
    """The history of `source.seed` on its planet, in its own folder of `source.cache`.

    Raises:
        InputError: dinosaur-dycore is not installed.
    """
    fingerprint = hashlib.sha256(SPIN_UP.read_bytes()).hexdigest()[:8]
    folder = expanded(source.cache) / f"v{_VERSION}-{fingerprint}-dinosaur{_dycore_version()}"
    conditions = Conditions(source.mountains, source.turn, source.contrast)
    if others := conditions.others:
        folder /= "-".join(f"{name}{value}" for name, value in others.items())
    return History(str(folder / f"seed{source.seed}"), source.seed, conditions=conditions)


def _dycore_version() -> str:
    try:
        return version("dinosaur-dycore")
    except PackageNotFoundError as error:
        raise InputError(
            "the simulated planet needs dinosaur-dycore, which is not installed; pip install 'weatherfm[demo]'"
        ) from error


def _checked_period(period: Period | None) -> Period:
    if period is None:
        raise InputError("the simulated planet has no end: say which days to keep, e.g. data.period=2001")
    if period.start < EPOCH:
        raise InputError(f"the planet's history begins on {EPOCH}, but data.period is {period}; choose later days")
    return period


def _check_step(step: Hours | None, key: str) -> None:
    if step is not None and step % _STEP_HOURS:
        raise InputError(f"the planet is known every {_STEP_HOURS} hours, but data.{key} is {step}h; choose a multiple")


def _check_channels(channels: Sequence[str]) -> None:
    if missing := [name for name in channels if name not in CHANNELS]:
        raise InputError(f"the planet has no channel {', '.join(missing)}; it has {', '.join(CHANNELS)}")


class PlanetFields(Readable):
    """Channels of a history over a period; months that nobody has read before are simulated then."""

    def __init__(self, history: History, period: Period, channels: Sequence[str]) -> None:
        self._history, self._channels = history, tuple(CHANNELS.index(name) for name in channels)
        self._start, stop = _steps(period)
        self.shape = (stop - self._start, len(channels), *planet_grid().shape)

    @property
    def times(self) -> np.ndarray:
        """[time] datetime64[s]."""
        hours = (self._start + np.arange(self.shape[0])) * _STEP_HOURS * np.timedelta64(3600, "s")
        return np.datetime64(EPOCH, "s") + hours

    @property
    def segments(self) -> tuple[int, ...]:
        """Numbers of times that lie in one file of the history each."""
        steps = (self._start + np.arange(self.shape[0])) // self._history.segment_steps
        return tuple(np.unique(steps, return_counts=True)[1].tolist())

    def read(self, times: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """[len(times), len(channels), lat, lon] for positions on the two axes."""
        segments, steps = np.divmod(self._start + times, self._history.segment_steps)
        columns = tuple(self._channels[channel] for channel in channels)
        out = np.empty((len(times), len(columns), *self.shape[2:]), np.float32)
        for segment in np.unique(segments):
            own = steps[segments == segment]
            first, last = int(own.min()), int(own.max()) + 1
            out[segments == segment] = self._history.read(int(segment), first, last, columns)[own - first]
        return out


def _steps(period: Period) -> tuple[int, int]:
    """First step of a period, and the one after its last, counted from `EPOCH`."""
    return (period.start - EPOCH).days * STEPS_PER_DAY, ((period.end - EPOCH).days + 1) * STEPS_PER_DAY


def _segments(history: History, period: Period) -> range:
    """Those that hold a period."""
    start, stop = _steps(period)
    return range(start // history.segment_steps, -(-stop // history.segment_steps))


def _static(names: Sequence[str], conditions: Conditions) -> xr.DataArray:
    """[static, latitude, longitude] float32: orography in m2 s-2, land-sea mask 0 or 1."""
    orography, grid = conditions.surface_geopotential(), planet_grid()
    fields = {"orography": orography, "lsm": (orography > LAND_GEOPOTENTIAL).astype(np.float32)}
    coordinates = {"static": list(names), "latitude": grid.latitude, "longitude": grid.longitude}
    return xr.DataArray(np.stack([fields[name] for name in names]), coordinates, tuple(coordinates), name="static")


def _provenance(history: History) -> dict[str, Any]:
    others = history.conditions.others
    told = f" ({', '.join(history.conditions.told)})" if others else ""
    return {
        "title": f"Simulated planet{told}: a dry atmosphere that never existed; not observations, not a reanalysis",
        "source": f"simulated by dinosaur-dycore {_dycore_version()} (dry primitive equations, T21, 8 sigma layers), "
        f"Held-Suarez (1994) forcing over idealised mountains{told}, without moisture, seasons or day and night",
        "dycore": f"dinosaur-dycore {_dycore_version()}",
        "planet_version": _VERSION,
        "seed": history.seed,
        **others,
        "epoch": str(EPOCH),
        "vertical": "interpolated to pressure levels; below ground warmed by 6.5 K/km, wind of the lowest layer",
    }
