"""Exponential moving average of the weights: smoother than the last step's, and so validated and exported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from weatherfm.training.parallel.channel_rows import local
from weatherfm.training.parallel.parallelize import reshard


class WeightAverage:
    """Average of a model's parameters over past steps, float32 or better, placed as the parameters are.

    After step t (from 1) the average moves by 1 - min(decay, (1 + t) / (10 + t)) towards the weights: early on
    the average is short, so that the random start is forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values: dict[str, Tensor] = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after optimizer step `step` (from 1)."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(_parts(self.values.values()), _parts(model.parameters()), share)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Inside the block the model computes with the average; afterwards its own weights are back, bit for bit."""
        own = [part.clone() for part in _parts(model.parameters())]
        _copy(model, _parts(self.values.values()))
        try:
            yield
        finally:
            _copy(model, own)


def _parts(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this rank holds of each; an average needs nobody else."""
    return [local(tensor).detach() for tensor in tensors]


@torch.no_grad()
def _copy(model: nn.Module, values: list[Tensor]) -> None:
    reshard(model)  # forget what was gathered of the weights before
    torch._foreach_copy_(_parts(model.parameters()), values)
