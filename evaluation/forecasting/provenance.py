"""What a forecast says about how it came about: all that decides its numbers, and nothing of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from weatherfm import __version__
from weatherfm.data_pipeline.store.states import States, missing_channels
from weatherfm.earth.domain import Domain
from weatherfm.earth.variables import own_variables
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.trained_steps import untrained_steps
from weatherfm.model.model import WeatherViT
from weatherfm.model.roles import find_roles


def record_of(
    model: WeatherViT,
    domain: Domain,
    states: States,
    config: ForecastConfig,
    provenance: Mapping[str, Any],
    dtype: torch.dtype,
) -> dict[str, Any]:
    """JSON-able.

    Args:
        model: that forecasts.
        domain: of the whole model.
        states: where it starts from.
        config: mode and lead times.
        provenance: of the weights, under `training`, and what else is known of them.
        dtype: of matrix products.
    """
    inputs = find_roles(model.config, domain.channels).inputs
    untrained = untrained_steps(config, provenance.get("training", {}))
    return {
        **provenance,
        "code_version": __version__,
        "model": model.config.model_dump(mode="json"),
        "store_source": states.source,
        "simulated": states.simulated,
        "mode": config.mode,
        **({"rollout_step_hours": config.rollout_step} if config.mode == "rollout" else {}),
        **({"inputs": "read"} if config.inputs == "read" else {}),
        **({"precision": str(dtype).removeprefix("torch.")} if dtype != torch.float32 else {}),
        **({"untrained_steps_hours": untrained} if untrained else {}),
        **({"missing_channels": list(missing)} if (missing := missing_channels(inputs, states)) else {}),
        **({"variables": own} if (own := own_variables(domain.channels)) else {}),
        **({"log_scales": dict(scales)} if (scales := domain.log_scales) else {}),
    }


def origin_of(model: WeatherViT) -> dict[str, Any]:
    """What a model in memory tells about its weights; their file is named only while they are as it held them."""
    loaded = getattr(model, "loaded", None)
    known = {"weights_sha256": loaded.sha256} if loaded is not None and loaded.untouched(model) else {}
    return {**known, "training": model.provenance}
