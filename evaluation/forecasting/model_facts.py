"""What is known of models before they are built, and which of them can be members of one ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weatherfm.earth.domain import Domain
from weatherfm.errors import InputError
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.backbone_config import is_own
from weatherfm.model.roles import Roles, find_roles


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """A model, by its header."""

    name: str
    """What messages call it."""
    model: ModelConfig
    domain: Domain
    provenance: dict[str, Any]
    """Of its weights."""

    @property
    def roles(self) -> Roles:
        """Channels that go in, and that come out."""
        return find_roles(self.model, self.domain.channels)


def inputs_of(models: Sequence[ModelFacts]) -> tuple[str, ...]:
    """Channels that go into any of some models, each once."""
    return tuple(dict.fromkeys(name for one in models for name in one.roles.inputs))


def input_times_of(models: Sequence[ModelFacts]) -> list[int]:
    """Hours (<= 0) that any of some models wants to see."""
    return sorted({hours for one in models for hours in one.model.input_times})


def require_ensemble(models: Sequence[ModelFacts], config: ForecastConfig) -> None:
    """Refuse members that cannot stand side by side, or that would all be the same.

    Raises:
        InputError: naming the model and what is wrong, also one that reconstructs and does not forecast.
    """
    for one in models:
        _require_forecasts(one)
    if config.members is None:
        _refuse_idle(config)
        return
    if len(models) * config.members.each < 2:
        raise InputError(
            f"forecast.members is {models[0].name} alone, one member, which is a single forecast; name others too, or "
            "ask for 2 members or more of it ({weights: [...], each: 4})"
        )
    for other in models[1:]:
        if what := _difference(models[0], other):
            raise InputError(
                f"{other.name} cannot be a member beside {models[0].name}: {what}; members of an ensemble forecast the "
                "same fields"
            )
    for one in models:
        _require_chance(one, config, config.members.each)


def _require_forecasts(one: ModelFacts) -> None:
    if one.model.reconstruction is not None:
        raise InputError(
            f"{one.name} is a masked autoencoder (training.objective: reconstruct), which forecasts nothing; train a "
            "model that forecasts from it (training.start_from), or let it reconstruct (docs/reconstruction.md)"
        )


def _refuse_idle(config: ForecastConfig) -> None:
    given = [key for key in ("dropout", "perturbation") if getattr(config, key)]
    given += ["noise_scale"] if config.noise_scale != 1 else []
    if given:
        raise InputError(
            f"forecast.{given[0]} makes members of an ensemble differ, and there are none; ask for them (--members 16, "
            "forecast.members), or leave it out"
        )


def _require_chance(one: ModelFacts, config: ForecastConfig, each: int) -> None:
    model = one.model
    if config.dropout and is_own(model.backbone):
        raise InputError(
            f"forecast.dropout: what {model.backbone} of {one.name} drops is not known; leave it out, or make members "
            "by noise (model.noise), perturbation or several weights files"
        )
    if config.dropout and not model.dropout and not (model.drop_path and model.depth > 1):
        raise InputError(
            f"forecast.dropout: {one.name} was trained with neither dropout nor drop_path, and has nothing to drop; "
            "leave it out, or train with one of them (model.dropout, model.drop_path)"
        )
    if config.noise_scale != 1 and not model.noise:
        raise InputError(
            f"forecast.noise_scale is of noise (model.noise), and {one.name} takes none; leave it out, or train with it"
        )
    if each > 1 and not (model.noise or config.dropout or config.perturbation):
        raise InputError(
            f"all {each} members of {one.name} would be the same: it takes no noise (model.noise, trained with "
            "training.loss: crps); name several weights files, or set forecast.dropout or forecast.perturbation"
        )


def _difference(first: ModelFacts, other: ModelFacts) -> str | None:
    """In what the fields that two models forecast differ, in words."""
    if first.domain.grid != other.domain.grid:
        return f"its grid is {other.domain.grid}, not {first.domain.grid}"
    own, theirs = first.roles.outputs, other.roles.outputs
    if absent := [name for name in own if name not in theirs]:
        return f"it does not forecast {', '.join(absent)}"
    if more := [name for name in theirs if name not in own]:
        return f"it forecasts {', '.join(more)} as well"
    for name in own:
        if not np.array_equal(_mask(first, name), _mask(other, name)):
            return f"it has no values of {name} at other points"
    days = [_settings(one).get("daily") for one in (first, other)]
    if days[0] != days[1]:
        words = [f"daily {kind}" if kind else "single times" for kind in days]
        return f"it forecasts {words[1]}, not {words[0]}"
    spans = [one.provenance.get("store", {}).get("accumulation_hours", {}) for one in (first, other)]
    for name in own:
        if name in spans[0] and name in spans[1] and spans[0][name] != spans[1][name]:
            return f"its {name} is a sum over {spans[1][name]:g}h, not {spans[0][name]:g}h"
    return None


def _mask(one: ModelFacts, name: str) -> np.ndarray:
    return np.asarray(one.domain.masks.get(name, np.zeros(one.domain.grid.shape, bool)), bool)


def _settings(one: ModelFacts) -> dict[str, Any]:
    return one.provenance.get("settings", {}).get("data", {})
