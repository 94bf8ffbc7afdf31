"""What the verb `forecast` does in one process: from paths to a path.

Needs torch, numpy, tensorstore and safetensors where states are in a store, as clusters have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weatherfm.data_pipeline.store.states import States
from weatherfm.device import choose_device
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.on_disk import make_forecast
from weatherfm.evaluation.forecasting.shared_states import open_shared
from weatherfm.evaluation.forecasting.weights_files import WeightsFile, open_weights_files, require_different
from weatherfm.model.loading import load_weights


@dataclass(frozen=True, eq=False)
class Task:
    """A forecast that can be made: weights, states and settings fit together."""

    models: tuple[WeightsFile, ...]
    """One, or those of an ensemble in the order of its members."""
    states: States
    settings: ForecastConfig
    init_times: np.ndarray
    """datetime64[s], ascending."""

    def origins(self) -> list[dict[str, Any]]:
        """What the forecast says about its weights.

        Raises:
            InputError: two files of the same weights, whose members would be the same.
        """
        found = [one.origin() for one in self.models]
        require_different(self.models, [one["weights_sha256"] for one in found], self.settings)
        return found


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
        weights: file; of no effect where `settings.members` names weights.
        place: store or file with the states.
        settings: initial times, lead times and members among them.
        speak: warn of what is forecast all the same.
        rules: how files are read; without it, as the weights tell.
        base: weights that an adapter belongs to.

    Raises:
        InputError: what cannot be: no weights, an adapter without its base, members that do not fit together, states
            that do not fit them, or initial times without states.
    """
    models = open_weights_files(weights, settings, base)
    states, init_times = open_shared(models, place, settings, rules, settings.storage_options, speak)
    return Task(models, states, settings, init_times)


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
    models = [load_weights(one.path, device, one.base) for one in task.models]
    return make_forecast(models, task.states, task.init_times, settings, output, task.origins())
