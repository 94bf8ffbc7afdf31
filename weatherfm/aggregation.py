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

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from weatherfm.config import Config
from weatherfm.tokenizer import ChannelTokenizer


class AggregationConfig(Config):
    """How channels become one token a position."""

    kind: Literal["flat"] = "flat"
    """flat: one query over all channels (ClimaX)."""
    evaluate: Literal["folded", "tokens"] = "folded"
    """Same function, same parameters; folded is many times cheaper, tokens is the reference."""
    block_mib: float = Field(8.0, gt=0)
    """Largest intermediate of the folded form, forward and backward, in MiB; larger suits a GPU."""


class Folded(NamedTuple):
    """Parameters of tokenizer and attention multiplied out."""

    key: Tensor  # [C, P, h]
    key_offset: Tensor  # [C, h]
    value: Tensor  # [h, C * P, d]
    value_offset: Tensor  # [h, C, d]


class ChannelAttention(nn.Module):
    """Multi-head attention of one learned query over channels (ClimaX's variable aggregation)."""

    def __init__(self, width: int, heads: int, config: AggregationConfig) -> None:
        super().__init__()
        self.heads, self.config = heads, config
        self.latent = nn.Parameter(torch.zeros(width))
        self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)  # a key bias adds the same to every score: no effect

    def forward(self, patches: Tensor, tokenizer: ChannelTokenizer, present: Tensor | None = None) -> Tensor:
        """Aggregate the channels of every position.

        Args:
            patches: [B, N, C, P]; values of absent channels must be finite.
            tokenizer: parameters of the same C channels.
            present: [B, C] bool, False for a channel this sample lacks; each sample needs one at least.

        Returns:
            [B, N, D]
        """
        evaluate = self._by_tokens if self.config.evaluate == "tokens" else self._folded
        return self.out(evaluate(patches, tokenizer, present))

    def _by_tokens(self, patches: Tensor, tokenizer: ChannelTokenizer, present: Tensor | None) -> Tensor:
        B, N, C, _ = patches.shape
        tokens = tokenizer(patches).flatten(0, 1)  # [M, C, D]
        heads = (self.heads, tokens.shape[-1] // self.heads)
        query = self.query(self.latent).view(1, 1, *heads).transpose(1, 2).expand(B * N, -1, -1, -1)  # [M, h, 1, d]
        key = self.key(tokens).unflatten(-1, heads).transpose(1, 2)  # [M, h, C, d]
        value = self.value(tokens).unflatten(-1, heads).transpose(1, 2)  # [M, h, C, d]
        mask = None if present is None else present.repeat_interleave(N, 0).view(B * N, 1, 1, C)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)  # [M, h, 1, d]
        return mixed.reshape(B, N, -1)  # [B, N, D]

    def _folded(self, patches: Tensor, tokenizer: ChannelTokenizer, present: Tensor | None) -> Tensor:
        B, N, C, P = patches.shape
        folded = self._fold(tokenizer)
        rows = patches.flatten(0, 1)  # [M, C, P]
        hidden = None if present is None else ~present.repeat_interleave(N, 0)  # [M, C]
        size = max(1, int(self.config.block_mib * 2**20 / (self.heads * C * P * rows.element_size())))
        blocks = []
        for start in range(0, B * N, size):
            block = rows[start : start + size]
            mask = None if hidden is None else hidden[start : start + size]
            if torch.is_grad_enabled():  # keep the inputs alone; make the block's intermediates again in backward
                mixed = checkpoint(_attend, block, mask, *folded, use_reentrant=False, preserve_rng_state=False)
            else:
                mixed = _attend(block, mask, *folded)
            blocks.append(mixed)
        return (torch.cat(blocks) + self.value.bias).unflatten(0, (B, N))  # [B, N, D]

    def _fold(self, tokenizer: ChannelTokenizer) -> Folded:
        """Multiply the parameters out, in float32 or better whatever autocast says."""
        with torch.autocast(tokenizer.weight.device.type, enabled=False):
            weight, offset = tokenizer.weight, tokenizer.offset
            d = weight.shape[1] // self.heads
            query = self.query(self.latent).view(self.heads, d)
            key = self.key.weight.view(self.heads, d, -1)  # [h, d, D]
            value = self.value.weight.view(self.heads, d, -1)  # [h, d, D]
            u = torch.einsum("hd,hde->he", query, key) * d**-0.5  # [h, D]
            return Folded(
                key=torch.einsum("he,cep->cph", u, weight),
                key_offset=offset @ u.T,
                value=torch.einsum("hde,cep->hcpd", value, weight).flatten(1, 2),
                value_offset=torch.einsum("hde,ce->hcd", value, offset),
            )


def _attend(
    x: Tensor, hidden: Tensor | None, key: Tensor, key_offset: Tensor, value: Tensor, value_offset: Tensor
) -> Tensor:
    """Folded attention of a block of positions: x [M, C, P], hidden [M, C] -> [M, D] without the value bias."""
    scores = (
        torch.bmm(x.transpose(0, 1), key).float() if x.dtype == torch.bfloat16 else torch.bmm(x.transpose(0, 1), key)
    )
    scores = scores + key_offset[:, None]  # [C, M, h]
    if hidden is not None:
        scores = scores.masked_fill(hidden.T[:, :, None], -torch.inf)
    attention = scores.softmax(0).permute(2, 1, 0)  # [h, M, C]
    weighted = attention.unsqueeze(-1) * x  # [h, M, C, P]: the one large intermediate, never more than a block of it
    mixed = torch.bmm(weighted.flatten(2), value) + torch.bmm(attention, value_offset)  # [h, M, d]
    return mixed.transpose(0, 1).flatten(1)  # [M, D]
