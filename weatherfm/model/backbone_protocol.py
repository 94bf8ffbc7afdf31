"""What a class must be like that `model.backbone: package.module:Class` names (docs/backbones.md).

Legend: B batch, N patch token, D width, K number of conditions.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class Backbone(Protocol):
    """A `torch.nn.Module`; it may have `blocks`, and the class `tensor_parallel` and `of_data`. `grid`: patches (rows,
    columns), N row by row; `periodic`: the last column neighbours the first; `conditions`: K, 0 without a condition."""

    def __init__(
        self, width: int, depth: int, heads: int, grid: tuple[int, int], periodic: bool, conditions: int, **options: Any
    ) -> None: ...

    def __call__(self, tokens: Tensor, condition: Tensor | None) -> Tensor:
        """[B, N, D], and with `conditioning: adaln` [B, K] -> [B, N, D]."""
        ...
