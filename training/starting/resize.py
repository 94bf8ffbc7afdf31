"""Weights of another patch size or grid: what the trained model computes, as nearly as the new one can.

Legend: P values in an old patch, Q in a new one, D width.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

Patch = tuple[int, int]


def embedding_of_patches(weight: Tensor, old: Patch, new: Patch) -> Tensor:
    """Patch embedding [..., P] -> [..., Q]: FlexiViT's pseudo-inverse resize (arXiv 2212.08013).

    With B [Q, P] bilinear interpolation of an old patch to the new size, (B^T)+ w is the embedding that gives of a
    patch B x what w gives of x: exactly where the new patch is larger, in the least squares else.
    """
    if old == new:
        return weight
    return (weight.double() @ torch.linalg.pinv(_interpolation(old, new))).to(weight.dtype)


def patches_of_output(weight: Tensor, old: Patch, new: Patch, dim: int) -> Tensor:
    """Output weights, whose `dim` holds the P values of a patch, for patches of Q: their bilinear interpolation."""
    if old == new:
        return weight
    moved = weight.double().movedim(dim, -1) @ _interpolation(old, new).T
    return moved.movedim(-1, dim).to(weight.dtype)


@cache
def _interpolation(old: Patch, new: Patch) -> Tensor:
    """[Q, P] float64."""
    points = torch.eye(old[0] * old[1], dtype=torch.float64).reshape(-1, 1, *old)
    moved = F.interpolate(points, new, mode="bilinear", align_corners=False)  # [P, 1, *new]
    return moved.flatten(1).T.contiguous()
