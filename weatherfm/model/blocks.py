"""The transformer block: pre-norm self-attention over positions and a two-layer MLP, with drop path.

Legend: B batch, N position, D width, h head, d head size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
    """Multi-head self-attention over positions."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.head_size, self.dropout = width // heads, dropout
        self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)  # a key bias adds the same to every score: no effect

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        heads = (-1, self.head_size)  # the count follows the projection, which may hold only some of the heads
        query, key, value = (
            projection(x).unflatten(-1, heads).transpose(1, 2) for projection in (self.query, self.key, self.value)
        )  # [B, h, N, d]
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)  # [B, h, N, d]
        return self.out(mixed.transpose(1, 2).flatten(2))  # [B, N, D]


class MLP(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.expand, self.contract = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        return self.contract(self.dropout(F.gelu(self.expand(x))))


class Norm(nn.LayerNorm):
    """Layer norm of float32 or better, given and used in what autocast multiplies in, as all weights of a block are.

    So query, key and value need not cast each by itself, and weights gathered in that dtype give the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D] in the dtype of autocast where it is on."""
        weight, bias = (_for_products(p).to(x.dtype) for p in (self.weight, self.bias))
        return _for_products(F.layer_norm(x, self.normalized_shape, weight, bias, self.eps))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = Norm(width), Norm(width)
        self.attention = SelfAttention(width, heads, dropout)
        self.mlp = MLP(width, int(width * mlp_ratio), dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        x = x + self.drop_path(self.attention(self.attention_norm(x)))
        return x + self.drop_path(self.mlp(self.mlp_norm(x)))


def _for_products(x: Tensor) -> Tensor:
    """Cast to what autocast multiplies matrices in, where it is on."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x
