"""AdamW with parameter groups, the learning rate of every step, and clipping by the global gradient norm."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from weatherfm.training.config import TrainingConfig


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay pulls a parameter to zero: matrices (and patch embeddings) do.

    Biases, norms, queries, channel and position embeddings do not: for them zero is no natural value.
    """
    return name.rpartition(".")[2] == "weight" and parameter.ndim >= 2


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Every parameter in one of two groups: with and without weight decay."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in named if decays(name, p)], "weight_decay": weight_decay},
        {"params": [p for name, p in named if not decays(name, p)], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over the parameter groups; the learning rate is set anew before every step."""
    groups = parameter_groups(model, config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Learning rate of optimizer step `step` (from 0): linear warm-up, then half a cosine to the minimum."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    span = config.learning_rate - config.min_learning_rate
    return config.min_learning_rate + span * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = value


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Norm of all gradients as one vector, a scalar on their device; not finite where a gradient is not."""
    return get_total_norm([p.grad for p in parameters if p.grad is not None])


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float | None, norm: Tensor) -> None:
    """Scale all gradients so that their `norm` becomes at most `max_norm`; None: leave them."""
    if max_norm is not None:
        clip_grads_with_norm_(parameters, max_norm, norm)
