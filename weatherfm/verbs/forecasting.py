"""The verb `forecast`: what was asked, put together, and the processes that do it."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weatherfm.errors import InputError
from weatherfm.verbs.run import is_run, load, say, settings

if TYPE_CHECKING:
    from weatherfm.evaluation.config import ForecastConfig
    from weatherfm.training.layout import ParallelConfig


@dataclass(frozen=True)
class Asked:
    """What the command line says."""

    source: Path
    overrides: tuple[str, ...]
    store: str | None
    init: str | None
    lead: list[str]
    rollout: str | None
    output: Path | None
    devices: int | None

    def command(self) -> list[str]:
        """The same for one of several processes."""
        named = {"--store": self.store, "--init": self.init, "--rollout": self.rollout, "--output": self.output}
        options = [f"{name}={value}" for name, value in named.items() if value is not None]
        options += [f"--lead={lead}" for lead in self.lead]
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


def run_forecast(asked: Asked) -> int:
    """Make the forecast here, or on processes of its own; the status to end with.

    Raises:
        InputError: settings that are wrong or miss something.
    """
    order = _order(asked)
    if asked.devices is not None:
        from weatherfm.training.ranks.launch import launch, require_devices

        require_devices(asked.devices, 0, order.forecast.device, "forecast.device")
        return launch(asked.command(), asked.devices)
    if "RANK" in os.environ:  # torchrun has started others beside this process
        from weatherfm.training.forecasting import forecast_together

        say(forecast_together(order.weights, order.place, order.forecast, order.parallel, order.output))
        return 0
    from weatherfm.evaluation.forecasting.command import forecast

    say(forecast(order.weights, order.place, order.forecast, order.output))
    return 0


def _order(asked: Asked) -> _Order:
    from weatherfm.evaluation.config import ForecastConfig
    from weatherfm.training.layout import ParallelConfig

    place: str | None
    if is_run(asked.source):
        run = load(asked.source, asked.overrides)
        weights, place = run.folder / "weights.safetensors", asked.store or run.data.store
        given, parallel = run.forecast.model_dump(mode="json"), run.parallel
    else:
        sections = _sections(asked)
        weights, place = asked.source, asked.store
        given, parallel = sections["forecast"], settings(ParallelConfig, sections["parallel"], "parallel")
    if place is None:
        raise InputError(f"{asked.source} holds weights, no data; say where initial states are with --store")
    given |= {"lead_times": asked.lead} if asked.lead else {}
    given |= {"mode": "rollout", "rollout_step": asked.rollout} if asked.rollout else {}
    given |= {"init": asked.init} if asked.init else {}
    wanted = settings(ForecastConfig, given, "forecast")
    return _Order(weights, place, wanted, parallel, asked.output or weights.parent / "forecast.zarr")


def _sections(asked: Asked) -> dict[str, dict[str, Any]]:
    """Settings given with a weights file: of the forecast, and of how it is split."""
    from weatherfm.training.config import apply_override

    data: dict[str, Any] = {}
    for override in asked.overrides:
        apply_override(data, override)
    if unknown := [key for key in data if key not in ("forecast", "parallel")]:
        raise InputError(
            f"{asked.source} holds weights: only forecast.* and parallel.* can be set with it, not "
            f"{', '.join(unknown)}; name a run's YAML file to change others"
        )
    return {name: data.get(name, {}) for name in ("forecast", "parallel")}
