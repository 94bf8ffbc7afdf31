"""What a model was trained for: a forecast of other steps is made, and says so."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from weatherfm.config import Hours
from weatherfm.errors import some_of
from weatherfm.evaluation.forecast_config import ForecastConfig

_log = logging.getLogger(__name__)
_SHOWN = 12


def untrained_steps(config: ForecastConfig, provenance: Mapping[str, Any]) -> list[int]:
    """Hours of the model's steps that it has not seen in training; none where its weights do not tell.

    Args:
        config: lead times and mode of the forecast.
        provenance: of the weights.
    """
    trained = _trained(provenance)
    return [hours for hours in config.model_steps if hours not in trained] if trained else []


def warn_of_untrained(config: ForecastConfig, *provenances: Mapping[str, Any]) -> None:
    """Say, once, which steps of a forecast its models, each by its provenance, have not seen in training."""
    said = dict.fromkeys(
        (_named(odd), _named(sorted(_trained(told)))) for told in provenances if (odd := untrained_steps(config, told))
    )
    for steps, known in said:
        _log.warning(
            "the model was not trained for steps of %s, only of %s: such forecasts may be worth nothing; train on "
            "them, or roll out in steps it knows",
            steps,
            known,
        )


def _trained(provenance: Mapping[str, Any]) -> set[int]:
    settings = provenance.get("settings", {}).get("training", {})
    return set(TypeAdapter(list[Hours]).validate_python(settings.get("lead_times", [])))


def _named(hours: Sequence[int]) -> str:
    return some_of([f"{h}h" for h in hours], _SHOWN)
