"""Folded attention of one query over channels, forward and backward, block by block (see `aggregation.py`).

The one large intermediate, a_hc x_c for every position, head, channel and value, is made for a block of positions at a
time and made again in the backward pass, which is written out here: the product with it need not be repeated then, one
block's memory serves all, and gradients of the parameters are added up in place.

Legend: M position of any sample, m position of a block, C channel, P values in a patch, h head, d head size, D = h d.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

HIDDEN = -1e30
"""Score of what must not be seen: its exponential is zero beside any other. Finite, so that attention over nothing
else is a number, of a mass that vanishes where it is merged."""


_MANY = 2**14
"""Numbers in one matrix of a batch, from which on adding a product in place beats making it first."""


class Folded(NamedTuple):
    """Parameters of tokenizer and attention multiplied out."""

    key: Tensor  # [C, P, h]
    key_offset: Tensor  # [C, h]
    value: Tensor  # [h, C * P, d]
    value_offset: Tensor  # [h, C, d]


def attend_folded(
    x: Tensor, folded: Folded, hidden: Tensor | None, rows: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Attention over the channels of every position.

    Args:
        x: [M, C, P].
        folded: parameters, float32 or better.
        hidden: [M, C] True where a channel must not be seen.
        rows: positions in a block.
        dtype: of matrix products.

    Returns:
        [M, D] in `dtype`, without the value's bias, and the log mass [M, h], float32 or better: the logarithm of the
        sum of the scores' exponentials.
    """
    low = Folded(*(p if name == "key_offset" else p.to(dtype) for name, p in folded._asdict().items()))
    return _FoldedAttention.apply(x, hidden, rows, *low)


class _FoldedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, hidden: Tensor | None, rows: int, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        folded = Folded(*parameters)
        ctx.save_for_backward(x, *parameters)
        ctx.hidden, ctx.rows = hidden, rows
        h, _, d = folded.value.shape
        mixed = folded.value.new_empty(len(x), h, d)
        mass = folded.key_offset.new_empty(len(x), h)
        memory = _Weighted(folded, rows)
        for block in _blocks(len(x), rows):
            scores = _scores(x[block], hidden, block, folded)  # [C, m, h]
            mass[block] = scores.logsumexp(0)
            attention = _attention(scores)  # [h, m, C]
            offset = torch.bmm(attention.to(mixed.dtype), folded.value_offset)  # [h, m, d]
            mixed[block] = torch.baddbmm(offset, memory.fill(attention, x[block]), folded.value).transpose(0, 1)
        return mixed.flatten(1), mass

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, mixed_gradient: Tensor, mass_gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        folded = Folded(*parameters)
        found = Folded(*(torch.zeros_like(p, dtype=folded.key_offset.dtype) for p in parameters))
        x_gradient = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        memory = _Weighted(folded, ctx.rows)
        for block in _blocks(len(x), ctx.rows):
            own = x[block]
            attention = _attention(_scores(own, ctx.hidden, block, folded))  # [h, m, C]
            g = mixed_gradient[block].unflatten(1, (len(folded.value), -1)).transpose(0, 1)  # [h, m, d]
            _add_product(found.value, memory.fill(attention, own).transpose(1, 2), g)
            _add_product(found.value_offset, attention.to(g.dtype).transpose(1, 2), g)
            weighted = torch.bmm(g, folded.value.transpose(1, 2), out=memory.like(own)).unflatten(2, own.shape[1:])
            if x_gradient is not None:
                x_gradient[block] = (weighted * attention.unsqueeze(-1)).sum(0)  # [m, C, P]
            of_attention = weighted.mul_(own).sum(-1, dtype=attention.dtype)  # [h, m, C]
            of_attention += torch.bmm(g, folded.value_offset.transpose(1, 2))
            mean = (attention * of_attention).sum(-1, keepdim=True) - mass_gradient[block].T.unsqueeze(-1)
            of_scores = (attention * (of_attention - mean)).permute(2, 1, 0)  # [C, m, h]
            if ctx.hidden is not None:
                of_scores = of_scores.masked_fill(ctx.hidden[block].T.unsqueeze(-1), 0)
            found.key_offset.add_(of_scores.sum(1))
            low = of_scores.to(folded.key.dtype)
            _add_product(found.key, own.to(low.dtype).permute(1, 2, 0), low)
            if x_gradient is not None:
                x_gradient[block] += torch.bmm(low, folded.key.transpose(1, 2)).transpose(0, 1)
        gradients = (g.to(p.dtype) for g, p in zip(found, folded, strict=True))
        return x_gradient, None, None, *gradients


class _Weighted:
    """Memory for a_hc x_c, and for its gradient, of one block: [h, m, C * P]."""

    def __init__(self, folded: Folded, rows: int) -> None:
        h, values, _ = folded.value.shape
        self._memory = folded.value.new_empty(h * rows * values)
        self._shape = (h, values)

    def like(self, x: Tensor) -> Tensor:
        """The memory for a block of positions."""
        h, values = self._shape
        return self._memory[: h * len(x) * values].view(h, len(x), values)

    def fill(self, attention: Tensor, x: Tensor) -> Tensor:
        """[h, m, C] times [m, C, P]: [h, m, C * P], rounded once."""
        out = self.like(x)
        torch.mul(attention.unsqueeze(-1), x, out=out.unflatten(2, x.shape[1:]))
        return out


def _blocks(count: int, rows: int) -> Iterator[slice]:
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


def _scores(x: Tensor, hidden: Tensor | None, block: slice, folded: Folded) -> Tensor:
    """[C, m, h], float32 or better."""
    products = torch.bmm(x.transpose(0, 1).to(folded.key.dtype), folded.key)
    scores = products.to(folded.key_offset.dtype) + folded.key_offset[:, None]
    return scores if hidden is None else scores.masked_fill(hidden[block].T.unsqueeze(-1), HIDDEN)


def _attention(scores: Tensor) -> Tensor:
    """[C, m, h] -> [h, m, C], contiguous: what is multiplied with it lies as it does."""
    return scores.softmax(0).permute(2, 1, 0).contiguous()


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b; the sum over blocks is float32 or better."""
    if total.dtype == a.dtype and total.numel() > len(total) * _MANY:  # a CPU does it one matrix after the other
        total.baddbmm_(a, b)
    else:
        total += torch.bmm(a, b)
