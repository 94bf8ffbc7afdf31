"""The squared error of `deterministic_means` on the device that the fields are on (torch alone)."""

from __future__ import annotations

import torch
from torch import Tensor


def squared_error_sum(forecast: Tensor, truth: Tensor, weights: Tensor, present: Tensor | None = None) -> Tensor:
    """Sum over cases of the mean squared error over a region; a case at a time, since float64 takes much memory.

    Args:
        forecast: [B, C, H, W] in physical units.
        truth: the same, at the valid time.
        weights: [H * W] float64 of the region's mean, with sum 1 (`evaluation.regions.mean_weights`).
        present: [C, H * W] bool, where a channel has values: its mean is over these points alone. Without it, all.

    Returns:
        [C] float64.
    """
    total = torch.zeros(forecast.shape[1], dtype=torch.float64, device=forecast.device)
    for f, t in zip(forecast, truth, strict=True):
        squared = (f.double() - t.double()).square_().flatten(1)
        if present is not None:
            squared.masked_fill_(~present, 0)
        total += squared @ weights  # [C]
    return total if present is None else total / (present.double() @ weights)
