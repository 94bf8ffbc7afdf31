"""What the verb `forecast` does in one process: from paths to a path.

Needs torch, numpy, tensorstore and safetensors where states are in a store, as clusters have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weatherfm.data_pipeline.store.states import States, as_states, require_fit
from weatherfm.device import choose_device
from weatherfm.earth.domain import Domain
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.init_times import choose_init_times
from weatherfm.evaluation.forecasting.missing_channels import cure_of, warn_of_missing
from weatherfm.evaluation.forecasting.on_disk import make_forecast
from weatherfm.evaluation.forecasting.open_states import open_place
from weatherfm.evaluation.forecasting.trained_steps import warn_of_untrained
from weatherfm.model.adapter import open_weights
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.loading import load_weights
from weatherfm.model.roles import find_roles
from weatherfm.model.weights import read_header, weights_hash


@dataclass(frozen=True, eq=False)
class Task:
    """A forecast that can be made: weights, states and settings fit together."""

    weights: Path
    states: States
    settings: ForecastConfig
    model: ModelConfig
    domain: Domain
    provenance: dict[str, Any]
    """Of the weights."""
    init_times: np.ndarray
    """datetime64[s], ascending."""
    base: Path | None = None
    """Weights that an adapter belongs to."""

    def origin(self) -> dict[str, Any]:
        """What the forecast says about its weights."""
        return {"weights_sha256": weights_hash(self.weights), "training": self.provenance}


def open_task(
    weights: Path,
    place: str | Path,
    settings: ForecastConfig,
    speak: bool = True,
    rules: Mapping[str, Any] | None = None,
    base: Path | None = None,
) -> Task:
    """Look at everything a forecast needs; reads headers alone.

    Args:
        weights: file.
        place: store or file with the states.
        settings: initial and lead times among them.
        speak: warn of what is forecast all the same.
        rules: how files are read; without it, as the weights tell.
        base: weights that an adapter belongs to.

    Raises:
        InputError: what cannot be: no weights, an adapter without its base, states that do not fit them, or initial
            times without states.
    """
    model, domain, provenance = read_header(weights)
    with open_weights(weights, base):
        pass  # both are there, and go together
    cure = cure_of(settings, provenance)
    inputs = find_roles(model, domain.channels).inputs
    opened = open_place(place, inputs, provenance, rules, settings.storage_options, cure)
    states = as_states(opened)
    require_fit(domain.grid, inputs, states, cure)
    init_times = choose_init_times(opened, settings, model.input_times, speak)
    if speak:
        warn_of_untrained(settings, provenance)
        warn_of_missing(inputs, states, provenance)
    return Task(weights, states, settings, model, domain, provenance, init_times, base)


def forecast(
    weights: Path,
    place: str | Path,
    settings: ForecastConfig,
    output: Path,
    rules: Mapping[str, Any] | None = None,
    base: Path | None = None,
) -> Path:
    """Forecast with trained weights, an adapter's with those of its `base`; returns where the forecast is."""
    device = choose_device(settings.device, "forecast.device")
    task = open_task(weights, place, settings, rules=rules, base=base)
    model = load_weights(weights, device, base)
    return make_forecast(model, task.states, task.init_times, settings, output, task.origin())
