"""Forecasts onto disk, from Python: in this process, or on processes of its own."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.source_config import FilesSource
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.errors import InputError
from weatherfm.evaluation import forecast
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.arguments import Span, init_text, lead_times_text, span_text
from weatherfm.evaluation.forecasting.init_times import require_test_days
from weatherfm.evaluation.forecasting.weights_files import require_listed
from weatherfm.face.arguments import count, listed, path_text
from weatherfm.face.launching import require_done
from weatherfm.face.runs import Override, RunLike, given_sections, is_run, on_command_line, read_run, refuse_set_twice
from weatherfm.home import expanded
from weatherfm.model.adapter import ADAPTER
from weatherfm.training.checkpoints.export import weights_path
from weatherfm.training.run_config import ParallelConfig

_SETTING = re.compile(r"[a-z_]+(\.\w+)+=")
"""How one begins."""


def write_forecast(
    source: RunLike,
    *overrides: Override,
    store: str | os.PathLike[str] | None = None,
    init: str | datetime | np.datetime64 | Iterable[Any] | None = None,
    lead: Span | Iterable[Span] | None = None,
    rollout: Span | None = None,
    output: str | os.PathLike[str] | None = None,
    devices: int | None = None,
    allow_missing: bool = False,
    base: str | os.PathLike[str] | None = None,
    members: int | str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
) -> Path:
    """Forecast from trained weights into Zarr, in WeatherBench2's layout: what `weatherfm forecast` does.

        path = weatherfm.write_forecast("my_run.yaml", init="2018-10", lead=["24h", "72h"])
        weatherfm.open_forecast(path)  # an xarray.Dataset, read when asked for

    Memory does not grow with it; interrupted, the same call goes on. `weatherfm.forecast` makes one in memory.

    Args:
        source: a run (its YAML file, a dict, settings of `weatherfm.read_run`), or a weights file (with `store`).
        overrides: settings to change, each as "section.key=value" or {"section.key": value}; of weights only
            `forecast.*` and `parallel.*`.
        store: with the initial states, or NetCDF, GRIB or Zarr files (a path or a pattern); without it, the run's.
        init: initial times: an hour as "2018-10-01T06", days as "2018-10-01/2018-10-31" or "2018", times, a list of
            them, or "latest". Without it those of the store's test period that can be scored; of files the latest.
        lead: lead times as "24h", ["6h", "24h"], "24h..365d/24h", or spans of time; without it, those of the settings.
        rollout: feed steps of this length back into the model instead of one step a lead time, as "24h".
        output: folder to write; without it, forecast.zarr beside the weights.
        devices: start so many processes here, one for each GPU, or on CPU cores. Each makes other initial times; where
            the section `parallel` splits the model, they hold it together.
        allow_missing: forecast also from states that lack channels of the model, which are predicted like the others.
        base: weights that an `adapter.safetensors` started from; those of a run are named in its settings.
        members: make an ensemble: of so many, or of these weights files, patterns or folders of runs.

    Returns:
        The folder: dims time, prediction_timedelta, latitude, longitude, with level and number, in canonical units.

    Raises:
        InputError: settings that are wrong, states that do not fit or are missing, or a folder that holds something
            else. Processes of its own have told on stderr which it was.
        OutsideError: a process failed, or the network.
    """
    asked = Asked(
        source,
        overrides,
        _path(store, "store"),
        None if init is None else init_text(init),
        None if lead is None else lead_times_text(lead),
        None if rollout is None else span_text(rollout),
        _path(output, "output"),
        count(devices, "devices"),
        allow_missing,
        _path(base, "base"),
        None if members is None else _member_texts(members),
    )
    path, status = carry_out(asked)
    require_done(status, "forecasting")
    return path


def _path(given: Any, what: str) -> str | None:
    return None if given is None else path_text(given, what)


def _member_texts(given: Any) -> list[str]:
    if isinstance(given, Integral) and not isinstance(given, bool):
        return [str(given)]
    return [path_text(one, "a member") for one in listed(given, "members")]


@dataclass(frozen=True)
class Asked:
    """What the command line says, or a call."""

    source: RunLike
    overrides: tuple[Override, ...]
    store: str | None
    init: str | None
    lead: Sequence[Any] | None
    rollout: Any
    output: str | None
    devices: int | None
    allow_missing: bool = False
    base: str | None = None
    members: Sequence[str] | None = None

    def named(self) -> dict[str, Any]:
        """Options that take one value."""
        named = {"--store": self.store, "--init": self.init, "--rollout": self.rollout, "--output": self.output}
        return named | {"--base": self.base}

    def leads(self) -> list[Any]:
        """Lead times, those with commas taken apart; what is no text is left for the settings to refuse."""
        parts = [lead.split(",") if isinstance(lead, str) else [lead] for lead in self.lead or ()]
        return [part.strip() if isinstance(part, str) else part for listed in parts for part in listed]

    def spans(self) -> list[Override]:
        """Options that a run's mode has to go with, as its settings; those of its file may not."""
        given = {"forecast.lead_times": self.leads()} if self.lead else {}
        given |= {"forecast.rollout_step": self.rollout} if self.rollout else {}
        return [given] if given else []

    def require_values(self) -> None:
        """Refuse options that are there and say nothing, as of an unset variable of a script.

        Raises:
            InputError: naming the option.
        """
        empty = [name for name, value in self.named().items() if value is not None and not str(value).strip()]
        if self.lead is not None and not all([self.lead, *self.leads()]):
            empty.append("--lead")
        if self.members is not None and not all([self.members, *(name.strip() for name in self.members)]):
            empty.append("--members")
        if settings := [name for name in self.members or () if _SETTING.match(name) and not Path(name).exists()]:
            raise InputError(
                f"--members takes {settings[0]} for weights; write settings before it, behind the weights or the run"
            )
        if empty:
            raise InputError(f"{', '.join(empty)} has no value; give one, or leave the option out")

    def require_said_once(self) -> None:
        """Refuse options whose settings follow the source as well.

        Raises:
            InputError: naming both.
        """
        told = {"--init": self.init, "--lead": self.lead, "--rollout": self.rollout, "--members": self.members}
        settings = dict(zip(told, ("init", "lead_times", "rollout_step", "members"), strict=True))
        refuse_set_twice(self.overrides, {f"forecast.{settings[key]}": key for key, value in told.items() if value})

    def options(self) -> list[str]:
        """The same for one of several processes."""
        options = [f"{name}={value}" for name, value in self.named().items() if value is not None]
        options += ["--allow-missing"] if self.allow_missing else []
        options += [f"--members={name}" for name in self.members or ()]
        return [*options, *(f"--lead={lead}" for lead in self.leads())]


@dataclass(frozen=True)
class _Order:
    """A forecast to make: from which weights and states, how, and where to."""

    weights: Path
    place: str
    forecast: ForecastConfig
    parallel: ParallelConfig
    output: Path
    rules: dict[str, Any] | None = None
    """How files are read, where a run's file tells; else the weights do."""
    base: Path | None = None
    """Weights that an adapter belongs to."""


def carry_out(asked: Asked) -> tuple[Path, int]:
    """Make the forecast here, or on processes of its own; where it is, and the status these ended with.

    Raises:
        InputError: settings that are wrong or miss something.
    """
    asked.require_values()
    asked.require_said_once()
    order = _order(asked)
    _require_processes(asked, order.parallel)
    if asked.devices is not None:
        return order.output, _launch(asked, order, asked.devices)
    if "RANK" in os.environ:  # torchrun has started others beside this process
        from weatherfm.training.forecast_on_ranks import forecast_together

        forecast_together(
            order.weights, order.place, order.forecast, order.parallel, order.output, order.rules, order.base
        )
    else:
        forecast.forecast(order.weights, order.place, order.forecast, order.output, order.rules, order.base)
    return order.output, 0


def _launch(asked: Asked, order: _Order, devices: int) -> int:
    from weatherfm.training.ranks.launch import launch, require_devices

    require_devices(devices, 0, order.forecast.device, "forecast.device")
    debug = ["--debug"] if logging.getLogger().isEnabledFor(logging.DEBUG) else []
    with on_command_line(asked.source, asked.overrides) as arguments:
        program = [sys.executable, "-P", "-m", "weatherfm.cli", "forecast"]
        return launch([*program, *arguments, *asked.options(), *debug], devices)


def _order(asked: Asked) -> _Order:
    place: str | None
    rules, base = None, None if asked.base is None else expanded(asked.base)
    if is_run(asked.source):
        run = read_run(asked.source, *asked.overrides, *asked.spans())
        weights, place = weights_path(run), asked.store or run.data.store
        if base is None and weights.name == ADAPTER and run.training.start_from is not None:
            base = expanded(run.training.start_from.weights)
        given, parallel = run.forecast.model_dump(mode="json"), run.parallel
        given |= {"storage_options": run.forecast.storage_options}  # no dump has them
        rules = run.data.source.reading_rules if isinstance(run.data.source, FilesSource) else None
    else:
        weights, place = _weights(asked.source), asked.store
        sections = given_sections(str(weights), asked.overrides, "weights", ("forecast", "parallel"))
        given = sections["forecast"]
        parallel = parse_settings(ParallelConfig, sections["parallel"], "parallel")
    if place is None:
        raise InputError(f"{weights} holds weights, no data; say where initial states are with --store")
    given |= {"lead_times": asked.leads()} if asked.lead else {}
    rolled = "mean" if given.get("mode") == "mean" else "rollout"
    given |= {"mode": rolled, "rollout_step": asked.rollout} if asked.rollout else {}
    given |= {"init": asked.init} if asked.init else {}
    given |= {"allow_missing": asked.allow_missing} if asked.allow_missing else {}
    given |= {"members": list(asked.members)} if asked.members else {}
    wanted = parse_settings(ForecastConfig, given, "forecast")
    if not is_run(asked.source):
        require_listed(weights, wanted)
    elif wanted.members is None or not wanted.members.weights:
        _require_own(weights)
    if is_run(asked.source) and wanted.init is None and asked.store is None:
        require_test_days(run.data.parts()[0][2].test, open_store(place))
    output = Path(asked.output) if asked.output else weights.parent / "forecast.zarr"
    return _Order(weights, place, wanted, parallel, expanded(output), rules, base)


def _require_own(weights: Path) -> None:
    """Refuse a run that has weights of its trainings by seed alone, where none of them is named.

    Raises:
        InputError: with what to name.
    """
    if not weights.is_file() and (seeds := sorted(weights.parent.glob(f"seed*/{weights.name}"))):
        raise InputError(
            f"no weights file {weights}, and {len(seeds)} of trainings by seed; forecast with all of them (--members "
            f"{weights.parent}), or with one (run={seeds[0].parent})"
        )


def _weights(source: Any) -> Path:
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            f"a forecast is made from a run or a weights file, got {type(source).__name__}; weatherfm.forecast takes "
            "loaded models"
        )
    return Path(source)


def _require_processes(asked: Asked, parallel: ParallelConfig) -> None:
    """Refuse to split a model that one process holds, where the command line asks for it.

    What a run's file says of its training is no such wish: any layout's weights forecast on one device.

    Raises:
        InputError: with the number of processes it takes.
    """
    processes = asked.devices if asked.devices is not None else int(os.environ.get("WORLD_SIZE", "1"))
    wanted = parallel.tp * (parallel.dp_shard or 1) * parallel.dp_replicate
    told = [text for override in asked.overrides for text in _settings_in(override) if _is_of_parallel(text)]
    if told and wanted > 1 and processes == 1:
        raise InputError(
            f"{', '.join(told)} splits the work over {wanted} processes, and there is one; add --devices {wanted}, or "
            "start under torchrun"
        )


def _settings_in(override: Override) -> Sequence[str]:
    return [override] if isinstance(override, str) else [f"{key}={value}" for key, value in override.items()]


def _is_of_parallel(override: str) -> bool:
    return override.split("=")[0].split(".")[0].strip() == "parallel"
