"""The device meshes of a layout, and this rank's place in them."""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from weatherfm.training.parallel.layout import Layout


@dataclass(frozen=True)
class Mesh:
    """The meshes that weights live on; dp_replicate is their first axis where there are copies."""

    layout: Layout
    data: DeviceMesh
    """([dp_replicate,] dp_shard): ranks with the same share of channels and heads."""
    tp: DeviceMesh
    """(tp): ranks that work on one sample."""
    shared: DeviceMesh
    """([dp_replicate,] dp_shard x tp): ranks that split the weights which all of them use on other positions."""

    @property
    def tp_index(self) -> int:
        """Which share of channels, heads and positions this rank holds."""
        return self.tp.get_local_rank()

    @property
    def dp_index(self) -> int:
        """Which part of a batch this rank sees; the same for all of a tp group."""
        return dist.get_rank() // self.layout.tp


def build_mesh(layout: Layout, device_type: str) -> Mesh:
    """Meshes over all ranks of the default process group, which must be `layout.devices`."""
    axes = ("dp_replicate", "dp_shard", "tp")
    mesh = init_device_mesh(device_type, (layout.dp_replicate, layout.dp_shard, layout.tp), mesh_dim_names=axes)
    both = init_device_mesh(
        device_type, (layout.dp_replicate, layout.dp_shard * layout.tp), mesh_dim_names=("dp_replicate", "shard")
    )
    if layout.dp_replicate > 1:
        return Mesh(layout, data=mesh["dp_replicate", "dp_shard"], tp=mesh["tp"], shared=both)
    return Mesh(layout, data=mesh["dp_shard"], tp=mesh["tp"], shared=both["shard"])
