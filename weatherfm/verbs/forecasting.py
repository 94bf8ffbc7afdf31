"""The verb `forecast`: what was asked, put together, and the processes that do it."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weatherfm.errors import InputError
from weatherfm.home import expanded
from weatherfm.verbs.run import given_sections, importing, is_run, load, say, settings

if TYPE_CHECKING:
    from weatherfm.evaluation.config import ForecastConfig
    from weatherfm.training.config import ParallelConfig


@dataclass(frozen=True)
class Asked:
    """What the command line says."""

    source: Path
    overrides: tuple[str, ...]
    store: str | None
    init: str | None
    lead: list[str] | None
    rollout: str | None
    output: str | None
    devices: int | None

    def named(self) -> dict[str, str | None]:
        """Options that take one value."""
        return {"--store": self.store, "--init": self.init, "--rollout": self.rollout, "--output": self.output}

    def leads(self) -> list[str]:
        """Lead times, those with commas taken apart."""
        return [part.strip() for lead in self.lead or [] for part in lead.split(",")]

    def require_values(self) -> None:
        """Refuse options that are there and say nothing, as of an unset variable of a script.

        Raises:
            InputError: naming the option.
        """
        empty = [name for name, value in self.named().items() if value is not None and not value.strip()]
        if self.lead is not None and not all([self.lead, *self.leads()]):
            empty.append("--lead")
        if empty:
            raise InputError(f"{', '.join(empty)} has no value; give one, or leave the option out")

    def command(self) -> list[str]:
        """The same for one of several processes."""
        options = [f"{name}={value}" for name, value in self.named().items() if value is not None]
        options += [f"--lead={lead}" for lead in self.leads()]
        debug = ["--debug"] if logging.getLogger().isEnabledFor(logging.DEBUG) else []
        program = [sys.executable, "-P", "-m", "weatherfm.cli", "forecast"]
        return [*program, str(self.source), *self.overrides, *options, *debug]


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


def run_forecast(asked: Asked) -> int:
    """Make the forecast here, or on processes of its own; the status to end with.

    Raises:
        InputError: settings that are wrong or miss something.
    """
    asked.require_values()
    order = _order(asked)
    _require_processes(asked, order.parallel)
    if asked.devices is not None:
        with importing():
            from weatherfm.training.ranks.launch import launch, require_devices

        require_devices(asked.devices, 0, order.forecast.device, "forecast.device")
        return launch(asked.command(), asked.devices)
    if "RANK" in os.environ:  # torchrun has started others beside this process
        with importing():
            from weatherfm.training.forecast_on_ranks import forecast_together

        say(forecast_together(order.weights, order.place, order.forecast, order.parallel, order.output, order.rules))
        return 0
    with importing():
        from weatherfm.evaluation.forecast import forecast

    say(forecast(order.weights, order.place, order.forecast, order.output, order.rules))
    return 0


def _order(asked: Asked) -> _Order:
    with importing():
        from weatherfm.data_pipeline.source_config import FilesSource
        from weatherfm.evaluation.config import ForecastConfig
        from weatherfm.training.config import ParallelConfig

    place: str | None
    rules = None
    if is_run(asked.source):
        run = load(asked.source, asked.overrides)
        weights, place = run.folder / "weights.safetensors", asked.store or run.data.store
        given, parallel = run.forecast.model_dump(mode="json"), run.parallel
        given |= {"storage_options": run.forecast.storage_options}  # no dump has them
        rules = run.data.source.reading_rules if isinstance(run.data.source, FilesSource) else None
    else:
        sections = given_sections(str(asked.source), asked.overrides, "weights", ("forecast", "parallel"))
        weights, place = asked.source, asked.store
        given, parallel = sections["forecast"], settings(ParallelConfig, sections["parallel"], "parallel")
    if place is None:
        raise InputError(f"{asked.source} holds weights, no data; say where initial states are with --store")
    given |= {"lead_times": asked.leads()} if asked.lead else {}
    given |= {"mode": "rollout", "rollout_step": asked.rollout} if asked.rollout else {}
    given |= {"init": asked.init} if asked.init else {}
    wanted = settings(ForecastConfig, given, "forecast")
    output = Path(asked.output) if asked.output else weights.parent / "forecast.zarr"
    return _Order(weights, place, wanted, parallel, expanded(output), rules)


def _require_processes(asked: Asked, parallel: ParallelConfig) -> None:
    """Refuse to split a model that one process holds, where the command line asks for it.

    What a run's file says of its training is no such wish: any layout's weights forecast on one device.

    Raises:
        InputError: with the number of processes it takes.
    """
    processes = asked.devices if asked.devices is not None else int(os.environ.get("WORLD_SIZE", "1"))
    wanted = parallel.tp * (parallel.dp_shard or 1) * parallel.dp_replicate
    told = [override for override in asked.overrides if override.split("=")[0].split(".")[0].strip() == "parallel"]
    if told and wanted > 1 and processes == 1:
        raise InputError(
            f"{', '.join(told)} splits the work over {wanted} processes, and there is one; add --devices {wanted}, or "
            "start under torchrun"
        )
