"""Where several models forecast from: states and initial times that fit each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from weatherfm.data_pipeline.store.states import States, as_states, require_fit
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.init_times import choose_init_times
from weatherfm.evaluation.forecasting.members import warn_of_no_noise
from weatherfm.evaluation.forecasting.missing_channels import cure_of, warn_of_missing
from weatherfm.evaluation.forecasting.model_facts import ModelFacts, input_times_of, inputs_of
from weatherfm.evaluation.forecasting.open_states import open_place, require_read_alike
from weatherfm.evaluation.forecasting.trained_steps import warn_of_untrained


def open_shared(
    models: Sequence[ModelFacts],
    place: Any,
    config: ForecastConfig,
    rules: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    speak: bool = True,
) -> tuple[States, np.ndarray]:
    """States that all of some models can start from, and the initial times that have those of each.

    Args:
        models: by what is known of them.
        place: as of `open_place`.
        config: initial and lead times among others.
        rules: how files are read; without it, as the weights tell.
        storage_options: what opens a private store by its address.
        speak: warn of what is forecast all the same.

    Raises:
        InputError: states that do not fit a model, or initial times without states.
    """
    first, inputs, told = models[0], inputs_of(models), [one.provenance for one in models]
    cure = cure_of(config, first.provenance)
    opened = open_place(place, inputs, first.provenance, rules, storage_options, cure)
    if isinstance(opened, Store):
        for one in models[1:]:
            open_place(opened, one.roles.inputs, one.provenance)  # its fields are what this one knows by their names
    elif len(models) > 1 and not isinstance(place, States):
        require_read_alike(told, inputs, rules)
    states = as_states(opened)
    for one in models:
        require_fit(one.domain.grid, one.roles.inputs, states, cure)
    inits = choose_init_times(opened, config, input_times_of(models), speak)
    if speak:
        warn_of_untrained(config, *told)
        warn_of_missing(inputs, states, *told)
        warn_of_no_noise([one.model.noise for one in models], states, config)
    return states, inits
