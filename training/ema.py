"""Exponential moving average of the weights: smoother than the last step's, and so validated and exported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Average of a model's parameters over past steps, float32, on the model's device.

    After step t (from 1) the average moves by 1 - min(decay, (1 + t) / (10 + t)) towards the weights: early on
    the average is short, so that the random start is forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values: dict[str, Tensor] = {name: p.detach().float().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after optimizer step `step` (from 1)."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        weights = [p.detach().float() for p in model.parameters()]
        torch._foreach_lerp_(list(self.values.values()), weights, share)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Inside the block the model computes with the average; afterwards its own weights are back, bit for bit."""
        own = [p.detach().clone() for p in model.parameters()]
        _copy(model, list(self.values.values()))
        try:
            yield
        finally:
            _copy(model, own)


@torch.no_grad()
def _copy(model: nn.Module, values: list[Tensor]) -> None:
    for parameter, value in zip(model.parameters(), values, strict=True):
        parameter.copy_(value)
