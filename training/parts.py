"""The stores that a run is trained on, each with the settings of a run on it alone; one, or those of `data.mix`.

Legend: G static field, H lat, W lon.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from weatherfm.data_pipeline.store.training_store import Store, open_store
from weatherfm.earth.domain import Domain
from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.roles import find_roles
from weatherfm.training.run_config import RunConfig


@dataclass(frozen=True, eq=False)
class Part:
    """One store of a run."""

    name: str
    """'' where it is the only one."""
    weight: float
    """Its share of the batches."""
    config: RunConfig
    """The run as if it had this store alone."""
    store: Store

    @property
    def domain(self) -> Domain:
        """Of the run's channels that the store has."""
        return self.store.domain(self.config.data.channels)

    @property
    def sums(self) -> dict[str, float]:
        """Accumulated channel -> hours that it is a sum over."""
        spans = {told["name"]: told.get("accumulation_hours") for told in self.store.manifest["channels"]}
        return {name: spans[name] for name in self.config.data.channels if spans.get(name) is not None}


def open_parts(config: RunConfig) -> list[Part]:
    """Open the stores of a run.

    Raises:
        InputError: a store that is not there or not finished, or channels that a store cannot lack.
    """
    if not config.data.mix:
        store = open_store(config.data.store)
        return [Part("", 1.0, with_own_split(config, store), store)]
    parts = config.data.parts()
    lacking = [name for name, _, data in parts if len(data.channels) < len(config.data.channels)]
    if lacking and config.model.aggregation.kind != "flat":
        raise InputError(
            f"data.mix: {', '.join(lacking)} lack some of data.channels, and model.aggregation.kind hierarchical has "
            "groups of all of them; aggregate flat, or give every store all channels"
        )
    if config.parallel.channels == "whole":
        raise InputError("data.mix cannot be trained with parallel.channels: whole; split them, which is the default")
    total = sum(weight for _, weight, _ in parts)
    opened = [
        (name, weight, _alone(config, data.channels, data), open_store(data.store)) for name, weight, data in parts
    ]
    return [Part(name, weight / total, with_own_split(own, store), store) for name, weight, own, store in opened]


def with_own_split(config: RunConfig, store: Store) -> RunConfig:
    """The run with the validation days of its store, where the source and not the settings kept pictures apart."""
    days = store.periods.get("validation")
    if not store.grid.plane or config.data.validation is not None or days is None:
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"validation": days})})


def _alone(config: RunConfig, channels: Sequence[str], data: object) -> RunConfig:
    return config.model_copy(update={"data": data, "model": model_of(config, channels)})


def model_of(config: RunConfig, channels: Sequence[str]) -> ModelConfig:
    """The architecture of a run for some of its channels, whose roles stay what they are."""
    roles = find_roles(config.model, config.data.channels)
    if roles.inputs == roles.outputs:
        return config.model
    own = {key: [name for name in channels if name in getattr(roles, key)] for key in ("inputs", "outputs")}
    if empty := [key for key, names in own.items() if not names]:
        raise InputError(
            f"data.mix: of {' '.join(channels)} none is among model.{empty[0]}; each store needs one at least"
        )
    return config.model.model_copy(update={k: None if len(v) == len(channels) else v for k, v in own.items()})


def joint_domain(config: RunConfig, parts: Sequence[Part], domains: Sequence[Domain]) -> Domain:
    """The domain of the whole model: all channels and constant fields, on the grid of the first store.

    Statistics of a channel are those of the first store that has it. Constant fields that the first store lacks are
    zero here, and its masks are the only ones: the whole is never computed on.

    Args:
        config: of the run.
        parts: its stores.
        domains: of each.

    Raises:
        InputError: channels on different scales or summed over other spans, or spreads over other lead times.
    """
    first = domains[0]
    if len(parts) == 1:
        return first
    _require_alike(parts, domains)
    owner = {name: next(d for d in domains if name in d.channels) for name in config.data.channels}

    def gathered(of: Callable[[Domain], np.ndarray]) -> np.ndarray:
        return np.array([of(domain)[domain.channels.index(name)] for name, domain in owner.items()])

    def spread_over(lead: int) -> np.ndarray:
        return gathered(lambda domain: domain.tendency_std_by_lead[lead])

    statics = tuple(dict.fromkeys(name for domain in domains for name in domain.static_names))
    fields = np.zeros((len(statics), *first.grid.shape), np.float32)
    for row, name in enumerate(statics):
        if name in first.static_names:
            fields[row] = first.static[first.static_names.index(name)]
    return replace(
        first,
        channels=tuple(config.data.channels),
        mean=gathered(lambda d: d.mean),
        std=gathered(lambda d: d.std),
        tendency_std=gathered(lambda d: d.tendency_std),
        static_names=statics,
        static=fields,
        log_scales={name: scale for d in reversed(domains) for name, scale in d.log_scales.items()},
        tendency_std_by_lead={lead: spread_over(lead) for lead in first.tendency_std_by_lead},
        stores=tuple(domain.channels for domain in domains),
    )


def _lead(part: Part) -> int:
    return int(part.store.manifest["tendency"]["lead_hours"])


def _require_alike(parts: Sequence[Part], domains: Sequence[Domain]) -> None:
    scales: dict[str, tuple[str, float | None]] = {}
    spans: dict[str, tuple[str, float]] = {}
    for part, domain in zip(parts, domains, strict=True):
        for name, hours in part.sums.items():
            known = spans.setdefault(name, (part.name, hours))
            if known[1] != hours:
                raise InputError(
                    f"data.mix: {name} is a sum over {hours:g}h in {part.name} and over {known[1]:g}h in {known[0]}; "
                    "set data.accumulation alike, and prepare one of them anew"
                )
        for name in domain.channels:
            held = scales.setdefault(name, (part.name, domain.log_scales.get(name)))
            if held[1] != domain.log_scales.get(name):
                raise InputError(
                    f"data.mix: {name} is on another scale in {part.name} than in {held[0]} (data.transforms); prepare "
                    "one of them anew"
                )
        if (lead := _lead(part)) != _lead(parts[0]):
            raise InputError(
                f"data.mix: changes are measured over {lead}h in {part.name} and over {_lead(parts[0])}h in "
                f"{parts[0].name} (data.tendency_lead); prepare one of them anew"
            )
        if sorted(domain.tendency_std_by_lead) != sorted(domains[0].tendency_std_by_lead):
            raise InputError(
                f"data.mix: {part.name} and {parts[0].name} know the spread of changes over other lead times "
                "(data.tendency_leads); prepare one of them anew"
            )
