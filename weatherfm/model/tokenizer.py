"""What belongs to a channel alone: patch embedding of every input channel, projection to every output channel.

Legend: B batch, C channel, H lat, W lon, N patch token, P values in a patch, D width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def patchify(x: Tensor, patch: tuple[int, int]) -> Tensor:
    """Cut fields into patches: [B, C, H, W] -> [B, N, C, P]; H and W must be multiples of the patch."""
    B, C, H, W = x.shape
    h, w = H // patch[0], W // patch[1]
    x = x.reshape(B, C, h, patch[0], w, patch[1])
    x = x.permute(0, 2, 4, 1, 3, 5)  # [B, h, w, C, patch, patch]
    return x.reshape(B, h * w, C, patch[0] * patch[1])  # [B, N, C, P]


def patches_at(x: Tensor, patch: tuple[int, int], visible: Tensor) -> Tensor:
    """As `patchify`, of some of the patches alone: [B, C, H, W] and their numbers [B, V] -> [B, V, C, P]."""
    B, C, H, W = x.shape
    h, w = H // patch[0], W // patch[1]
    x = x.reshape(B, C, h, patch[0], w, patch[1]).permute(0, 2, 4, 1, 3, 5)  # [B, h, w, C, patch, patch]
    sample = torch.arange(B, device=x.device)[:, None]
    return x[sample, visible // w, visible % w].flatten(3)  # nothing of the others is copied


def unpatchify(patches: Tensor, patch: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    """Inverse of `patchify`: [B, N, C, P] -> [B, C, H, W] with (H, W) = shape."""
    B, _, C, _ = patches.shape
    h, w = shape[0] // patch[0], shape[1] // patch[1]
    x = patches.reshape(B, h, w, C, patch[0], patch[1])
    x = x.permute(0, 3, 1, 4, 2, 5)  # [B, C, h, patch, w, patch]
    return x.reshape(B, C, *shape)


def at_hand(values: Tensor, rows: Tensor | None) -> Tensor:
    """The rows (dim 0) of the channels at hand; None: of all."""
    return values if rows is None else values.index_select(0, rows)


CLOSED = 1e-20
"""Of a channel's mass in a softmax: nothing beside others, and enough for a gradient to come through."""


class TokenizerRows(NamedTuple):
    """What makes tokens of some channels: token_c = weight_c x_c + offset_c."""

    weight: Tensor  # [C, D, P]
    offset: Tensor  # [C, D]
    log_gate: Tensor | None = None  # [C], added to a channel's scores; None: all gates are open

    def __call__(self, patches: Tensor) -> tuple[Tensor, Tensor | None]:
        """[B, N, C, P] -> tokens [B, N, C, D], in the dtype that autocast multiplies in where it is on; `log_gate`."""
        tokens = torch.einsum("bncp,cdp->bncd", patches, self.weight)  # strided: channels lie outermost in memory
        tokens = tokens.contiguous()  # once, or each projection of them would keep a copy for its backward pass
        tokens = tokens + self.offset.to(tokens.dtype)  # a sum of two dtypes would be twice as large
        return tokens, self.log_gate


class ChannelTokenizer(nn.Module):
    """The parameters that would turn each channel's patch into a token (ClimaX, arXiv 2301.10343, section 3.2).

    token_c = weight_c x_c + bias_c + embedding_c. `folded` aggregation uses these parameters without ever
    making a token (docs/method.md); `forward` makes them, for the reference form.
    Initial values: `weatherfm.model.initial`.

    With `gates`, a channel's mass in the softmax over channels is multiplied by a weight: 1 for those that were always
    there; 0 for one that joins a trained model, which then computes what it did, and lets the newcomer in as it learns.
    """

    rows: Tensor | None = None
    """Seam: places of the channels at hand (`weatherfm.model.data_view`); None: all are."""

    def __init__(self, channels: int, patch_values: int, width: int, gates: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, width, patch_values))
        self.bias = nn.Parameter(torch.zeros(channels, width))
        self.embedding = nn.Parameter(torch.empty(channels, width))
        self.gate = nn.Parameter(torch.ones(channels)) if gates else None

    @property
    def log_gate(self) -> Tensor | None:
        """[C] logarithm of each gate, which is never quite closed; below zero its gradient is that at zero."""
        if self.gate is None:
            return None
        opened: Tensor = _NeverClosed.apply(self.gate)
        return opened.log()

    @property
    def offset(self) -> Tensor:
        """[C, D] the data-independent part of every token."""
        return self.bias + self.embedding

    def at_hand(self) -> TokenizerRows:
        """Of the channels at hand."""
        log_gate = self.log_gate
        gates = None if log_gate is None else at_hand(log_gate, self.rows)
        return TokenizerRows(at_hand(self.weight, self.rows), at_hand(self.offset, self.rows), gates)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor | None]:
        """[B, N, C, P] -> tokens [B, N, C, D], and the [C] logarithms of their gates, if any."""
        return self.at_hand()(patches)


class _NeverClosed(torch.autograd.Function):
    """Gates of `CLOSED` at least, with the gradient of what they were: one that has closed may open again."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor) -> Tensor:
        return gate.clamp(min=CLOSED)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


Tokenizer = ChannelTokenizer | TokenizerRows


class ChannelOutput(nn.Module):
    """From a token to the patches of every output channel, the tokenizer's counterpart; starts as `initial` says."""

    rows: Tensor | None = None
    """Seam, as of the tokenizer."""

    def __init__(self, channels: int, patch_values: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, patch_values, width))
        self.bias = nn.Parameter(torch.zeros(channels, patch_values))

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, C, P]."""
        weight, bias = at_hand(self.weight, self.rows), at_hand(self.bias, self.rows)
        return F.linear(x, weight.flatten(0, 1), bias.flatten()).unflatten(-1, bias.shape)  # [B, N, C, P]
