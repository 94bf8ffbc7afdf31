"""What a run begins with: its domain, and its weights, initial or somebody's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from weatherfm.earth.domain import Domain
from weatherfm.errors import InputError
from weatherfm.model.model import WeatherViT
from weatherfm.model.share import channel_shares, within
from weatherfm.training.parallel.build_model import add_factors, fill_initial
from weatherfm.training.parallel.layout import Layout, check_layout, choose_layout
from weatherfm.training.parts import Part, joint_domain
from weatherfm.training.run_config import RunConfig
from weatherfm.training.start_config import Lora
from weatherfm.training.starting.donor import Donor, find_donor
from weatherfm.training.starting.fill import fill_from
from weatherfm.training.starting.learning import count_learning, freeze
from weatherfm.training.starting.matching import Match, match
from weatherfm.training.starting.statistics import with_statistics_of


@dataclass(frozen=True, eq=False)
class RunStart:
    """Of one run."""

    config: RunConfig
    domain: Domain
    """Of the whole model."""
    domains: tuple[Domain, ...] = ()
    """Of each store."""
    donor: Donor | None = None
    match: Match | None = None

    def lines(self) -> list[str]:
        """What becomes of each row, for people; nothing to say of initial values."""
        if self.donor is None or self.match is None:
            return []
        settings = self.config.training.start_from
        own = settings is not None and settings.statistics == "store"
        learn, there = self.learning()
        how = "" if self.lora is None else f"; {self.lora}"
        counts = f"{'learn':<12}{learn:,} of {there:,} numbers ({learn / there:.1%}{how})"
        return [f"starting from {self.donor.path}", *self.match.lines(own), counts]

    def fill(self, model: WeatherViT, alive: Callable[[], None] = lambda: None) -> None:
        """Set this rank's parts of all weights."""
        seed = self.config.training.seed
        if self.donor is None or self.match is None:
            fill_initial(model, seed, alive)
        else:
            fill_from(model, self.donor, self.match, seed, alive)

    def freeze(self, model: nn.Module) -> None:
        """Let the parts that shall not learn have no gradients (`learning.freeze`).

        Raises:
            InputError: a name that no weight has, or nothing that would learn.
        """
        freeze(model, self.config.training.start_from)

    @property
    def known_blocks(self) -> int | None:
        """How many blocks the weights have; None: these are initial values."""
        return None if self.donor is None else self.donor.config.depth

    @property
    def lora(self) -> Lora | None:
        """What learns in place of the blocks' matrices, if anything does."""
        settings = self.config.training.start_from
        return None if settings is None else settings.lora

    def learning(self) -> tuple[int, int]:
        """How many numbers of the whole model learn, and how many there are.

        Raises:
            InputError: as `freeze`.
        """
        with torch.device("meta"):
            model = WeatherViT(self.config.model, self.domain)
        add_factors(model, self.config, self.known_blocks)
        self.freeze(model)
        return count_learning(model)

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


def find_start(config: RunConfig, parts: Sequence[Part]) -> RunStart:
    """What a run starts from; reads no weights.

    Raises:
        InputError: weights that cannot be read or do not fit, or channels that the store lacks.
    """
    domains, settings = tuple(part.domain for part in parts), config.training.start_from
    if settings is None:
        return RunStart(config, joint_domain(config, parts, domains), domains)
    donor = find_donor(settings.weights, config.model.heads)
    if settings.lora is not None and settings.lora.export == "apart":
        _require_apart(donor, parts)
    if settings.statistics == "weights":
        domains = tuple(with_statistics_of(domain, donor) for domain in domains)
    domain = joint_domain(config, parts, domains)
    return RunStart(config, domain, domains, donor, match(donor, config.model, domain, settings.new_channels))


def _require_apart(donor: Donor, parts: Sequence[Part]) -> None:
    """An adapter is of one model, and belongs to weights of ours."""
    if not donor.is_ours:
        raise InputError(
            f"start_from.lora.export is apart, and {donor.path} is no weights file of ours, to which an adapter could "
            "belong; choose merged"
        )
    if len(parts) > 1:
        raise InputError("start_from.lora.export is apart, and data.mix has weights of each store; choose merged")


def choose_layout_of(start: RunStart, parts: Sequence[Part], devices: int) -> Layout:
    """The layout of a run on so many devices, on which the model can be split for each of its stores.

    Raises:
        InputError: as `choose_layout`, or a device would have no input of some store.
    """
    config = start.config
    size = config.training.batch_size
    layout = choose_layout(config.parallel, devices, config.model, start.domain, size)
    if len(parts) == 1:
        return layout
    shares, times = channel_shares(config.model, start.domain, layout.tp), config.model.input_times
    for part, domain in zip(parts, start.domains, strict=True):
        try:
            check_layout(layout, config.parallel, part.config.model, domain, size)
        except InputError as error:
            raise InputError(f"data.mix, {part.name}: {error}") from None
        if not all(within(share, domain).input_names(times) for share in shares):
            raise InputError(
                f"data.mix: on tp {layout.tp} a device would have no channel, constant field or forcing of "
                f"{part.name}; lower tp, or add to model.forcings"
            )
    return layout
