"""A share of the channels: what one of several models holds that together make up the whole model.

A share owns state channels (with their outputs and their earlier input times), constant fields and forcings. Shares
are disjoint and together hold everything, so that a sum over all channels is a sum over shares. The groups of
hierarchical aggregation are shares as well; every other share is a union of whole groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from weatherfm.earth.domain import Domain
from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig


@dataclass(frozen=True)
class ChannelShare:
    """Names in the order of the domain and the configuration."""

    channels: tuple[str, ...]
    static_names: tuple[str, ...]
    forcings: tuple[str, ...]
    groups: tuple[int, ...] = ()
    """Numbers of the groups of hierarchical aggregation; none in the flat form."""

    def input_names(self, input_times: Sequence[int]) -> list[str]:
        """Input channels in order: the state at each input time (hours), then static fields, then forcings."""
        states = [c if hours == 0 else f"{c}@{hours}h" for hours in input_times for c in self.channels]
        return [*states, *self.static_names, *self.forcings]


def whole(config: ModelConfig, domain: Domain) -> ChannelShare:
    """The share that holds everything."""
    groups = tuple(range(config.aggregation.groups or 0))
    return ChannelShare(tuple(domain.channels), tuple(domain.static_names), tuple(config.forcings), groups)


def input_names(config: ModelConfig, domain: Domain) -> list[str]:
    """Input channels of the whole model in order: the state at each input time, then static fields, then forcings."""
    return whole(config, domain).input_names(config.input_times)


def channel_shares(config: ModelConfig, domain: Domain, count: int) -> list[ChannelShare]:
    """Split everything into `count` shares: neighbouring channels, as evenly as can be, larger shares first.

    Raises:
        InputError: more shares than channels, or a number that does not divide the groups of the model.
    """
    if config.aggregation.kind == "flat":
        return _deal(config, domain, count, "shares")
    groups = channel_groups(config, domain)
    if count < 1 or len(groups) % count:
        good = ", ".join(str(n) for n in range(1, len(groups) + 1) if len(groups) % n == 0)
        raise InputError(f"{len(groups)} channel groups cannot be split into {count} shares; these would work: {good}")
    size = len(groups) // count
    return [_union(config, domain, groups[i * size : (i + 1) * size]) for i in range(count)]


def channel_groups(config: ModelConfig, domain: Domain) -> list[ChannelShare]:
    """The groups of hierarchical aggregation, a property of the model; none in the flat form.

    Raises:
        InputError: more groups than channels, or more sub-groups than a group has inputs.
    """
    settings = config.aggregation
    if settings.groups is None:
        return []
    groups = _deal(config, domain, settings.groups, "aggregation.groups")
    smallest = min(len(group.input_names(config.input_times)) for group in groups)
    if settings.tree > smallest:
        raise InputError(
            f"aggregation.tree {settings.tree} is more than the {smallest} inputs of the smallest of "
            f"{settings.groups} groups; choose at most {smallest}, or fewer groups"
        )
    numbered = [(group.channels, group.static_names, group.forcings, (i,)) for i, group in enumerate(groups)]
    return [ChannelShare(*parts) for parts in numbered]


def group_of_inputs(config: ModelConfig, domain: Domain, share: ChannelShare) -> list[int]:
    """The group that each input of a share belongs to; `domain` is that of the whole model."""
    groups = channel_groups(config, domain)
    owner = {name: g for g in share.groups for name in groups[g].input_names(config.input_times)}
    return [owner[name] for name in share.input_names(config.input_times)]


def balanced(total: int, count: int) -> list[int]:
    """Sizes that add up to `total` and differ by one at most, larger first: 10 over 4 is [3, 3, 2, 2]."""
    return [total // count + (i < total % count) for i in range(count)]


def _deal(config: ModelConfig, domain: Domain, count: int, what: str) -> list[ChannelShare]:
    """Neighbouring channels to each; other inputs one by one, from the last share (a smaller one) backwards."""
    channels = domain.channels
    if not 1 <= count <= len(channels):
        raise InputError(
            f"{len(channels)} channels cannot be split into {count} {what}: each needs one at least; "
            f"choose 1 to {len(channels)}"
        )
    sizes = balanced(len(channels), count)
    starts = [sum(sizes[:i]) for i in range(count)]
    others = [*domain.static_names, *config.forcings]
    statics = len(domain.static_names)
    shares = []
    for i, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        own = range(count - 1 - i, len(others), count)
        shares.append(
            ChannelShare(
                tuple(channels[start : start + size]),
                tuple(others[k] for k in own if k < statics),
                tuple(others[k] for k in own if k >= statics),
            )
        )
    return shares


def _union(config: ModelConfig, domain: Domain, shares: Sequence[ChannelShare]) -> ChannelShare:
    held = {name for share in shares for name in (*share.channels, *share.static_names, *share.forcings)}
    return ChannelShare(
        tuple(name for name in domain.channels if name in held),
        tuple(name for name in domain.static_names if name in held),
        tuple(name for name in config.forcings if name in held),
        tuple(number for share in shares for number in share.groups),
    )
