"""Low-rank adaptation of matrices in the blocks (LoRA, arXiv 2106.09685): few numbers that learn beside many that stay.

A linear layer keeps its W [out, in], and beside it learn A [r, in] and B [out, r], r the rank:

    y = x W^T + b + s (x A^T) B^T,   s = alpha / r

which is what a layer with W + s B A computes. That sum is never made in training: it would be kept for the backward
pass, whole, of every block, and in bfloat16 W would round small changes away.

Legend: B batch, N position, r rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

FACTORS = ("lora_a", "lora_b")
"""Names of A and B, beside `weight` and `bias`."""
MATRICES = {
    "attention": ("attention.query", "attention.key", "attention.value", "attention.out"),
    "mlp": ("mlp.expand", "mlp.contract"),
}
"""Parts of a block, and their linear layers."""


class AdaptedLinear(nn.Linear):
    """A linear layer with a product of two thin matrices beside its own.

    Its values are for `initial_tensor` to draw: A normal with variance 1 / in, B zero, so that it begins as the layer.

    Attributes:
        beside: (x [B, N, in], A, B) -> [B, N, out]; ranks of which each has parts of the factors put theirs here.

    Args:
        layer: whose weight and bias it takes over.
        rank: r.
        scale: s.
    """

    beside: Callable[[Tensor, Tensor, Tensor], Tensor]

    def __init__(self, layer: nn.Linear, rank: int, scale: float) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias, self.scale = layer.weight, layer.bias, scale
        self.lora_a = nn.Parameter(layer.weight.new_zeros(rank, layer.in_features))
        self.lora_b = nn.Parameter(layer.weight.new_zeros(layer.out_features, rank))
        self.beside = partial(low_rank_product, scale=scale)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, in] -> [B, N, out]."""
        return super().forward(x) + self.beside(x, self.lora_a, self.lora_b)


def low_rank_product(x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """s (x A^T) B^T: x [B, N, in], A [r, in], B [out, r] -> [B, N, out]."""
    return F.linear(scale * F.linear(x, a), b)


def adapt(blocks: Iterable[nn.Module], matrices: Iterable[str], rank: int, scale: float) -> None:
    """Put adapted layers in place of linear ones, in all of these blocks.

    Args:
        blocks: of a model.
        matrices: of `MATRICES`, as `attention.query`.
        rank: r, at most the smaller side of each.
        scale: s.
    """
    names = list(matrices)
    for block in blocks:
        for name in names:
            part, _, layer = name.rpartition(".")
            owner = block.get_submodule(part)
            setattr(owner, layer, AdaptedLinear(owner.get_submodule(layer), rank, scale))  # type: ignore[arg-type]


def is_factor(name: str) -> bool:
    """Whether a parameter of this name is an A or a B."""
    return name.rpartition(".")[2] in FACTORS


def merged(tensors: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Weights of the plain model that computes the same: each adapted W becomes W + s B A; factors are left out."""
    plain = {name: tensor for name, tensor in tensors.items() if not is_factor(name)}
    for name in tensors:
        path, _, kind = name.rpartition(".")
        if kind == FACTORS[0]:
            a, b = (tensors[f"{path}.{factor}"] for factor in FACTORS)
            plain[f"{path}.weight"] = merged_weight(plain[f"{path}.weight"], a, b, scale)
    return plain


def merged_weight(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """W + s B A [out, in], summed in float64 and rounded once."""
    return (weight.double() + scale * (b.double() @ a.double())).to(weight.dtype)
