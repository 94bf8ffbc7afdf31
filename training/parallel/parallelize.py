"""From the serial model to one that computes the same function on a mesh of ranks, in one function.

Weights are of three kinds, by what ranks of `tp` do with them:

    of a channel   tokenizer rows, output rows, level-1 groups: a rank has those of its own channels alone
    of a block     attention and MLP: split by head and by hidden unit, norms kept on each (DTensor)
    shared         all others: each rank uses them on its own positions or channels, so gradients are to be summed

Legend: B batch, N position, D width.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from weatherfm.model.blocks import Block
from weatherfm.model.hierarchical import HierarchicalAggregation
from weatherfm.model.model import WeatherViT
from weatherfm.model.neighbours import NeighbourMixing
from weatherfm.training.parallel.activation_checkpointing import wrap_blocks
from weatherfm.training.parallel.adapted_layers import AdaptedParallel
from weatherfm.training.parallel.channel_parallel import gather_positions, join_channels, replicated
from weatherfm.training.parallel.channel_rows import local
from weatherfm.training.parallel.mesh import Mesh
from weatherfm.training.run_config import ParallelConfig

# Two warnings of PyTorch that do not concern us: no output of a module is changed in place, and a bias that is split
# twice may be gathered in two messages.
warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)


def parallelize(
    model: WeatherViT, mesh: Mesh | None, config: ParallelConfig, dtype: torch.dtype, compile: bool
) -> None:
    """Make a model that holds a rank's share of the channels compute with its peers; in place.

    Args:
        model: on the meta device or not; its share is that of the rank's place in `tp`.
        mesh: None: one process, nothing to split.
        config: activation checkpointing, and whether channels are split.
        dtype: of matrix products; blocks are gathered in it, gradients always reduced in float32 or better.
        compile: compile every block.
    """
    # 1. Split over tp, while every parameter is still a plain tensor: DTensor first, FSDP shards what it leaves.
    if mesh is not None:
        join_channels(model.aggregation, mesh.tp) if config.channels == "split" else split_heads(model, mesh.tp)
        split_sequence(model, mesh.tp, mesh.tp_index)
        for block in model.all_blocks:
            parallelize_module(block, mesh.tp, block_styles(cast(Block, block)))
    # 2. Compile and checkpoint what a block computes, the collectives of step 1 inside it, before FSDP puts its hooks
    # around it: those are not for the compiler, and weights are gathered once for what is made again.
    wrap_blocks(model, config.activation_checkpointing, compile)
    # 3. FSDP last, innermost first: a block is gathered when it runs and freed afterwards.
    if mesh is not None:
        shard_weights(model, mesh, config, dtype)


def split_heads(model: WeatherViT, tp: DeviceMesh) -> None:
    """Tensor parallelism alone: every rank makes the tokens of all channels and attends with some of the heads."""
    for name in ("query", "key", "value"):
        projection = model.aggregation.get_submodule(name)
        projection.register_forward_pre_hook(lambda module, inputs: (replicated(inputs[0], tp),))
    column, row = ColwiseParallel, RowwiseParallel(output_layouts=Shard(1))
    parallelize_module(model.aggregation, tp, {"query": column(), "key": column(), "value": column(), "out": row})


def split_sequence(model: WeatherViT, tp: DeviceMesh, index: int) -> None:
    """Between aggregation and output every rank has its own positions; the output rows of its channels need all."""
    model.sequence = (index, tp.size())
    model.place_positions()
    model.to_patches.register_forward_pre_hook(lambda module, inputs: (gather_positions(inputs[0], tp),))
    if model.reconstruction is not None:
        model.reconstruction.gather = partial(gather_positions, tp=tp)


def block_styles(block: Block) -> dict[str, Any]:
    """Tensor parallelism of a block's matrices, sequence parallelism of its norms and of what runs between blocks.

    What changes norms comes from outside, and so they give the rank's own positions; adaptive ones have no weights.
    """
    gathered = partial(PrepareModuleInput, input_layouts=Shard(1), desired_input_layouts=Replicate())
    columns, rows = (AdaptedParallel(s) for s in (ColwiseParallel(), RowwiseParallel(output_layouts=Shard(1))))
    styles: dict[str, Any] = {
        "attention": gathered(),
        "attention.query": columns,
        "attention.key": columns,
        "attention.value": columns,
        "attention.out": rows,
        "mlp": gathered(),
        "mlp.expand": columns,
        "mlp.contract": rows,
    }
    if block.attention_norm.weight is not None:
        own = SequenceParallel(use_local_output=True)
        styles |= {"attention_norm": own, "mlp_norm": own}
    return styles | ({"mlp.neighbours": RowsOfHiddenUnits()} if block.mlp.neighbours is not None else {})


class RowsOfHiddenUnits(ParallelStyle):
    """A weight split by hidden unit (dim 0), used on those that `ColwiseParallel` leaves on a rank."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        cast(NeighbourMixing, module).own = lambda weight: cast(DTensor, weight).to_local()
        return distribute_module(module, device_mesh, self._split)

    def _split(self, name: str, module: nn.Module, device_mesh: DeviceMesh) -> None:
        for key, parameter in list(module.named_parameters(recurse=False)):
            module.register_parameter(key, nn.Parameter(distribute_tensor(parameter, device_mesh, [Shard(0)])))


def shard_weights(model: WeatherViT, mesh: Mesh, config: ParallelConfig, dtype: torch.dtype) -> None:
    """Split weights, gradients and optimizer state over the data-parallel ranks, and shared ones over `tp` as well."""
    size = mesh.layout.dp_shard
    low = torch.float32.itemsize > dtype.itemsize
    precision = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False) if low else MixedPrecisionPolicy()
    for block in model.all_blocks:
        fully_shard(block, mesh=mesh.data, mp_policy=precision, shard_placement_fn=_evenly(size, first=0))
    shared: list[list[nn.Module]] = [[model.position], [model.norm, model.head], [model.aggregation]]
    if model.lead_time is not None:
        shared[0].append(model.lead_time)
    if model.reconstruction is not None:
        shared.append([model.reconstruction])
    if model.conditioning is not None:
        shared.append([model.conditioning])
    if model.noising is not None:
        shared.append([model.noising])
    if config.channels == "whole":
        projections: list[nn.Module] = [m for m in model.aggregation.children() if isinstance(m, nn.Linear)]
        fully_shard(projections, mesh=mesh.data)  # split by head over `tp` already
        shared += [[model.tokenizer], [model.to_patches]]
        shared += [[module] for module in (model.decoder, model.truncation) if module is not None]
    elif isinstance(model.aggregation, HierarchicalAggregation):
        for group in model.aggregation.groups.values():
            fully_shard(group, mesh=mesh.data)
    for modules in shared:
        fully_shard(modules, mesh=mesh.shared)
        # Over `tp` gradients are parts of a sum, and FSDP would average over all its ranks. Without `tp` that is right,
        # and on one shard (`dp_replicate` alone) PyTorch divides twice by a factor that it is given.
        for module in map(as_fsdp, modules if mesh.layout.tp > 1 else []):
            module.set_gradient_divide_factor(float(mesh.layout.dp))
            module.set_force_sum_reduction_for_comms(True)  # sum, then divide: gloo cannot do both in one
    # The root keeps what is left, the rows of the rank's channels, for all of a step: they are few.
    fully_shard(model, mesh=mesh.data, shard_placement_fn=_evenly(size, first=1))


def reshard(model: nn.Module) -> None:
    """Forget weights that are still gathered: the root's are, after a forward pass without a backward one.

    Until then the model's parameters are whole tensors, not the parts that optimizer, average and checkpoints know.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def as_fsdp(module: nn.Module) -> FSDPModule:
    """`fully_shard` changes a module's class in place, which type checkers cannot see."""
    return cast(FSDPModule, module)


def _evenly(size: int, first: int) -> Callable[[nn.Parameter], Shard | None]:
    """Shard the first dim, from `first` on, that divides evenly and that `tp` does not split; None: dim 0, unevenly.

    Rows of channels are few and uneven, so there FSDP splits the width; a matrix split by `tp` along dim 0 may be
    split along it again where that comes out even.
    """

    def choose(parameter: nn.Parameter) -> Shard | None:
        own = local(parameter)
        split = [p.dim for p in getattr(parameter, "placements", ()) if isinstance(p, Shard)]
        dims = [d for d in range(min(first, own.ndim - 1), own.ndim) if own.shape[d] % size == 0]
        return next((Shard(d) for d in dims if d == 0 or d not in split), None)

    return choose
