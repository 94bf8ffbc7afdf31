"""The transformer block: pre-norm self-attention over positions and a two-layer MLP, with drop path.

Legend: B batch, N position, D width, h head, d head size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weatherfm.model.architecture import ModelConfig
from weatherfm.model.conditioning import modulated
from weatherfm.model.neighbours import Edges, NeighbourMixing
from weatherfm.model.position import Rotary


class DropPath(nn.Module):
    """Skip a residual branch for a random share of samples in training (stochastic depth, arXiv 1603.09382)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]; the expectation is unchanged."""
        if self.rate == 0.0 or not self.training:
            return x
        keep = torch.rand(x.shape[0], 1, 1, device=x.device) >= self.rate
        return x * keep / (1 - self.rate)


class SelfAttention(nn.Module):
    """Multi-head self-attention over positions; with `rotary`, turned by them (`weatherfm.model.position`)."""

    of_data = ("rotary",)

    def __init__(self, width: int, heads: int, dropout: float, rotary: Rotary | None = None) -> None:
        super().__init__()
        self.rotary = rotary
        self.head_size, self.dropout = width // heads, dropout
        self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)  # a key bias adds the same to every score: no effect

    def forward(self, x: Tensor, chosen: Tensor | None = None) -> Tensor:
        """[B, N, D] -> [B, N, D]; of some positions alone, `chosen` [B, N] are their numbers."""
        heads = (-1, self.head_size)  # the count follows the projection, which may hold only some of the heads
        query, key, value = (
            projection(x).unflatten(-1, heads).transpose(1, 2) for projection in (self.query, self.key, self.value)
        )  # [B, h, N, d]
        if self.rotary is not None:
            query, key = self.rotary(query, chosen), self.rotary(key, chosen)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)  # [B, h, N, d]
        return self.out(mixed.transpose(1, 2).flatten(2))  # [B, N, D]


class MLP(nn.Module):
    """Linear, GELU, linear; with `neighbours`, hidden units are mixed over neighbouring patches before GELU."""

    def __init__(self, width: int, hidden: int, dropout: float, neighbours: nn.Module | None = None) -> None:
        super().__init__()
        self.expand, self.contract = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.neighbours = neighbours
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        x = self.expand(x)
        if self.neighbours is not None:
            x = self.neighbours(x)
        return self.contract(self.dropout(F.gelu(x)))


class Norm(nn.LayerNorm):
    """Layer norm of float32 or better, given and used in what autocast multiplies in, as all weights of a block are.

    So query, key and value need not cast each by itself, and weights gathered in that dtype give the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D] in the dtype of autocast where it is on."""
        given = (self.weight, self.bias)  # none where norms are adaptive
        weight, bias = (None if p is None else _for_products(p).to(x.dtype) for p in given)
        return _for_products(F.layer_norm(x, self.normalized_shape, weight, bias, self.eps))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); with `conditioning: adaln` changed by sample.

    Args:
        config: architecture.
        drop_path: share of samples that training skips a branch for.
        tokens: (lat, lon) patches.
        edges: of the patches.
    """

    def __init__(self, config: ModelConfig, drop_path: float, tokens: tuple[int, int], edges: Edges) -> None:
        super().__init__()
        D, hidden = config.width, int(config.width * config.mlp_ratio)
        rotary = Rotary(tokens, D // config.heads, edges.periodic) if config.rotary else None
        neighbours = NeighbourMixing(hidden, tokens, edges) if config.mlp_convolution else None
        weights = config.conditioning == "embed"
        self.attention_norm, self.mlp_norm = (Norm(D, elementwise_affine=weights) for _ in range(2))
        self.attention = SelfAttention(D, config.heads, config.dropout, rotary)
        self.mlp = MLP(D, hidden, config.dropout, neighbours)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, changes: Tensor | None = None, chosen: Tensor | None = None) -> Tensor:
        """[B, N, D] -> [B, N, D]; changes [B, 6, D]: shift, scale and gate of the attention, then of the MLP; `chosen`
        as of the attention."""
        attention = self.attention if chosen is None else partial(self.attention, chosen=chosen)
        of_attention, of_mlp = (None, None) if changes is None else changes.unsqueeze(2).chunk(2, 1)  # [B, 3, 1, D]
        x = self._branch(x, self.attention_norm, attention, of_attention)
        return self._branch(x, self.mlp_norm, self.mlp, of_mlp)

    def _branch(self, x: Tensor, norm: nn.Module, layer: Callable[[Tensor], Tensor], changes: Tensor | None) -> Tensor:
        if changes is None:
            return x + self.drop_path(layer(norm(x)))
        shift, scale, gate = changes.unbind(1)
        return x + self.drop_path(gate * layer(modulated(norm(x), shift, scale)))


def _for_products(x: Tensor) -> Tensor:
    """Cast to what autocast multiplies matrices in, where it is on."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x
