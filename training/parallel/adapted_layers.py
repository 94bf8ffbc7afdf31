"""Low-rank factors beside a matrix that `tp` splits: placed to fit it, without a message more for tokens.

    split by output (query, key, value, expand)   A on every rank   B by its rows
    split by input (out, contract)                A by its columns  B on every rank

Each rank multiplies its own parts, as it does with its part of the matrix, and adds before anything is sent: what comes
out is split, or a part of a sum, as the matrix' own product is. Of the factor that all ranks have, and of tokens, the
gradient is the sum over ranks; each rank makes its part, and for the factor FSDP adds them up.

Legend: B batch, N position, r rank of the factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle

from weatherfm.model.lora import FACTORS, AdaptedLinear, low_rank_product


class AdaptedParallel(ParallelStyle):
    """A style of a linear layer, with or without factors beside it.

    Args:
        style: `ColwiseParallel` or `RowwiseParallel`, of the matrix.
    """

    def __init__(self, style: ParallelStyle) -> None:
        super().__init__()
        self.style = style
        columns = isinstance(style, ColwiseParallel)
        placements: Sequence[Placement] = (Replicate(), Shard(0)) if columns else (Shard(1), Replicate())
        self.placements = dict(zip(FACTORS, placements, strict=True))
        self.output: Placement = Shard(2) if columns else Partial()

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        factors = {name: getattr(module, name) for name in FACTORS} if isinstance(module, AdaptedLinear) else {}
        for name in factors:
            delattr(module, name)  # the style would place all that it finds
        module = self.style._apply(module, device_mesh)
        for name, factor in factors.items():
            placed = distribute_tensor(factor, device_mesh, [self.placements[name]])
            module.register_parameter(name, nn.Parameter(placed))
        if isinstance(module, AdaptedLinear):
            module.beside = partial(_own_products, scale=module.scale, output=self.output)
        return module


def _own_products(x: DTensor, a: DTensor, b: DTensor, scale: float, output: Placement) -> DTensor:
    """`low_rank_product` of this rank's parts, [B, N, out] in all, placed as `output` says."""
    own = low_rank_product(_own(x), _own(a), _own(b), scale)
    return DTensor.from_local(own, x.device_mesh, [output], run_check=False)


def _own(tensor: DTensor) -> Tensor:
    """This rank's part; of what it shares with others, a rank's gradient is its part of a sum."""
    return tensor.to_local(grad_placements=[Partial() if p.is_replicate() else p for p in tensor.placements])
