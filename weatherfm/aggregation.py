"""Cross-channel aggregation: one learned query attends over the channels of a position.

Two ways to evaluate the same function. `tokens` is the definition: make a token of every channel, project keys
and values, attend. `folded` is exact algebra on the parameters (the query does not depend on the data), so that
no token, key or value is ever made. With x_c the patch of channel c, W_c, o_c its tokenizer weight and offset,
and head h of size d = D / heads:

    score_hc = (u_h W_c) . x_c + u_h . o_c,      u_h = q_h W_k^h / sqrt(d)      (b_k cancels in the softmax)
    a_hc     = softmax over c of score_hc
    out_h    = sum_c (W_v^h W_c) (a_hc x_c) + sum_c a_hc W_v^h o_c + b_v^h

Legend: B batch, N position, M = B N rows, C channel, P values in a patch, D width, h head, d head size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from weatherfm.config import Config
from weatherfm.errors import InputError
from weatherfm.tokenizer import Tokenizer

_HIDDEN = -1e30
"""Score of what must not be seen: its exponential is zero beside any other. Finite, so that attention over nothing
else is a number, of a mass that vanishes where it is merged."""


class AggregationConfig(Config):
    """How channels become one token a position."""

    kind: Literal["flat", "hierarchical"] = "flat"
    """flat: one query over all channels (ClimaX); hierarchical: over tokens of channel groups (D-CHAG)."""
    evaluate: Literal["folded", "tokens"] = "folded"
    """Same function, same parameters; folded is many times cheaper, tokens is the reference."""
    block_mib: float = Field(8.0, gt=0)
    """Largest intermediate of the folded form, forward and backward, in MiB; larger suits a GPU."""
    groups: int | None = Field(None, ge=1)
    """Channel groups of the hierarchical form."""
    local: Literal["attention", "linear"] = "attention"
    """How a group becomes a token: its own query and weights, or one learned weight a channel."""
    tree: int = Field(1, ge=1)
    """Sub-groups inside a group, each made a token first; 1: none."""

    @model_validator(mode="after")
    def _consistent(self) -> AggregationConfig:
        if self.kind == "hierarchical" and self.groups is None:
            raise InputError("aggregation.kind hierarchical needs aggregation.groups, e.g. 8")
        unused = [name for name in ("groups", "local", "tree") if name in self.model_fields_set]
        changed = [n for n in unused if getattr(self, n) != type(self).model_fields[n].default]
        if self.kind == "flat" and changed:
            raise InputError(f"aggregation.{changed[0]} belongs to aggregation.kind hierarchical; set that, or drop it")
        return self


class LearnedQuery(nn.Module):
    """Parameters of multi-head attention with one learned query, and attention over tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_size = heads, width // heads
        self.latent = nn.Parameter(torch.zeros(width))
        self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)  # a key bias adds the same to every score: no effect

    def attend(
        self, tokens: Tensor, present: Tensor | None = None, with_mass: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Mean of the values under the query's attention; of fewer heads where the projections hold only some.

        Written out: of one query fused kernels make another for every position, take B N D x 512 bytes in the backward
        pass on a GPU, and fail beyond 65,535 positions; the log mass would need all scores once more.

        Args:
            tokens: [B, N, C, D].
            present: [B, C] bool, False for a token this sample lacks.
            with_mass: whether the log mass is wanted: the logarithm of the sum of the scores' exponentials.

        Returns:
            [B, N, D] and log mass [B, N, h].
        """
        heads = (-1, self.head_size)  # the count follows the projections, which may hold only some of the heads
        query = self.query(self.latent).unflatten(-1, heads) * self.head_size**-0.5  # [h, d]
        scores = self.key(tokens) @ torch.block_diag(*query.unsqueeze(-1))  # [B, N, C, h]
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if present is not None:
            scores = scores.masked_fill(~present[:, None, :, None], _HIDDEN)
        value = self.value(tokens).unflatten(-1, heads)  # [B, N, C, h, d]
        attention = scores.softmax(2).to(value.dtype)
        mixed = (attention.unsqueeze(-1) * value).sum(2).flatten(2)  # [B, N, D]
        return mixed, scores.logsumexp(2) if with_mass else None


class Folded(NamedTuple):
    """Parameters of tokenizer and attention multiplied out."""

    key: Tensor  # [C, P, h]
    key_offset: Tensor  # [C, h]
    value: Tensor  # [h, C * P, d]
    value_offset: Tensor  # [h, C, d]


class TokenAttention(LearnedQuery):
    """Multi-head attention of one learned query over tokens."""

    def forward(self, tokens: Tensor, present: Tensor | None = None) -> Tensor:
        """[B, N, C, D] -> [B, N, D]; present [B, C] bool, False for a token this sample lacks."""
        return self.out(self.attend(tokens, present)[0])


class ChannelAttention(LearnedQuery):
    """Multi-head attention of one learned query over channels (ClimaX's variable aggregation)."""

    merge: Callable[[Tensor, Tensor], Tensor] | None = None
    """Seam: joins the means [B, N, D] over these channels, of log mass [B, N, h], with those over channels that are
    held elsewhere: [B, N or fewer, D]. None: there are no others."""

    def __init__(self, width: int, heads: int, config: AggregationConfig) -> None:
        super().__init__(width, heads)
        self.config = config

    def forward(self, patches: Tensor, tokenizer: Tokenizer, present: Tensor | None = None) -> Tensor:
        """Aggregate the channels of every position.

        Args:
            patches: [B, N, C, P]; values of absent channels must be finite.
            tokenizer: parameters of the same C channels.
            present: [B, C] bool, False for a channel this sample lacks; each sample needs one at least.

        Returns:
            [B, N, D]
        """
        if self.config.evaluate == "tokens":
            mixed, log_mass = self.attend(tokenizer(patches), present, self.merge is not None)
        else:
            mixed, log_mass = self._attend_folded(patches, tokenizer, present)
        if self.merge is not None and log_mass is not None:
            mixed = self.merge(mixed, log_mass)
        return self.out(mixed)

    def _attend_folded(
        self, patches: Tensor, tokenizer: Tokenizer, present: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        B, N, C, P = patches.shape
        folded = self._fold(tokenizer)
        rows = patches.flatten(0, 1)  # [M, C, P]
        hidden = None if present is None else ~present.repeat_interleave(N, 0)  # [M, C]
        size = max(1, int(self.config.block_mib * 2**20 / (self.heads * C * P * rows.element_size())))
        blocks = []
        for start in range(0, B * N, size):
            mask = None if hidden is None else hidden[start : start + size]
            given = (rows[start : start + size], mask, folded, self.merge is not None)
            if torch.is_grad_enabled():  # keep the inputs alone; make the block's intermediates again in backward
                blocks.append(checkpoint(_attend, *given, use_reentrant=False, preserve_rng_state=False))
            else:
                blocks.append(_attend(*given))
        mixed = torch.cat([block[0] for block in blocks])  # [M, D]
        mixed = (mixed + self.value.bias.to(mixed.dtype)).unflatten(0, (B, N))  # [B, N, D], not widened: it is sent
        if self.merge is None:
            return mixed, None
        return mixed, torch.cat([block[1] for block in blocks]).unflatten(0, (B, N))  # [B, N, h]

    def _fold(self, tokenizer: Tokenizer) -> Folded:
        """Multiply the parameters out, in float32 or better whatever autocast says."""
        with torch.autocast(tokenizer.weight.device.type, enabled=False):
            heads = (self.heads, self.head_size)
            weight, offset = tokenizer.weight.transpose(1, 2), tokenizer.offset  # [C, P, D], [C, D]
            query = self.query(self.latent).view(heads)
            u = torch.einsum("hd,hde->he", query, self.key.weight.unflatten(0, heads)) * self.head_size**-0.5  # [h, D]
            value = F.linear(torch.cat([weight.flatten(0, 1), offset]), self.value.weight).unflatten(-1, heads)
            return Folded(
                key=weight @ u.T,
                key_offset=offset @ u.T,
                value=value[: -len(offset)].transpose(0, 1),
                value_offset=value[-len(offset) :].transpose(0, 1),
            )


def _attend(x: Tensor, hidden: Tensor | None, folded: Folded, with_mass: bool) -> tuple[Tensor, Tensor | None]:
    """Folded attention of a block of positions.

    Args:
        x: [M, C, P].
        hidden: [M, C] True where a channel must not be seen.
        folded: parameters.
        with_mass: whether the log mass is wanted.

    Returns:
        [M, D] without the value bias, and log mass [M, h].
    """
    scores = torch.bmm(x.transpose(0, 1), folded.key)  # [C, M, h]
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) + folded.key_offset[:, None]
    if hidden is not None:
        scores = scores.masked_fill(hidden.T[:, :, None], _HIDDEN)
    attention = scores.softmax(0).permute(2, 1, 0).contiguous()  # [h, M, C], or `weighted` would lie as strangely
    weighted = attention.unsqueeze(-1) * x  # [h, M, C, P]: the one large intermediate, never more than a block of it
    mixed = torch.bmm(weighted.flatten(2), folded.value) + torch.bmm(attention, folded.value_offset)  # [h, M, d]
    return mixed.transpose(0, 1).flatten(1), scores.logsumexp(0) if with_mass else None
