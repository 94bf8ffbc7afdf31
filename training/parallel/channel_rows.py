"""Tensors by names that no layout changes: what belongs to a channel is one tensor a channel.

A rank holds other channels on another layout, but `tokenizer.weight.z500` is the same everywhere. All other weights
keep the name they have in the serial model; DTensor knows where their parts are.

Legend: C own channel or input, D width, P values in a patch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from weatherfm.model.initial import row_names
from weatherfm.model.model import WeatherViT


def belongs_to_channels(name: str) -> bool:
    """Whether a parameter is a channel's, or a group's of channels: only the ranks that hold these know it."""
    return name.startswith(("tokenizer.", "to_patches.", "decoder.", "truncation.", "aggregation.groups."))


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, sharing its memory; a plain tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def rows_here(rows: Sequence[str], tensor: Tensor) -> Sequence[str]:
    """Of the names of rows (dim 0) of a tensor those that this rank has: all, unless FSDP spreads rows over ranks."""
    if not isinstance(tensor, DTensor) or not any(isinstance(p, Shard) and p.dim == 0 for p in tensor.placements):
        return rows
    size = -(-len(rows) // tensor.device_mesh.size(-1))
    first = tensor.device_mesh.get_local_rank(-1) * size
    return rows[first : first + size]


def named_parts(model: WeatherViT, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """A tensor shaped and placed like the parameter `name`, by layout-free name; views, not copies.

    With rows spread over ranks (FSDP along dim 0), only those this rank holds.
    """
    rows = row_names(model, name)
    if rows is None:
        yield name, tensor
        return
    if not isinstance(tensor, DTensor):
        yield from ((f"{name}.{row}", tensor[i]) for i, row in enumerate(rows))
        return
    own, mesh = tensor.to_local(), tensor.device_mesh
    if any(isinstance(p, Shard) and p.dim == 0 for p in tensor.placements):
        yield from ((f"{name}.{row}", own[i]) for i, row in enumerate(rows_here(rows, tensor)))
        return
    placements = [Shard(p.dim - 1) if isinstance(p, Shard) else p for p in tensor.placements]
    stride = torch.empty(tensor.shape[1:], device="meta").stride()
    for i, row in enumerate(rows):
        part = DTensor.from_local(own[i], mesh, placements, run_check=False, shape=tensor.shape[1:], stride=stride)
        yield f"{name}.{row}", part


def local_part(whole: Tensor, like: Tensor) -> Tensor:
    """The part of a whole tensor that this rank holds of `like`, a DTensor or a plain tensor of the same shape."""
    if not isinstance(like, DTensor):
        return whole
    part = whole
    for axis in reversed(range(like.device_mesh.ndim)):  # tp splits first, FSDP what it leaves
        dim = getattr(like.placements[axis], "dim", None)  # of Shard, and of its strided form where both split a dim
        if dim is not None:
            pieces = part.chunk(like.device_mesh.size(axis), dim)
            rank = like.device_mesh.get_local_rank(axis)
            part = pieces[rank] if rank < len(pieces) else part.narrow(dim, 0, 0)
    return part
