"""Forecasts from Python: states in, an xarray.Dataset out, as `weatherfm.forecast`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import xarray as xr

from weatherfm import __version__
from weatherfm.config import parse_settings
from weatherfm.data_pipeline.store.states import States
from weatherfm.errors import InputError
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.arguments import Span, init_text, lead_times_text, span_text
from weatherfm.evaluation.forecasting.ensemble import Ensemble
from weatherfm.evaluation.forecasting.forecaster import require_finite_forecast
from weatherfm.evaluation.forecasting.model_facts import ModelFacts, require_ensemble
from weatherfm.evaluation.forecasting.processes import Processes
from weatherfm.evaluation.forecasting.provenance import ensemble_record, origin_of
from weatherfm.evaluation.forecasting.shared_states import open_shared
from weatherfm.evaluation.forecasts.schema import MADE_BY, levels_of, variable_attributes, variables_of
from weatherfm.model.model import WeatherViT

_WRITTEN = {"units": "seconds since 1970-01-01", "dtype": "int64"}
"""How xarray stores times. By itself it counts from the first one: Zarr leaves out what is 0, as if it were missing."""


def forecast(
    model: WeatherViT | Sequence[WeatherViT],
    states: Any,
    lead_times: Span | Iterable[Span] = "24h",
    init: str | datetime | np.datetime64 | Iterable[Any] | None = None,
    rollout: Span | None = None,
    *,
    members: int | None = None,
    seed: int = 0,
    noise_scale: float = 1.0,
    dropout: bool = False,
    perturbation: Mapping[str, Any] | None = None,
    mode: str | None = None,
    init_every: Span = "24h",
    batch_size: int = 16,
    precision: str = "auto",
    storage_options: Mapping[str, Any] | None = None,
    allow_missing: bool = False,
) -> xr.Dataset:
    """Forecast with a model, in memory: it takes what is returned, and little more.

        model = weatherfm.load("weights.safetensors")
        forecast = weatherfm.forecast(model, "era5_*.nc", lead_times=["24h", "72h"])
        ensemble = weatherfm.forecast(model, "era5_*.nc", members=16)  # of a model with noise

    Args:
        model: of `weatherfm.load`; it computes on the device it is on. Several, in a list, make an ensemble.
        states: a store or its folder; NetCDF, GRIB or Zarr files (a path, a pattern or several); or an xarray.Dataset.
            Variables go by their ERA5, CF or short names and must say their units; latitude may ascend, longitude may
            start at -180. Constant fields are in the model.
        lead_times: "24h", ["6h", "24h"], "24h..365d/24h", or time spans.
        init: initial times: "2018-10-01T06", days, times, a list of them, or "latest", the default: the last that has
            all states the model wants to see. Times of numpy, pandas and xarray are UTC, as are all; those with a time
            zone are converted.
        rollout: feed steps of this length back into the model instead of one step a lead time, as "6h".
        members: an ensemble of so many, of several models so many of each, by noise, `dropout` or `perturbation`.
        seed: of what is random in members; the same again gives the same forecast.
        noise_scale: of members' noise; 1 as in training.
        dropout: leave dropout and drop path on, as in training.
        perturbation: what members' states differ by, as {"amplitude": 0.05, "kind": "spherical"}.
        mode: "mean" averages direct forecasts and rolled ones; by default what `rollout` says.
        init_every: distance between initial times in days and periods.
        batch_size: samples, of initial times and members, that go through the model at once.
        precision: auto (bfloat16 on a GPU that has it), float32, tf32 or bfloat16.
        storage_options: what opens a private store of states, as {"token": ...}; kept nowhere.
        allow_missing: states may lack channels of the model, which it then predicts as well as it can without.

    Returns:
        ERA5's names and units by init_time, lead_time, latitude, longitude, perhaps level and number; valid_time as
        coordinate. On a level where a variable is not forecast it is NaN.

    Raises:
        InputError: states that do not fit the model or are missing, or arguments that mean nothing.
    """
    models = _models(model)
    chance = {"seed": seed, "noise_scale": noise_scale, "dropout": dropout, "perturbation": perturbation}
    given = {"batch_size": batch_size, "precision": precision, "allow_missing": allow_missing} | chance
    given |= {"init_every": span_text(init_every), "members": _members(model, members)}
    config = _config(given, lead_times, init, rollout, mode)
    return _made(models, states, config, storage_options)


def _config(given: dict[str, Any], lead_times: Any, init: Any, rollout: Any, mode: Any) -> ForecastConfig:
    given |= {"lead_times": lead_times_text(lead_times), "init": init_text(init)}
    given |= {} if rollout is None else {"mode": "rollout", "rollout_step": span_text(rollout)}
    given |= {} if mode is None else {"mode": mode}
    return parse_settings(ForecastConfig, given, "forecast")


def _made(
    models: Sequence[_Loaded], states: Any, config: ForecastConfig, storage_options: Mapping[str, Any] | None
) -> xr.Dataset:
    require_ensemble(models, config)
    source, inits = open_shared(models, states, config, storage_options=storage_options)
    loaded = [one.loaded for one in models]
    domains = [one.domain for one in loaded]
    run = Ensemble(loaded, domains, source, config, Processes())
    run.check_inputs(inits)
    together = max(1, config.batch_size // run.size)
    out = _Fields(run, source, inits, config)
    record = ensemble_record(loaded, domains, source, config, [origin_of(one) for one in loaded], run.dtype)
    with closing(run.make([inits[i : i + together] for i in range(0, len(inits), together)])) as stream:
        for made in stream:
            out.put(made.group * together, made.lead, made.fields)
    return out.dataset(record)


@dataclass(frozen=True, eq=False)
class _Loaded(ModelFacts):
    """A model in memory."""

    loaded: WeatherViT


def _models(given: Any) -> list[_Loaded]:
    several = isinstance(given, list | tuple)
    for one in given if several else [given]:
        if not hasattr(one, "domain"):
            raise InputError(
                f"the first argument is {given!r} ({type(given).__name__}), no model; give what "
                "weatherfm.load('weights.safetensors') returns"
            )
    if not several:
        return [_Loaded("the model", given.config, given.domain, given.provenance, given)]
    if len({id(one) for one in given}) < len(given) or not given:
        raise InputError("the list of models is empty, or has one of them twice; give each member's model once")
    return [_Loaded(f"model {i}", one.config, one.domain, one.provenance, one) for i, one in enumerate(given)]


def _members(models: Any, members: Any) -> Any:
    """As settings have them; of several models by the names that messages call them."""
    if members is not None and not isinstance(members, int | np.integer):
        raise InputError(
            f"members is a number, got {members!r}; for an ensemble of several weights give a list of models, "
            "[weatherfm.load(path) for path in paths]"
        )
    number = None if members is None else int(members)
    if isinstance(models, list | tuple):
        return {"weights": [f"model {i}" for i in range(len(models))], "each": 1 if number is None else number}
    return number


class _Fields:
    """The forecast as it fills up."""

    def __init__(self, run: Ensemble, states: States, inits: np.ndarray, config: ForecastConfig) -> None:
        self.channels, self.grid, self.states = run.channels, states.grid, states
        self.inits, self.leads, self.numbers = inits, config.lead_times, run.numbers
        self.masks = run.masks
        self.levels = levels_of(self.channels)
        self.values = {}
        for name, channels in variables_of(self.channels).items():
            level = () if None in channels else (len(self.levels),)
            shape = (len(inits), run.size, len(self.leads), *level, *self.grid.shape)
            whole = len(channels) == (level or (1,))[0]
            self.values[name] = np.empty(shape, np.float32) if whole else np.full(shape, np.nan, np.float32)

    def put(self, first: int, lead: int, fields: Any) -> None:
        """Take fields [I, M, C, H, W] from initial time number `first` on."""
        rows = slice(first, first + len(fields))
        lead_time = self.leads[lead]
        require_finite_forecast(fields, self.channels, self.numbers, self.inits[rows], lead_time, self.masks)
        values = fields.cpu().numpy()
        for name, channels in variables_of(self.channels).items():
            for level, channel in channels.items():
                into = self.values[name][rows, :, lead]
                target = into if level is None else into[:, :, self.levels.index(level)]
                target[...] = values[:, :, self.channels.index(channel)]

    def dataset(self, record: dict[str, Any]) -> xr.Dataset:
        """All of it, with coordinates, CF attributes and the record of how it came about."""
        numbers = self.numbers
        member = ("number",) if numbers else ()
        variables = {}
        for name, channels in variables_of(self.channels).items():
            level = () if None in channels else ("level",)
            dims = ("init_time", *member, "lead_time", *level, "latitude", "longitude")
            values = self.values[name] if numbers else self.values[name][:, 0]
            variables[name] = (dims, values, variable_attributes(next(iter(channels.values()))))
        attributes = {
            "Conventions": "CF-1.11",
            "source": f"{MADE_BY} {__version__}",
            "channels": " ".join(self.channels),
            "simulated": "true" if self.states.simulated else "false",
            "provenance": json.dumps(record, sort_keys=True),
        }
        return xr.Dataset(variables, self._coordinates(), attributes)

    def _coordinates(self) -> dict[str, Any]:
        times = self.inits.astype("datetime64[ns]")
        leads = np.array(self.leads, "timedelta64[h]").astype("timedelta64[ns]")
        reference = {"standard_name": "forecast_reference_time", "long_name": "initial time"}
        period = {"standard_name": "forecast_period", "long_name": "lead time"}
        pressure = {"standard_name": "air_pressure", "long_name": "pressure level", "units": "hPa", "positive": "down"}
        found: dict[str, Any] = {
            "init_time": ("init_time", times, reference, _WRITTEN),
            "lead_time": ("lead_time", leads, period),
            "latitude": ("latitude", self.grid.latitude, {"standard_name": "latitude", "units": "degrees_north"}),
            "longitude": ("longitude", self.grid.longitude, {"standard_name": "longitude", "units": "degrees_east"}),
            "valid_time": (("init_time", "lead_time"), times[:, None] + leads, {"standard_name": "time"}, _WRITTEN),
        }
        if self.levels:
            found["level"] = ("level", self.levels, pressure)
        if self.numbers:
            found["number"] = ("number", list(self.numbers), {"standard_name": "realization"})
        return found
