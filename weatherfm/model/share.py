"""A share of the channels: what one of several models holds that together make up the whole model.

A share owns channels (with their outputs and their earlier input times), constant fields and forcings. Shares
are disjoint and together hold everything, so that a sum over all channels is a sum over shares. The groups of
hierarchical aggregation are shares as well; every other share is a union of whole groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from weatherfm.earth.domain import Domain
from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.roles import Roles, find_roles


@dataclass(frozen=True)
class ChannelShare:
    """Names in the order of the domain and the configuration."""

    channels: tuple[str, ...]
    static_names: tuple[str, ...]
    forcings: tuple[str, ...]
    groups: tuple[int, ...] = ()
    """Numbers of the groups of hierarchical aggregation; none in the flat form."""
    roles: Roles | None = None
    """Of its channels; None: all are states."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Channels that the model sees."""
        return self.channels if self.roles is None else self.roles.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Channels that it predicts."""
        return self.channels if self.roles is None else self.roles.outputs

    def input_names(self, input_times: Sequence[int]) -> list[str]:
        """Input channels in order: the state at each input time (hours), then static fields, then forcings."""
        states = [c if hours == 0 else f"{c}@{hours}h" for hours in input_times for c in self.inputs]
        return [*states, *self.static_names, *self.forcings]


def whole(config: ModelConfig, domain: Domain) -> ChannelShare:
    """The share that holds everything."""
    groups = tuple(range(config.aggregation.groups or 0))
    roles = find_roles(config, domain.channels)
    return ChannelShare(tuple(domain.channels), tuple(domain.static_names), tuple(config.forcings), groups, roles)


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
    return [replace(group, groups=(i,)) for i, group in enumerate(groups)]


def group_of_inputs(config: ModelConfig, domain: Domain, share: ChannelShare) -> list[int]:
    """The group that each input of a share belongs to; `domain` is that of the whole model."""
    groups = channel_groups(config, domain)
    owner = {name: g for g in share.groups for name in groups[g].input_names(config.input_times)}
    return [owner[name] for name in share.input_names(config.input_times)]


def balanced(total: int, count: int) -> list[int]:
    """Sizes that add up to `total` and differ by one at most, larger first: 10 over 4 is [3, 3, 2, 2]."""
    return [total // count + (i < total % count) for i in range(count)]


def _deal(config: ModelConfig, domain: Domain, count: int, what: str) -> list[ChannelShare]:
    """Neighbouring channels of each kind to each, the ones too many of a kind where those of the last kind ended; other
    inputs one by one, from the last share backwards."""
    roles = find_roles(config, domain.channels)
    if not 1 <= count <= (most := most_shares(roles)):
        need = "" if roles.inputs == roles.outputs else " that goes in and one that comes out"
        raise InputError(
            f"{len(domain.channels)} channels cannot be split into {count} {what}: each needs one at least{need}; "
            f"choose 1 to {most}"
        )
    held: list[list[str]] = [[] for _ in range(count)]
    ends = dict.fromkeys(("inputs", "outputs"), 0)  # where a next one too many goes
    for kinds, names in _kinds(roles, domain):
        start = max(ends[kind] for kind in kinds)
        sizes = balanced(len(names), count)
        sizes = [sizes[(i - start) % count] for i in range(count)]
        for own, more in zip(held, _neighbours(names, sizes), strict=True):
            own += more
        ends |= dict.fromkeys(kinds, (start + len(names)) % count)
    others = [*domain.static_names, *config.forcings]
    statics = len(domain.static_names)
    shares = []
    for i, channels in enumerate(held):
        dealt = range(count - 1 - i, len(others), count)
        kept = [{others[k] for k in dealt if (k < statics) == is_static} for is_static in (True, False)]
        shares.append(_share(config, domain, {*channels}, *kept))
    return shares


def most_shares(roles: Roles) -> int:
    """Shares that channels can be split into: each has one at least that goes in, and one that comes out."""
    return min(len(roles.inputs), len(roles.outputs))


def within(share: ChannelShare, domain: Domain) -> ChannelShare:
    """What of a share a domain has."""
    own = tuple(name for name in share.channels if name in domain.channels)
    roles = Roles(*(tuple(name for name in own if name in names) for names in (share.inputs, share.outputs)))
    statics = tuple(name for name in share.static_names if name in domain.static_names)
    return replace(share, channels=own, static_names=statics, roles=roles)


def _kinds(roles: Roles, domain: Domain) -> list[tuple[tuple[str, ...], list[str]]]:
    """Channels that are alike: states, then inputs and outputs alone, and of each those that the same stores have."""
    found: dict[tuple[tuple[str, ...], tuple[bool, ...]], list[str]] = {}
    for kinds, names in (
        (("inputs", "outputs"), roles.states),
        (("inputs",), [name for name in roles.inputs if name not in roles.outputs]),
        (("outputs",), [name for name in roles.outputs if name not in roles.inputs]),
    ):
        for name in names:
            found.setdefault((kinds, tuple(name in store for store in domain.stores)), []).append(name)
    return [(kinds, names) for (kinds, _), names in found.items()]


def _neighbours(names: Sequence[str], sizes: Sequence[int]) -> list[list[str]]:
    return [list(names[sum(sizes[:i]) : sum(sizes[: i + 1])]) for i in range(len(sizes))]


def _union(config: ModelConfig, domain: Domain, shares: Sequence[ChannelShare]) -> ChannelShare:
    channels, statics, forcings = (
        {name for share in shares for name in getattr(share, kind)} for kind in ("channels", "static_names", "forcings")
    )
    joined = _share(config, domain, channels, statics, forcings)
    return replace(joined, groups=tuple(number for share in shares for number in share.groups))


def _share(
    config: ModelConfig, domain: Domain, channels: set[str], statics: set[str], forcings: set[str]
) -> ChannelShare:
    """In the order of the domain and the configuration."""
    own, roles = tuple(name for name in domain.channels if name in channels), find_roles(config, domain.channels)
    return ChannelShare(
        own,
        tuple(name for name in domain.static_names if name in statics),
        tuple(name for name in config.forcings if name in forcings),
        roles=Roles(*(tuple(name for name in own if name in chosen) for chosen in (roles.inputs, roles.outputs))),
    )
