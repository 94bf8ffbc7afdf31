"""Which days the weights behind a forecast have learned from, through all generations: none of them may be scored."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from pydantic import ValidationError

from weatherfm.data_pipeline.store.training_store import EARTH, Store
from weatherfm.data_pipeline.store_config import Days
from weatherfm.errors import InputError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Learned:
    """Training days of one generation."""

    days: Days
    world: str
    """Whose weather it was (`Store.world`)."""
    generation: int
    """0: the weights themselves; 1: those that they started from, and so on."""


def refuse_days_of_weights(valid: np.ndarray, store: Store, forecasts: Mapping[str, Mapping[str, Any]]) -> None:
    """Weights must not have learned from the days that are scored, nor those that they started from.

    Days of another world say nothing: each seed of the simulated planet is one. Weights that do not tell are believed.

    Args:
        valid: [n] datetime64, the times to score.
        store: the truth.
        forecasts: name -> provenance of each forecast.

    Raises:
        InputError: a generation of a forecast's weights was trained on some of these times.
    """
    for name, provenance in forecasts.items():
        for learned in _of_all(provenance.get("training") or {}):
            known = learned.days.contains(valid)
            if learned.world == store.world and known.any():
                whose = "its weights were" if not learned.generation else f"weights {_before(learned)} were"
                raise InputError(
                    f"{known.sum()} of {len(valid)} times to score, the first {valid[known][0]}, are days that {whose} "
                    f"trained on ({learned.days}): the scores of {name} would be too good; forecast other days"
                )


def _of_all(training: Mapping[str, Any] | Sequence[Mapping[str, Any] | None]) -> Iterator[Learned]:
    """Of one weights file, or of those of an ensemble."""
    for told in [training] if isinstance(training, Mapping) else training:
        yield from generations(told or {})


def generations(provenance: Mapping[str, Any]) -> Iterator[Learned]:
    """Training days of weights, and of those that they started from, as far as they tell."""
    number, told = 0, cast("Mapping[str, Any] | None", provenance)
    while told:
        for store in told.get("mix") or [told.get("store") or {}]:
            days = _days(store.get("train") or told.get("settings", {}).get("data", {}).get("train"))
            world = store.get("world") or (EARTH if store.get("simulated") is False else None)
            if days is not None and world is not None:
                yield Learned(days, world, number)
        told, number = (told.get("started_from") or {}).get("provenance"), number + 1


def _days(told: Any) -> Days | None:
    try:
        return None if told is None else Days.model_validate(told)
    except ValidationError:
        _log.warning(
            "weights tell of training days that this version cannot read, and days they know may be scored: %s", told
        )
        return None


def _before(learned: Learned) -> str:
    return "that they started from" if learned.generation == 1 else f"{learned.generation} generations before"
