"""The ends of a model of one's own: fields of many channels -> tokens, and tokens -> fields of many channels.

They are made of what `WeatherViT` is made of, under the same names: channel tokenizer and aggregation in front, output
rows behind. What stands between, [B, N, D] -> [B, N, D], is the user's.

Legend: B batch, C channel, H lat or row, W lon or column, N patch token, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from weatherfm.config import Config, parse_settings
from weatherfm.errors import InputError
from weatherfm.model.aggregation import AggregationConfig, ChannelAttention
from weatherfm.model.architecture import patch_counts
from weatherfm.model.hierarchical import HierarchicalAggregation
from weatherfm.model.initial import initialise
from weatherfm.model.share import ChannelShare, balanced
from weatherfm.model.tokenizer import ChannelOutput, ChannelTokenizer, patchify, unpatchify


class EndSettings(Config):
    """What decides the ends of a model, beside its channels."""

    size: tuple[int, int]
    """(lat, lon) grid points of a field, each a multiple of the patch."""
    patch: tuple[int, int]
    """(lat, lon) grid points that a patch spans."""
    width: int = Field(ge=1)
    """Numbers in a token; a multiple of `heads`."""
    heads: int = Field(ge=1)
    """Of the attention over channels."""
    aggregation: AggregationConfig = AggregationConfig()
    """How channels become one token a position."""

    @model_validator(mode="after")
    def _consistent(self) -> EndSettings:
        if self.width % self.heads:
            good = (self.width // self.heads + 1) * self.heads
            raise InputError(
                f"width {self.width} is not divisible by heads {self.heads}; choose a multiple, e.g. {good}"
            )
        (rows, columns), (high, wide) = self.size, self.patch
        if min(*self.size, *self.patch) < 1 or rows % high or columns % wide:
            raise InputError(
                f"fields of {rows} x {columns} points cannot be cut into patches of {high} x {wide}; choose a patch "
                "that divides both, or crop or pad the fields"
            )
        return self

    @property
    def predict(self) -> str:
        """As of `ModelConfig`, for initial values: the output begins with small random numbers, not with zeros."""
        return "state"

    @property
    def input_times(self) -> tuple[int, ...]:
        """As of `ModelConfig`: every channel is a field of its own."""
        return (0,)


class ChannelEnd(nn.Module):
    """What both ends have: channels, the patches of their fields, and which of both are here.

    Attributes:
        channels: names of all, also of those that other ranks hold.
        own: places in `channels` of those that are here; all, until the model is split.
        tokens: (lat, lon) patches; token n is the patch in row n // tokens[1] and column n % tokens[1].
        positions: places among all N tokens of those that are here; all, unless the model is split by position.
    """

    own_backbone = None
    """What stands between the ends begins as it is."""

    def __init__(self, channels: Sequence[str] | int, settings: EndSettings, groups: int | None) -> None:
        super().__init__()
        self.channels = _names(channels)
        self.config, self.groups = settings, groups
        self.own = slice(0, len(self.channels))
        self.tokens = patch_counts(settings.patch, settings.size)
        self.positions = slice(0, self.tokens[0] * self.tokens[1])

    @property
    def holds(self) -> ChannelShare:
        """The channels that are here."""
        return ChannelShare(self.channels[self.own], (), ())

    def require_shares(self, count: int) -> None:
        """Refuse what cannot be split.

        Raises:
            InputError: fewer channels than shares, groups or positions that `count` does not divide, or an end that
                has been split.
        """
        if self.own != slice(0, len(self.channels)):
            raise InputError("this model has been split already; split a whole one, once")
        if count > len(self.channels):
            raise InputError(f"{len(self.channels)} channels cannot be split over {count} ranks; use fewer ranks")
        if self.groups is not None and self.groups % count:
            raise InputError(
                f"{self.groups} channel groups cannot be split over {count} ranks; choose aggregation groups that the "
                "ranks divide"
            )
        if self.positions.stop % count:
            rows, columns = self.tokens
            raise InputError(
                f"{rows} x {columns} positions cannot be split over {count} ranks; choose a patch, or a size of "
                "fields, whose number of positions the ranks divide"
            )

    def keep(self, index: int, count: int) -> None:
        """Hold one of `count` shares of the channels alone, in place: neighbours, whole groups where there are any.

        Raises:
            InputError: as `require_shares`.
        """
        self.require_shares(count)
        sizes = balanced(len(self.channels), self.groups or count)
        each = len(sizes) // count
        self.own = slice(sum(sizes[: index * each]), sum(sizes[: (index + 1) * each]))


class ChannelFrontEnd(ChannelEnd):
    """Fields of many channels -> one token a position, for a model of one's own (docs/front_end.md).

    Initial values follow from the seed, the names of weights and the names of channels, so that a channel begins alike
    wherever it is held, as in `WeatherViT`.

    Args:
        channels: names, each once, or how many.
        size: (lat, lon) grid points of a field.
        patch: grid points a patch spans, one number or (lat, lon); divides the size.
        width: D, a multiple of the heads.
        heads: of the attention over channels.
        aggregation: settings of `model.aggregation`; flat and folded without them.
        seed: of the initial values.

    Raises:
        InputError: no channels, or a name twice; sizes that do not divide; more groups than channels.
    """

    aggregation: ChannelAttention | HierarchicalAggregation

    def __init__(
        self,
        channels: Sequence[str] | int,
        size: tuple[int, int],
        patch: int | tuple[int, int],
        width: int,
        heads: int,
        aggregation: AggregationConfig | Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        patch = (patch, patch) if isinstance(patch, int) else patch
        given = {"size": size, "patch": patch, "width": width, "heads": heads, "aggregation": aggregation or {}}
        settings = parse_settings(EndSettings, given, "front end")
        super().__init__(channels, settings, settings.aggregation.groups)
        count, inside = len(self.channels), settings.patch[0] * settings.patch[1]
        self.tokenizer = ChannelTokenizer(count, inside, width)
        if self.groups is None:
            self.aggregation = ChannelAttention(width, heads, settings.aggregation, count)
        else:
            owners = _owners(count, self.groups, settings.aggregation.tree)
            self.aggregation = HierarchicalAggregation(width, heads, settings.aggregation, owners)
        if not self.tokenizer.weight.is_meta:
            initialise(self, seed)

    def forward(self, fields: Tensor, present: Tensor | None = None) -> Tensor:
        """One token a position.

        Args:
            fields: [B, C, H, W] of the channels here, normalised (mean 0, std 1).
            present: [B, C] bool, False where a sample lacks a channel, whose values must be finite; None: all there.

        Returns:
            [B, N, D], N the number of `positions`; before any position embedding.

        Raises:
            InputError: fields of other channels, or of another size; `present` that is not of them.
        """
        here = (len(self.channels[self.own]), *self.config.size)
        if fields.shape[1:] != here:
            raise InputError(
                f"this front end takes fields [B, {', '.join(map(str, here))}], got {list(fields.shape)}; give it "
                "those of its channels alone, fields[:, front_end.own]"
            )
        if present is not None:
            _require_present(present, fields)
        return self.aggregation(patchify(fields, self.config.patch), self.tokenizer, present)

    def keep(self, index: int, count: int) -> None:
        """As of all ends."""
        super().keep(index, count)
        _keep_rows(self.tokenizer, self.own)
        if isinstance(self.aggregation, HierarchicalAggregation) and self.groups is not None:
            each = self.groups // count
            self.aggregation.keep(range(index * each, (index + 1) * each))


def _require_present(present: Tensor, fields: Tensor) -> None:
    wanted = fields.shape[:2]
    if isinstance(present, Tensor) and present.dtype == torch.bool and present.shape == wanted:
        return
    told = f"{present.dtype} {list(present.shape)}" if isinstance(present, Tensor) else type(present).__name__
    raise InputError(
        f"present is a bool tensor {list(wanted)}, of each sample and each channel here (present[:, front_end.own]), "
        f"got {told}"
    )


class ChannelBackEnd(ChannelEnd):
    """Tokens of a model of one's own -> fields of many channels, the counterpart of a front end.

    Args:
        front_end: whose fields, patches and width it has.
        channels: names, or how many; without them those of the front end, and a rank that reads some of them makes
            the same.
        seed: of the initial values.

    Raises:
        InputError: no channels, or a name twice.
    """

    def __init__(self, front_end: ChannelFrontEnd, channels: Sequence[str] | int | None = None, seed: int = 0) -> None:
        settings = front_end.config
        super().__init__(
            front_end.channels if channels is None else channels,
            settings,
            front_end.groups if channels is None else None,
        )
        self.to_patches = ChannelOutput(len(self.channels), settings.patch[0] * settings.patch[1], settings.width)
        if not self.to_patches.weight.is_meta:
            initialise(self, seed)

    def forward(self, tokens: Tensor) -> Tensor:
        """Fields of the channels here.

        Args:
            tokens: [B, N, D], N the number of `positions`.

        Returns:
            [B, C, H, W].

        Raises:
            InputError: another number of tokens, or another width.
        """
        here = (self.positions.stop - self.positions.start, self.config.width)
        if tokens.shape[1:] != here:
            raise InputError(
                f"this back end takes tokens [B, {here[0]}, {here[1]}], got {list(tokens.shape)}; what stands before "
                "it has to keep the number of positions and the width"
            )
        return unpatchify(self.to_patches(tokens), self.config.patch, self.config.size)

    def keep(self, index: int, count: int) -> None:
        """As of all ends."""
        super().keep(index, count)
        _keep_rows(self.to_patches, self.own)


def _names(channels: Sequence[str] | int) -> tuple[str, ...]:
    names = tuple(str(i) for i in range(channels)) if isinstance(channels, int) else tuple(channels)
    if not names or len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InputError(
            f"channels must be one at least, each named once; got {', '.join(twice) + ' twice' if names else 'none'}; "
            "give a list of names, or how many there are"
        )
    return names


def _owners(channels: int, groups: int, tree: int) -> list[int]:
    """The group that each channel belongs to."""
    if channels // groups < tree:  # of the smallest group
        raise InputError(
            f"{channels} channels are too few for {groups} groups of {tree} sub-groups; choose fewer of either"
        )
    return [group for group, size in enumerate(balanced(channels, groups)) for _ in range(size)]


def _keep_rows(module: nn.Module, rows: slice) -> None:
    """Cut all of a module's own parameters down to some rows (dim 0)."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        kept = nn.Parameter(parameter.detach()[rows].clone(), parameter.requires_grad)
        module.register_parameter(name, kept)
