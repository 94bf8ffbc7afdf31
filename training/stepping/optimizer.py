"""AdamW with parameter groups, the learning rate of every step, and clipping by the global gradient norm."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from weatherfm.model.lora import is_factor
from weatherfm.training.parallel.channel_rows import local
from weatherfm.training.run_config import TrainingConfig


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay pulls a parameter to zero: matrices (and patch embeddings) do.

    So do the factors of a low-rank change, which is drawn to the weights that training started from by that. Biases,
    norms, queries, channel and position embeddings do not: for them zero is no natural value.
    """
    matrix = name.rpartition(".")[2] == "weight" or is_factor(name)
    return matrix and parameter.ndim >= 2 and not name.endswith("position.weight")


def rate_factor(name: str, depth: int, layer_decay: float | None) -> float:
    """Share of the learning rate of a weight: 1 above the blocks, and from each block to the one below it less by
    `layer_decay` (BEiT, arXiv 2106.08254, appendix); the lowest is that of all that makes tokens."""
    name = name.removeprefix("conditioning.")  # what changes a block's norms is of that block
    if layer_decay is None or name.startswith(
        ("norm.", "last.", "head.", "to_patches.", "decoder.", "truncation.", "reconstruction.")
    ):
        return 1.0
    layer = int(name.split(".")[1]) if name.startswith("blocks.") else -1
    return layer_decay ** (depth - layer)


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float | None = None) -> list[dict[str, Any]]:
    """Every parameter that learns in one group: of one weight decay, share of the learning rate and mesh of ranks."""
    groups: dict[tuple[bool, DeviceMesh | None, float], list[nn.Parameter]] = {}
    depth = len(getattr(model, "blocks", ()))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
            factor = rate_factor(name, depth, layer_decay)
            groups.setdefault((decays(name, parameter), mesh, factor), []).append(parameter)
    return [
        {"params": ps, "weight_decay": weight_decay if decay else 0.0, "rate_factor": factor}
        for (decay, _, factor), ps in groups.items()
    ]


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over the parameter groups, its moments in place; the learning rate is set anew before every step."""
    layer_decay = None if config.start_from is None else config.start_from.layer_decay
    groups = parameter_groups(model, config.weight_decay, layer_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)
    for parameter in (p for group in groups for p in group["params"]):  # there from the start, to be restored into
        optimizer.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter, requires_grad=False),
            "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
        }
    return optimizer


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Learning rate of optimizer step `step` (from 0): a linear warm-up, then what `training.schedule` says.

    cosine: half a cosine to the minimum. constant_cooldown: constant, then, with d of the D last steps done, down to
    the minimum as 1 - sqrt(d / D): of the shapes that arXiv 2405.18392 compares, the one that ends best.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    span = config.learning_rate - config.min_learning_rate
    if (begins := config.cooldown_begins) is not None:
        if step <= begins:  # to the bit, whatever the minimum is: nothing before the cooldown follows from its end
            return config.learning_rate
        done = (step - begins) / (config.steps - begins)
        return config.min_learning_rate + span * (1 - math.sqrt(min(done, 1.0)))
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.min_learning_rate + span * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def describe_schedule(config: TrainingConfig) -> str:
    """The learning rate over the whole run, in words."""
    warmup = f"rising over {config.warmup_steps} steps, " if config.warmup_steps else ""
    end = f"to {config.min_learning_rate:g}"
    begins = config.cooldown_begins
    rest = f"falling along a cosine {end}" if begins is None else f"constant, from step {begins} on falling {end}"
    return f"learning rate {config.learning_rate:g}: {warmup}{rest}"


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Give every parameter group its share of this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = value * group["rate_factor"]


def squared_gradients(parameters: Iterable[nn.Parameter]) -> Tensor:
    """This rank's part of the squared norm of all gradients as one vector, a scalar on their device.

    Summed over all ranks it is the square of the true global norm, whatever meshes the parameters live on: what
    several ranks hold alike counts in parts. Not finite where a gradient is not.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch._foreach_norm([local(g) for g in gradients])
    torch._foreach_mul_(norms, [_copies(g) ** -0.5 for g in gradients])
    return torch.stack(norms).square().sum()


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float | None, norm: Tensor) -> None:
    """Scale all gradients so that their `norm` becomes at most `max_norm`; None: leave them.

    A norm that is not finite spoils no gradient but those it comes from: `refuse_step` finds them by that.
    """
    if max_norm is not None:
        gradients = [local(p.grad) for p in parameters if p.grad is not None]
        factor = (max_norm / (norm + 1e-6)).clamp(max=1.0).nan_to_num(1.0)
        torch._foreach_mul_(gradients, factor.to(gradients[0].dtype))


def _copies(tensor: Tensor) -> int:
    """Ranks that hold the same part of a tensor."""
    if not isinstance(tensor, DTensor):
        return 1
    axes = zip(tensor.placements, tensor.device_mesh.shape, strict=True)
    return math.prod(size for placement, size in axes if placement.is_replicate())
