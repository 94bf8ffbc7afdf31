"""What a run begins with: its domain, and its weights, initial or somebody's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.earth.domain import Domain
from weatherfm.errors import InputError
from weatherfm.model.model import WeatherViT
from weatherfm.training.parallel.build_model import fill_initial
from weatherfm.training.run_config import RunConfig
from weatherfm.training.starting.donor import Donor, find_donor
from weatherfm.training.starting.fill import fill_from
from weatherfm.training.starting.matching import Match, match
from weatherfm.training.starting.statistics import with_statistics_of


@dataclass(frozen=True, eq=False)
class RunStart:
    """Of one run."""

    config: RunConfig
    domain: Domain
    """Of the whole model."""
    donor: Donor | None = None
    match: Match | None = None

    def lines(self) -> list[str]:
        """What becomes of each row, for people; nothing to say of initial values."""
        if self.donor is None or self.match is None:
            return []
        return [f"starting from {self.donor.path}", *self.match.lines()]

    def fill(self, model: WeatherViT, alive: Callable[[], None] = lambda: None) -> None:
        """Set this rank's parts of all weights."""
        seed = self.config.training.seed
        if self.donor is None or self.match is None:
            fill_initial(model, seed, alive)
        else:
            fill_from(model, self.donor, self.match, seed, alive)

    def freeze(self, model: nn.Module) -> None:
        """Let the parts that shall not learn have no gradients.

        Raises:
            InputError: a name that no weight has, or nothing that would learn.
        """
        settings = self.config.training.start_from
        frozen = [] if settings is None else settings.freeze
        if idle := [part for part in frozen if not any(_belongs(name, part) for name, _ in model.named_parameters())]:
            parts = sorted({name.partition(".")[0] for name, _ in model.named_parameters()})
            raise InputError(
                f"start_from.freeze names {', '.join(idle)}, which no weight's name starts with; there are "
                f"{', '.join(parts)}, and blocks by number (blocks.0)"
            )
        for name, parameter in model.named_parameters():
            if any(_belongs(name, part) for part in frozen):
                parameter.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise InputError("start_from.freeze leaves nothing to learn; leave some parts out of it")

    def identity(self) -> dict[str, Any] | None:
        """For checkpoints: what a resumed run must have started from; None where that are initial values."""
        settings = self.config.training.start_from
        return None if settings is None or self.donor is None else {"sha256": self.donor.sha256, **settings.record()}

    def provenance(self) -> dict[str, Any]:
        """For weights: what they were made of, through all generations; empty where that are initial values."""
        known = self.identity()
        if known is None or self.donor is None:
            return {}
        return {"started_from": {**known, "provenance": dict(self.donor.provenance)}}


def find_start(config: RunConfig, store: Store) -> RunStart:
    """What a run starts from; reads no weights.

    Raises:
        InputError: weights that cannot be read or do not fit, or channels that the store lacks.
    """
    domain, settings = store.domain(config.data.channels), config.training.start_from
    if settings is None:
        return RunStart(config, domain)
    donor = find_donor(settings.weights, config.model.heads)
    found = match(donor, config.model, domain, settings.new_channels)
    return RunStart(config, with_statistics_of(domain, donor), donor, found)


def _belongs(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")
