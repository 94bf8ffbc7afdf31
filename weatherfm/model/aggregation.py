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
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from weatherfm.config import Config
from weatherfm.errors import InputError
from weatherfm.model.folded import HIDDEN, Folded, attend_folded
from weatherfm.model.tokenizer import Tokenizer

BLOCK_MIB = {"cpu": 8.0, "cuda": 64.0}
"""What `block_mib: auto` is by type of device; on others as on a GPU."""


class AggregationConfig(Config):
    """How channels become one token a position."""

    kind: Literal["flat", "hierarchical"] = "flat"
    """flat: one query over all channels (ClimaX); hierarchical: over tokens of channel groups (D-CHAG)."""
    evaluate: Literal["folded", "tokens"] = "folded"
    """Same function, same parameters; folded is many times cheaper, tokens is the reference."""
    block_mib: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["auto"] = "auto"
    """Largest intermediate of the folded form, forward and backward, in MiB; auto: 8 on a CPU, whose cache it should
    fit, 64 on a GPU, which is to have much to do at once."""
    groups: int | None = Field(None, ge=1)
    """Channel groups of the hierarchical form."""
    local: Literal["attention", "linear"] = "attention"
    """How a group becomes a token: its own query and weights, or one learned weight a channel."""
    tree: int = Field(1, ge=1)
    """Sub-groups inside a group, each made a token first; 1: none."""

    def block_bytes(self, device_type: str) -> float:
        """`block_mib` on a device, in bytes."""
        mib = BLOCK_MIB.get(device_type, BLOCK_MIB["cuda"]) if self.block_mib == "auto" else self.block_mib
        return mib * 2**20

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
    """Parameters of multi-head attention with one learned query, and attention over tokens.

    Args:
        width: D.
        heads: h.
        tokens: how many it attends over, wherever they are held; initial values depend on it.
    """

    def __init__(self, width: int, heads: int, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.heads, self.head_size = heads, width // heads
        self.latent = nn.Parameter(torch.zeros(width))
        self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)  # a key bias adds the same to every score: no effect

    def attend(
        self,
        tokens: Tensor,
        present: Tensor | None = None,
        with_mass: bool = False,
        log_gate: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Mean of the values under the query's attention; of fewer heads where the projections hold only some.

        Written out: of one query fused kernels make another for every position, take B N D x 512 bytes in the backward
        pass on a GPU, and fail beyond 65,535 positions; the log mass would need all scores once more.

        Args:
            tokens: [B, N, C, D].
            present: [B, C] bool, False for a token this sample lacks.
            with_mass: whether the log mass is wanted: the logarithm of the sum of the scores' exponentials.
            log_gate: [C] added to the scores of each token.

        Returns:
            [B, N, D] and log mass [B, N, h].
        """
        heads = (-1, self.head_size)  # the count follows the projections, which may hold only some of the heads
        query = self.query(self.latent).unflatten(-1, heads) * self.head_size**-0.5  # [h, d]
        scores = self.key(tokens) @ torch.block_diag(*query.unsqueeze(-1))  # [B, N, C, h]
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if log_gate is not None:
            scores = scores + log_gate[:, None]
        if present is not None:
            scores = scores.masked_fill(~present[:, None, :, None], HIDDEN)
        value = self.value(tokens).unflatten(-1, heads)  # [B, N, C, h, d]
        attention = scores.softmax(2).to(value.dtype)
        mixed = (attention.unsqueeze(-1) * value).sum(2).flatten(2)  # [B, N, D]
        return mixed, scores.logsumexp(2) if with_mass else None


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

    def __init__(self, width: int, heads: int, config: AggregationConfig, channels: int) -> None:
        super().__init__(width, heads, channels)
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
            tokens, log_gate = tokenizer(patches)
            mixed, log_mass = self.attend(tokens, present, self.merge is not None, log_gate)
        else:
            mixed, log_mass = self._attend_folded(patches, tokenizer, present)
        if self.merge is not None and log_mass is not None:
            mixed = self.merge(mixed, log_mass)
        return self.out(mixed)

    def _attend_folded(self, patches: Tensor, tokenizer: Tokenizer, present: Tensor | None) -> tuple[Tensor, Tensor]:
        B, N, C, P = patches.shape
        hidden = None if present is None else ~present.repeat_interleave(N, 0)  # [M, C]
        dtype = products_dtype(self.value.weight)
        rows = max(1, int(self.config.block_bytes(patches.device.type) / (self.heads * C * P * dtype.itemsize)))
        folded = self._fold(tokenizer)
        mixed, log_mass = attend_folded(patches.flatten(0, 1), folded, hidden, max(1, min(rows, B * N)), dtype)
        mixed = mixed + self.value.bias.to(mixed.dtype)  # not widened: it is sent
        return mixed.unflatten(0, (B, N)), log_mass.unflatten(0, (B, N))  # [B, N, D], [B, N, h]

    def _fold(self, tokenizer: Tokenizer) -> Folded:
        """Multiply the parameters out, in float32 or better whatever autocast says."""
        with torch.autocast(tokenizer.weight.device.type, enabled=False):
            heads = (self.heads, self.head_size)
            weight = tokenizer.weight.transpose(1, 2)  # [C, P, D]
            rows, C = torch.cat([weight.flatten(0, 1), tokenizer.offset]), len(weight)  # [C * P + C, D]
            query = self.query(self.latent).view(heads)
            u = torch.einsum("hd,hde->he", query, self.key.weight.unflatten(0, heads)) * self.head_size**-0.5  # [h, D]
            key, value = F.linear(rows, u), F.linear(rows, self.value.weight).unflatten(-1, heads)
            gate = tokenizer.log_gate
            return Folded(
                key=key[:-C].unflatten(0, weight.shape[:2]),
                key_offset=key[-C:] if gate is None else key[-C:] + gate[:, None],
                value=value[:-C].transpose(0, 1),
                value_offset=value[-C:].transpose(0, 1),
            )


def products_dtype(weight: Tensor) -> torch.dtype:
    """What matrix products with a weight are computed in: autocast's dtype where it is on, else the weight's."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
