"""Tells a counter which part of the model runs, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from weatherfm.model.model import WeatherViT
from weatherfm.training.plan.counter import Moment, StepCounter


@contextmanager
def telling(model: WeatherViT, counter: StepCounter) -> Iterator[None]:
    """Inside, `counter.moment` follows the model.

    Its parts form a chain, so that a part's forward ends where the next begins, and a part's backward begins when the
    gradient of its output is there. Hooks come first in line: FSDP's gathering for a part belongs to that part.
    """

    def begin(*place: Any) -> None:
        counter.moment = Moment(*place)

    def forward(module: nn.Module, *place: Any) -> None:
        handles.append(module.register_forward_pre_hook(lambda *_: begin("forward", *place), prepend=True))

    def backward(module: nn.Module, *place: Any) -> None:
        handles.append(module.register_forward_hook(_on_gradient(lambda: begin("backward", *place)), prepend=True))

    handles: list[Any] = []
    forward(model, "front")
    backward(model.aggregation, "front")
    forward(model.position, "other")
    backward(model.position, "other")
    for conditioning in (model.conditioning, model.noising):
        if conditioning is not None:
            backward(conditioning, "other")
    for i, block in enumerate(model.blocks if model.backbone is None else model.units):
        forward(block, "blocks", i)
        backward(block, "blocks", i)
    forward(model.norm, "head")
    backward(model, "head")
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _on_gradient(act: Callable[[], None]) -> Callable[..., None]:
    """A forward hook that acts when the gradient of the output is there."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        made = next((x for x in tree_leaves(output) if isinstance(x, Tensor) and x.requires_grad), None)
        if made is not None:  # blocks of others may give several
            made.register_hook(lambda gradient: act())

    return hook
