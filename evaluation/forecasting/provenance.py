"""What a forecast says about how it came about: all that decides its numbers, and nothing of the machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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

_OF_WEIGHTS = ("weights_sha256", "training", "model", "log_scales")
"""What each model of an ensemble tells for itself: of several they are lists, in the order of the members."""


def ensemble_record(
    models: Sequence[WeatherViT],
    domains: Sequence[Domain],
    states: States,
    config: ForecastConfig,
    origins: Sequence[Mapping[str, Any]],
    dtype: torch.dtype,
) -> dict[str, Any]:
    """JSON-able; of one model what `record_of` tells, of several with lists of what is each one's own.

    Args:
        models: that forecast.
        domains: of the whole of each.
        states: where they start from.
        config: mode, lead times and members.
        origins: what is known of the weights of each, as `record_of` takes it.
        dtype: of matrix products.
    """
    records = [
        record_of(model, domain, states, config, origin, dtype)
        for model, domain, origin in zip(models, domains, origins, strict=True)
    ]
    record = records[0]
    if len(records) > 1:
        own = {key: [one.get(key) for one in records] for key in _OF_WEIGHTS if any(key in one for one in records)}
        hours = _union(one.get("untrained_steps_hours", []) for one in records)
        missing = _union(one.get("missing_channels", []) for one in records)
        variables = {name: told for one in records for name, told in one.get("variables", {}).items()}
        named = {"untrained_steps_hours": hours, "missing_channels": missing, "variables": variables}
        record = record | own | {key: value for key, value in named.items() if value}
    return record | _members_record([model.config.noise for model in models], states, config)


def _members_record(noise: Sequence[int], states: States, config: ForecastConfig) -> dict[str, Any]:
    """How members came about; that a model which takes noise was given none."""
    told = noise[0] if len(set(noise)) == 1 else list(noise)
    scaled = {"noise_scale": config.noise_scale} if config.noise_scale != 1 else {}
    random: dict[str, Any] = {"seed": config.seed, **({"noise": told} | scaled if any(noise) else {})}
    if config.members is None:
        if not any(noise):
            return {}
        return {"noise": "zeros"} if states.numbers is None else {"members": {"of_states": True, **random}}
    members: dict[str, Any] = {"each": config.members.each, **random}
    members |= {"dropout": True} if config.dropout else {}
    members |= {"perturbation": config.perturbation.model_dump(mode="json")} if config.perturbation else {}
    return {"members": members}


def _union(lists: Iterable[Sequence[Any]]) -> list[Any]:
    return list(dict.fromkeys(item for one in lists for item in one))


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
        **({"rollout_step_hours": config.rollout_step} if config.mode != "direct" else {}),
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
