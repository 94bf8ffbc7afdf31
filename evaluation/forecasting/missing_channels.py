"""States that lack channels of the model (`forecast.allow_missing`): whether they will do, and what is said of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from weatherfm.data_pipeline.store.states import HAVE_ALL, States, missing_channels
from weatherfm.evaluation.forecast_config import ForecastConfig

_log = logging.getLogger(__name__)


def cure_of(config: ForecastConfig, provenance: Mapping[str, Any]) -> str | None:
    """What to do about missing channels, for `require_fit`; None: forecast without them.

    Args:
        config: of the forecast.
        provenance: of the weights: some have learned to do without.
    """
    if config.allow_missing:
        return None
    return f"{HAVE_ALL}, or without them: --allow-missing (allow_missing=True)" if _learned(provenance) else HAVE_ALL


def warn_of_missing(inputs: Sequence[str], states: States, *provenances: Mapping[str, Any]) -> None:
    """Name the channels, of those that go into some models, each by its provenance, that a forecast does without."""
    if missing := missing_channels(inputs, states):
        _log.warning(
            "%s lacks %s: forecast as if nothing were known of them%s",
            states.name,
            ", ".join(missing),
            ""
            if all(map(_learned, provenances))
            else "; these weights never learned to do without (training.channel_sampling), and such a forecast may be "
            "worth nothing",
        )


def _learned(provenance: Mapping[str, Any]) -> bool:
    share = provenance.get("settings", {}).get("training", {}).get("channel_sampling")
    return share is not None and share < 1
