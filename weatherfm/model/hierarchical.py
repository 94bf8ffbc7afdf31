"""Hierarchical aggregation (D-CHAG, arXiv 2506.21411): groups of channels become tokens, and these become one.

Within a group (level 1) either attention with the group's own query and weights, or a learned linear combination;
both are evaluated folded, as the flat form is (`aggregation.py`). A tree splits a group into sub-groups, whose
tokens are then combined in the same way. One attention over the tokens of all groups ends it. The groups belong to
the model: whoever holds some of them computes the same tokens.

Legend: B batch, N position, C channel, G group, P values in a patch, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weatherfm.model.aggregation import AggregationConfig, ChannelAttention, TokenAttention
from weatherfm.model.share import balanced
from weatherfm.model.tokenizer import Tokenizer, TokenizerRows


class HierarchicalAggregation(nn.Module):
    """Level 1 of the groups it holds, and the final attention over the tokens of all.

    Args:
        width: D.
        heads: of every attention.
        config: kind hierarchical.
        owners: [C] number of the group that each input channel belongs to.
    """

    gather: Callable[[Tensor], Tensor] | None = None
    """Seam: adds the other groups: [B, N, own, ...] -> [B, N, G, ...] in order of their numbers. None: all are here."""
    split: Callable[[Tensor], Tensor] | None = None
    """Seam: keeps some positions of what all compute alike: [B, N, D] -> [B, fewer, D]. None: keeps all."""

    def __init__(self, width: int, heads: int, config: AggregationConfig, owners: Sequence[int]) -> None:
        super().__init__()
        self.runs = [(number, len(list(run))) for number, run in groupby(owners)]
        self.groups = nn.ModuleDict(
            {str(g): ChannelGroup(width, heads, config, list(owners).count(g)) for g in sorted(set(owners))}
        )
        self.final = TokenAttention(width, heads, config.groups or 1)

    def forward(self, patches: Tensor, tokenizer: Tokenizer, present: Tensor | None = None) -> Tensor:
        """Aggregate the channels of every position.

        Args:
            patches: [B, N, C, P]; values of absent channels must be finite.
            tokenizer: parameters of the same C channels.
            present: [B, C] bool, False for a channel this sample lacks; a group without any is left out.

        Returns:
            [B, N, D]
        """
        tokens, occupied = _tokens(self.groups.values(), self._by_group, patches, tokenizer, present)
        if self.gather is not None:
            tokens = self.gather(tokens)  # [B, N, G, D]
            if occupied is not None:
                occupied = self.gather(occupied[:, None].to(tokens.dtype))[:, 0] > 0  # [B, G]
        x = self.final(tokens, occupied)
        return x if self.split is None else self.split(x)

    def keep(self, groups: Collection[int]) -> None:
        """Drop all other groups, in place."""
        self.runs = [(number, size) for number, size in self.runs if number in groups]
        for number in [number for number in self.groups if int(number) not in groups]:
            del self.groups[number]

    def _by_group(self, x: Tensor, dim: int) -> Sequence[Tensor]:
        """The channels of each group; cut and put together once, so that the gradient is as well."""
        if len(self.groups) == 1:
            return [x]
        pieces = list(zip(self.runs, x.split([size for _, size in self.runs], dim), strict=True))
        return [torch.cat([piece for (owner, _), piece in pieces if str(owner) == g], dim) for g in self.groups]


class ChannelGroup(nn.Module):
    """The token of a group of channels, through sub-groups if there is a tree."""

    def __init__(self, width: int, heads: int, config: AggregationConfig, channels: int) -> None:
        super().__init__()
        self.sizes = balanced(channels, config.tree)
        linear = config.local == "linear"
        self.leaves = nn.ModuleList(
            ChannelSum(size, config) if linear else ChannelAttention(width, heads, config, size) for size in self.sizes
        )
        self.root = None
        if config.tree > 1:
            self.root = TokenSum(config.tree) if linear else TokenAttention(width, heads, config.tree)

    def forward(self, patches: Tensor, tokenizer: Tokenizer, present: Tensor | None = None) -> Tensor:
        """[B, N, C, P], present [B, C] -> [B, N, D]."""
        if self.root is None:
            return self.leaves[0](patches, tokenizer, present)
        tokens, occupied = _tokens(self.leaves, lambda x, dim: x.split(self.sizes, dim), patches, tokenizer, present)
        return self.root(tokens, occupied)


class LearnedSum(nn.Module):
    """Parameters of a linear combination of tokens: one weight a token, one bias; they start as `initial` says."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(tokens))
        self.bias = nn.Parameter(torch.zeros(1))

    def combine(self, tokens: Tensor, present: Tensor | None) -> Tensor:
        """[B, N, C, D], present [B, C] -> [B, N, D]; an absent token adds nothing."""
        return torch.einsum("bncd,bc->bnd", tokens, self.weights(len(tokens), present)) + self.bias

    def weights(self, batch: int, present: Tensor | None) -> Tensor:
        """[B, C], zero where absent."""
        return self.weight.expand(batch, -1) if present is None else self.weight * present


class TokenSum(LearnedSum):
    """Linear combination of tokens."""

    def forward(self, tokens: Tensor, present: Tensor | None = None) -> Tensor:
        """[B, N, C, D], present [B, C] -> [B, N, D]."""
        return self.combine(tokens, present)


class ChannelSum(LearnedSum):
    """Linear combination of channels' tokens; folded it is a single patch embedding over all their patches."""

    def __init__(self, channels: int, config: AggregationConfig) -> None:
        super().__init__(channels)
        self.config = config

    def forward(self, patches: Tensor, tokenizer: Tokenizer, present: Tensor | None = None) -> Tensor:
        """[B, N, C, P], present [B, C] -> [B, N, D]."""
        if self.config.evaluate == "tokens":
            return self.combine(tokenizer(patches)[0], present)
        with torch.autocast(patches.device.type, enabled=False):  # multiply the parameters out in float32 or better
            weight = (self.weight[:, None, None] * tokenizer.weight).transpose(0, 1).flatten(1)  # [D, C * P]
            offset = self.weights(len(patches), present) @ tokenizer.offset + self.bias  # [B, D]
        if present is not None:
            patches = torch.where(present[:, None, :, None], patches, 0)
        summed = F.linear(patches.flatten(2), weight)  # [B, N, D]
        return (summed + offset[:, None]).to(summed.dtype)


def _tokens(
    parts: Iterable[nn.Module],
    cut: Callable[[Tensor, int], Sequence[Tensor]],
    patches: Tensor,
    tokenizer: Tokenizer,
    present: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Make a token of each part of the channels.

    Args:
        parts: one module a part: patches, parameters of its channels, present -> [B, N, D].
        cut: divides a dim of channels into those of each part.
        patches: [B, N, C, P].
        tokenizer: parameters of the C channels.
        present: [B, C].

    Returns:
        [B, N, parts, D], and [B, parts] False for a part of which a sample has no channel.
    """
    inputs = zip(parts, cut(patches, 2), cut(tokenizer.weight, 0), cut(tokenizer.offset, 0), strict=True)
    if present is None:
        return torch.stack([part(x, TokenizerRows(w, o)) for part, x, w, o in inputs], dim=2), None
    masks = cut(present, 1)
    tokens = [part(x, TokenizerRows(w, o), mask) for (part, x, w, o), mask in zip(inputs, masks, strict=True)]
    return torch.stack(tokens, dim=2), torch.stack([mask.any(1) for mask in masks], dim=1)
