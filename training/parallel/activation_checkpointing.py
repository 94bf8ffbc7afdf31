"""Which activations of the transformer blocks are kept for the backward pass and which are made again; compilation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
    set_checkpoint_early_stop,
)

from weatherfm.model.model import WeatherViT

_KEPT = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_attention_math.default,
}
"""Results that are dear to compute: matrix products and attention."""


def wrap_blocks(model: WeatherViT, mode: Literal["none", "block", "selective"], compile: bool) -> None:
    """Let the blocks of a model forget their activations, compiled or not; in place.

    block: a block keeps its input alone. selective: it keeps the results of matrix products as well and makes
    norms, GELU and the like again. The compiler cannot enter a context that checkpointing needs when it runs by itself,
    so the compiled block is what is checkpointed; but which results are kept only the compiler can decide inside of
    what it compiles, so there selective checkpointing is part of the graph.
    """
    for block in model.all_blocks:
        block.forward = _wrapped(block.forward, mode, compile)


def _wrapped(forward: Callable[..., Any], mode: str, compile: bool) -> Callable[..., Any]:
    if mode == "selective":
        context: dict[str, Any] = {"context_fn": partial(create_selective_checkpoint_contexts, _policy)}
        if compile:
            return torch.compile(partial(checkpoint, forward, use_reentrant=False, **context))
        return _forgetful(forward, context)
    computed = torch.compile(forward) if compile else forward
    return computed if mode == "none" else _forgetful(computed, {})


def _forgetful(forward: Callable[..., Any], context: dict[str, Any]) -> Callable[..., Any]:
    def run(*given: torch.Tensor) -> Any:
        # stopped early, a block made again would leave its last collective unwaited for, and that its buffer for ever
        with set_checkpoint_early_stop(False):
            return checkpoint(forward, *given, use_reentrant=False, **context)

    return run


def _policy(context: Any, operation: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE
