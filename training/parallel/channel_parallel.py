"""What joins the ranks that hold different channels of one sample, as redistributions of DTensor.

The rule that makes all of it right: **between ranks of `tp`, a rank's gradient is its part of a sum.** Each rank
scores its own channels, so the loss is a sum over ranks; a weight that several ranks use has the sum of their
gradients (taken by FSDP, see parallelize.py). Forward and backward of the five crossings:

    sum_positions      partial sums [B, N, ...]      -> own positions    reduce-scatter | all-gather
    gather_positions   own positions                 -> all positions    all-gather     | reduce-scatter
    gather_groups      own groups' tokens            -> all groups'      all-gather     | own slice times tp
    split_positions    all positions, on every rank  -> own positions    own slice      | all-gather, divided by tp
    keep_positions     all positions, on every rank  -> all positions    nothing        | all-reduce, divided by tp

The last three enclose the final attention of the hierarchical form, which every rank computes whole (D-CHAG, arXiv
2506.21411); the last of them is for models of which every rank computes all positions (docs/front_end.md). There all
ranks hold the same gradient; by the rule each may keep one tp-th of it, so that the sum is the gradient again, and the
sum of the ranks' gradients for a group's token is tp times one's own: nothing need be sent.

Legend: B batch, N position, G group, D width, h head.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.distributed._functional_collectives as collectives
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard

from weatherfm.model.aggregation import ChannelAttention
from weatherfm.model.hierarchical import HierarchicalAggregation

_POSITIONS, _GROUPS = Shard(1), Shard(2)


def join_channels(aggregation: ChannelAttention | HierarchicalAggregation, tp: DeviceMesh) -> None:
    """D-CHAG: each rank aggregates its own channels; what is left to join are sums or group tokens."""
    if isinstance(aggregation, ChannelAttention):
        aggregation.merge = partial(merge_softmax, tp=tp)
    else:
        aggregation.gather = partial(gather_groups, tp=tp)
        aggregation.split = partial(split_positions, tp=tp)


def sum_positions(x: Tensor, tp: DeviceMesh) -> Tensor:
    """Add the ranks' [B, N, ...]; each gets its own positions: [B, N / tp, ...]."""
    return _cross(x, tp, Partial(), _POSITIONS)


def gather_positions(x: Tensor, tp: DeviceMesh) -> Tensor:
    """All positions [B, N, ...] from each rank's own [B, N / tp, ...]; ranks go on with different channels."""
    return _cross(x, tp, _POSITIONS, Replicate(), gradient=Partial())


def gather_groups(tokens: Tensor, tp: DeviceMesh) -> Tensor:
    """Tokens of all groups [B, N, G, D] from each rank's [B, N, G / tp, D]; all go on with the same computation."""
    return _cross(_Scaled.apply(tokens, float(tp.size())), tp, _GROUPS, Replicate(), gradient=Replicate())


def split_positions(x: Tensor, tp: DeviceMesh) -> Tensor:
    """Own positions [B, N / tp, D] of [B, N, D], which is the same on every rank."""
    return _cross(share_gradient(x, tp), tp, Replicate(), _POSITIONS)


def keep_positions(x: Tensor, tp: DeviceMesh) -> Tensor:
    """All positions [B, N, D], which are the same on every rank; ranks go on with different channels."""
    return _cross(share_gradient(x, tp), tp, Replicate(), Replicate(), gradient=Partial())


def share_gradient(x: Tensor, tp: DeviceMesh) -> Tensor:
    """The same values, where every rank holds the same gradient: each keeps one tp-th, so that the sum is right."""
    return _Scaled.apply(x, 1.0 / tp.size())


def replicated(x: Tensor, tp: DeviceMesh) -> DTensor:
    """The same tensor on every rank, for products that each rank does with its own columns of a weight.

    A rank's gradient of it comes from its own columns: by our rule that is what it keeps. DTensor alone would add the
    ranks' gradients up, which for tokens of all channels is the largest message there could be.
    """
    return _Replicated.apply(x, tp)


def merge_softmax(mixed: Tensor, log_mass: Tensor, tp: DeviceMesh) -> Tensor:
    """Attention over all channels from each rank's attention over its own, exact (as in flash-decoding).

    Args:
        mixed: [B, N, D] weighted means of the values of the rank's channels, D = heads x head size.
        log_mass: [B, N, h] logarithm of the sum of the exponentials of the scores they were weighted by.
        tp: ranks that hold the other channels.

    Returns:
        [B, N / tp, D] the mean over all channels, at the rank's own positions.
    """
    with torch.no_grad():  # any reference gives the same quotient; the largest keeps the exponentials in range
        largest = collectives.all_reduce(log_mass, "max", tp)
    weight = (log_mass - largest).exp().to(mixed.dtype)  # [B, N, h], rounded alike in both sums
    weighted = mixed.unflatten(-1, (log_mass.shape[-1], -1)) * weight.unsqueeze(-1)  # [B, N, h, d]
    total, mass = sum_positions(weighted, tp), sum_positions(weight.to(log_mass.dtype), tp)
    return (total / mass.unsqueeze(-1)).flatten(-2).to(mixed.dtype)  # [B, N / tp, D]


def _cross(x: Tensor, tp: DeviceMesh, have: Placement, want: Placement, gradient: Placement | None = None) -> Tensor:
    """A local tensor from one placement to another; `gradient` is how the ranks' gradients of the result relate."""
    whole = DTensor.from_local(x, tp, [have], run_check=False)
    return whole.redistribute(placements=[want]).to_local(grad_placements=None if gradient is None else [gradient])


class _Scaled(torch.autograd.Function):
    """The same values; gradients times a number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


class _Replicated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, tp: DeviceMesh) -> DTensor:
        return DTensor.from_local(x, tp, [Replicate()], run_check=False)

    @staticmethod
    def backward(ctx: Any, gradient: DTensor) -> tuple[Tensor, None]:
        return gradient.to_local(), None
