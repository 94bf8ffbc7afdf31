"""What of trained weights a run can start from, name by name; refuses what would otherwise go wrong in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from weatherfm.earth.domain import Domain
from weatherfm.errors import InputError, some_of
from weatherfm.model.architecture import ModelConfig, patch_counts
from weatherfm.model.backbone_config import is_own
from weatherfm.model.reconstruction import decoder_config
from weatherfm.model.roles import find_roles
from weatherfm.model.share import input_names
from weatherfm.training.starting.donor import Donor, require_known

_SAME = (
    "width", "heads", "mlp_ratio", "head_depth", "predict", "rotary", "truncation", "conditioning", "position",
)  # fmt: skip
"""Settings of the model that must be the weights' own: others would compute another function with the same numbers."""
_MAY_JOIN = ("mlp_convolution", "decoder_fields", "input_gates", "noise")
"""Parts that a model may have beyond the weights: they change nothing before they have learned."""
_OUTPUT_SIDE = ("head", "to_patches", "decoder", "truncation", "reconstruction")
"""Parts behind the encoder, which weights of a masked autoencoder and of forecasts do not share."""
_OF_OUTPUT_SIDE = ("head_depth", "predict", "truncation", "decoder_fields", "noise")
"""Settings that say nothing of the encoder."""


@dataclass(frozen=True)
class Match:
    """Where each row that belongs to a channel comes from, and what is said of it."""

    inputs: Mapping[str, tuple[str, ...]]
    """Input of the run -> inputs of the weights: itself, those it is the mean of, or none."""
    outputs: Mapping[str, tuple[str, ...]]
    """The same for outputs."""
    dropped: tuple[str, ...]
    """Inputs of the weights that the run does not have."""
    resized: tuple[str, ...] = ()
    """What is resampled, in words."""
    added_blocks: tuple[int, ...] = ()
    """Numbers of blocks that the weights do not have; they start as the identity."""
    joined: tuple[str, ...] = field(default=())
    """Parts of the model that the weights do not have; they start without an effect."""
    anew: tuple[str, ...] = ()
    """Parts that start at initial values whatever the weights have: these learned to reconstruct, and the run is to
    forecast, or the other way round."""
    attention: tuple[str, ...] = ()
    """Where blocks see other positions than in the weights, in words."""

    def takes(self, name: str) -> bool:
        """Whether a weight comes from the weights to start from, if they have it."""
        return name.partition(".")[0] not in self.anew

    def lines(self, own_statistics: bool = False) -> list[str]:
        """The table, for the log and `weatherfm check`; with the store's own statistics or the weights'."""
        statistics = "the statistics of the store" if own_statistics else "the statistics they were trained with"
        kept = [name for name, source in self.inputs.items() if source == (name,)]
        made = {name: source for name, source in self.inputs.items() if source and source != (name,)}
        new = [name for name, source in self.inputs.items() if not source]
        others = [name for name, source in self.outputs.items() if not source]
        start = "gate closed at first" if made or new else ""
        rows = {
            "kept": (kept, f"by name, with {statistics}"),
            "made": ([f"{name} of {'+'.join(source)}" for name, source in made.items()], start),
            "new": (new, f"initial rows, {start}"),
            "new outputs": ([n for n in others if n in self.inputs and not self.anew], "start at persistence"),
            "outputs alone": ([n for n in others if n not in self.inputs and not self.anew], "start at their mean"),
            "anew": (self.anew, "initial values: of the weights, which learned something else, the encoder is taken"),
            "dropped": (self.dropped, "the run has no such input"),
            "resized": (self.resized, "resampled"),
            "new blocks": ([str(number) for number in self.added_blocks], "start as the identity"),
            "new parts": (self.joined, "start without an effect"),
            "attention": (self.attention, "the same weights"),
        }
        return [f"{name:<12}{_some(names)} ({why})" for name, (names, why) in rows.items() if names]


def match(donor: Donor, config: ModelConfig, domain: Domain, new_channels: Mapping[str, list[str]]) -> Match:
    """What a run takes from where.

    Args:
        donor: whose weights they are.
        config: the run's model.
        domain: its channels, constant fields and grid.
        new_channels: channel that the weights lack -> those that it starts as the mean of.

    Raises:
        InputError: an architecture that the weights do not fit, hierarchical groups of other channels, new inputs
            without gates, or channels to be made of unknown ones.
    """
    _require_architecture(donor, config)
    require_known(new_channels, donor)
    if idle := [name for name in new_channels if name not in domain.channels]:
        raise InputError(f"start_from.new_channels names {', '.join(idle)}, not among data.channels; add or drop them")
    wanted, roles = input_names(config, domain), find_roles(config, domain.channels)
    inputs = {name: _source(name, donor.inputs, new_channels) for name in wanted}
    anew = _OUTPUT_SIDE if _learned_other(donor, config) else ()
    held = [] if anew else donor.outputs
    outputs = {name: _source(name, _alike(name, held, donor, config, wanted), new_channels) for name in roles.outputs}
    if not any(inputs.values()):
        raise InputError(
            f"none of the run's channels is in {donor.path}, which has {_some(donor.inputs)}; start without start_from"
        )
    dropped = tuple(name for name in donor.inputs if name not in inputs)
    others = [name for name, source in inputs.items() if source != (name,)]
    _require_gates(config, donor, wanted, others)
    if not anew and config.predict == "state" and (new := [name for name, source in outputs.items() if not source]):
        raise InputError(
            f"outputs {', '.join(new)} are not in {donor.path}, and with model.predict: state they could not start at "
            "persistence; leave them out, or name what they start as in start_from.new_channels"
        )
    resized = []
    if donor.config.patch != config.patch:
        resized.append(f"patches of {_by(donor.config.patch)} to {_by(config.patch)}")
    if donor.tokens != (tokens := patch_counts(config.patch, domain.grid.shape)) and config.position == "learned":
        resized.append(f"positions from {_by(donor.tokens)} to {_by(tokens)}")
    joined = [name for name in _MAY_JOIN if getattr(config, name) and not getattr(donor.config, name)]
    added = tuple(range(donor.config.depth, config.depth))
    there = tuple(part for part in anew if part in _parts_of(config))
    seen = [_seen(one) for one in (donor.config, config)]
    attention = (f"of {seen[0]}, now of {seen[1]}",) if seen[0] != seen[1] else ()
    return Match(inputs, outputs, dropped, tuple(resized), added, tuple(joined), there, attention)


def _seen(config: ModelConfig) -> str:
    """Which positions blocks attend to, in words."""
    own = [f"{key} {value}" for key, value in config.windows] if config.backbone == "windows" else []
    return f"{config.backbone} ({', '.join(own)})" if own else config.backbone


def _learned_other(donor: Donor, config: ModelConfig) -> bool:
    """Whether the weights reconstruct and the run is to forecast, or the other way round."""
    return (donor.config.reconstruction is None) != (config.reconstruction is None)


def _parts_of(config: ModelConfig) -> list[str]:
    """Parts behind the encoder that a model has."""
    if config.reconstruction is not None:
        return ["to_patches", "reconstruction"]
    there = {"head": config.head_depth, "to_patches": 1, "decoder": config.decoder_fields}
    return [part for part, size in {**there, "truncation": config.truncation}.items() if size]


def _alike(name: str, held: Sequence[str], donor: Donor, config: ModelConfig, wanted: Sequence[str]) -> list[str]:
    """Outputs of the weights whose rows mean what the run's output will: an increment, or, where a channel does not go
    in, all of it."""
    whole = config.predict == "state"
    return [one for one in held if whole or (one in donor.inputs) == (name in wanted)]


def _source(name: str, held: Sequence[str], new_channels: Mapping[str, list[str]]) -> tuple[str, ...]:
    if name in held:
        return (name,)
    channel, at, hours = name.partition("@")
    made = tuple(f"{other}{at}{hours}" for other in new_channels.get(channel, []))
    return made if made and all(one in held for one in made) else ()


def _require_architecture(donor: Donor, config: ModelConfig) -> None:
    theirs = donor.config
    apart = _OF_OUTPUT_SIDE if _learned_other(donor, config) else ()
    same, may_join = ([name for name in names if name not in apart] for names in (_SAME, _MAY_JOIN))
    wrong = [
        f"model.{name} is {getattr(config, name)}, the weights have {getattr(theirs, name)}"
        for name in same
        if getattr(config, name) != getattr(theirs, name)
    ]
    wrong += [
        f"model.{name} is {getattr(config, name)}, the weights have {getattr(theirs, name)}"
        for name in may_join
        if getattr(theirs, name) and getattr(config, name) != getattr(theirs, name)
    ]
    wrong += _other_backbone(config, theirs)
    if config.depth < theirs.depth:
        wrong.append(f"model.depth is {config.depth}, less than the {theirs.depth} blocks of the weights")
    ours, held = (one.aggregation.model_dump(exclude={"evaluate", "block_mib"}) for one in (config, theirs))
    if ours != held:
        wrong.append(f"model.aggregation is {ours}, the weights have {held}")
    if config.reconstruction is not None and theirs.reconstruction is not None:
        decoders = [
            {name: getattr(decoder_config(one), name) for name in ("depth", "width", "heads")}
            for one in (config, theirs)
        ]
        if decoders[0] != decoders[1]:
            wrong.append(f"model.reconstruction is {decoders[0]}, the weights have {decoders[1]}")
    if wrong:
        raise InputError(f"{donor.path} does not fit the model: " + "; ".join(wrong) + ": set it so, or start anew")


def _other_backbone(config: ModelConfig, theirs: ModelConfig) -> list[str]:
    """Blocks of ours have the same weights whatever they see; a backbone of the user's own is one of a kind."""
    if not (is_own(config.backbone) or is_own(theirs.backbone)):
        return []
    names = ["backbone", "backbone_options", *(["depth"] if config.depth > theirs.depth else [])]
    return [
        f"model.{name} is {getattr(config, name)}, the weights have {getattr(theirs, name)}"
        for name in names
        if getattr(config, name) != getattr(theirs, name)
    ]


def _require_gates(config: ModelConfig, donor: Donor, wanted: Sequence[str], others: Sequence[str]) -> None:
    if config.aggregation.kind != "flat" and tuple(wanted) != donor.inputs:
        raise InputError(
            f"{donor.path} aggregates in groups of its own inputs ({_some(donor.inputs)}), and the run has others "
            f"({_some(wanted)}): hierarchical weights are started from with the same channels in the same order"
        )
    if others and not config.input_gates:
        raise InputError(
            f"inputs {_some(others)} are not in {donor.path}, and a softmax would give them weight at once; set "
            "model.input_gates: true, through which they come in as they learn"
        )


def _some(names: Sequence[str], most: int = 12) -> str:
    return some_of(names, most)


def _by(pair: tuple[int, int]) -> str:
    return f"{pair[0]} x {pair[1]}"
