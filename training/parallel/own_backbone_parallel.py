"""A backbone of the user's own on the ranks of `tp`, which all go through it with all positions of a sample.

    gather    own positions -> all positions                     all-gather     | reduce-scatter
    columns   all ranks' tokens -> own outputs                   -              | -
    rows      own inputs -> parts of a sum -> the sum, on all    all-reduce     | all-reduce
    keep      all positions -> own positions                     own slice      | zeros elsewhere

By the house's rule (channel_parallel.py) a rank's gradient is its part of a sum. Each goes on with its own positions,
so at the end it has the gradient of these, and zeros elsewhere: that is a part of the sum, and stays one through all
that ranks compute alike. So a weight that all have gets its part of the sum on each of them, which FSDP adds up, and
nothing is sent on the way back but where a weight that one rank alone has needs the whole gradient: behind `rows`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, cast

import torch
import torch.distributed._functional_collectives as collectives
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from weatherfm.model.model import WeatherViT
from weatherfm.model.tensor_plan import split_of, split_size
from weatherfm.training.parallel.channel_parallel import gather_positions


def split_backbone(model: WeatherViT, tp: DeviceMesh, index: int) -> None:
    """Split what the class' `tensor_parallel` names, and let a rank come in and go on with its own positions.

    Args:
        model: with a backbone of the user's own; what is split of it divides evenly (`plan_problems`).
        tp: ranks that work on one sample.
        index: of this rank among them.
    """
    backbone, count = cast(nn.Module, model.backbone), tp.size()
    if count == 1:
        return
    for path, how in split_of(model.config.backbone, backbone).items():
        if how == "divided":
            owner, _, attribute = path.rpartition(".")
            setattr(backbone.get_submodule(owner), attribute, split_size(backbone, path, how) // count)
        else:
            _split_linear(cast(nn.Linear, backbone.get_submodule(path)), tp, columns=how == "columns")

    def enter(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return gather_positions(given[0], tp), *given[1:]

    def leave(module: nn.Module, given: tuple[Any, ...], made: Tensor) -> Tensor:
        own = made.shape[1] // count
        return made.narrow(1, index * own, own)

    backbone.register_forward_pre_hook(enter)
    backbone.register_forward_hook(leave)  # behind that which looks at the shape


def split_layers(unit: nn.Module) -> list[nn.Module]:
    """The linear layers of a module of which each rank of `tp` has a part."""
    return [part for part in unit.modules() if isinstance(part, nn.Linear) and isinstance(part.weight, DTensor)]


def _split_linear(layer: nn.Linear, tp: DeviceMesh, columns: bool) -> None:
    weight = distribute_tensor(layer.weight.detach(), tp, [Shard(0) if columns else Shard(1)])
    layer.weight = nn.Parameter(weight, layer.weight.requires_grad)
    if layer.bias is not None:
        bias = distribute_tensor(layer.bias.detach(), tp, [Shard(0) if columns else Replicate()])
        layer.bias = nn.Parameter(bias, layer.bias.requires_grad)
    layer.forward = partial(_own_outputs if columns else _sum_of_parts, layer)  # type: ignore[method-assign]


def _own_outputs(layer: nn.Linear, x: Tensor) -> Tensor:
    """[..., in] -> [..., out / tp]."""
    return F.linear(x, *_own(layer.weight, layer.bias))


def _sum_of_parts(layer: nn.Linear, x: Tensor) -> Tensor:
    """[..., in / tp] -> [..., out]; the bias is added once."""
    weight, *bias = _own(layer.weight, layer.bias)
    whole: Tensor = _Summed.apply(F.linear(x, weight), cast(DTensor, layer.weight).device_mesh)
    return whole + bias[0].to(whole.dtype) if bias else whole


def _own(*weights: Tensor | None) -> Iterable[Tensor]:
    """A rank's parts; of what all have, its gradient is a part of a sum."""
    for weight in weights:
        if weight is not None:
            split = cast(DTensor, weight)
            gradient = [Partial() if p.is_replicate() else p for p in split.placements]
            yield split.to_local(grad_placements=gradient)


class _Summed(torch.autograd.Function):
    """The sum of the ranks' tensors, on each; backward, of their gradients, which are parts of a sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tp: DeviceMesh) -> Tensor:
        ctx.tp = tp
        return collectives.wait_tensor(collectives.all_reduce(x, "sum", tp))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return collectives.wait_tensor(collectives.all_reduce(gradient.contiguous(), "sum", ctx.tp)), None
