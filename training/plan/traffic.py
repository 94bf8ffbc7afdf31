"""What a rank sends in a collective, by the ring algorithm that bandwidth-bound collectives use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_leaves

from weatherfm.training.parallel.mesh import Mesh

_SENT = {
    "all-gather": lambda n: n - 1.0,  # one's own part goes round past all others
    "reduce-scatter": lambda n: (n - 1.0) / n,
    "all-reduce": lambda n: 2 * (n - 1.0) / n,  # a reduce-scatter, then an all-gather
    "all-to-all": lambda n: (n - 1.0) / n,
    "broadcast": lambda n: 1.0,
}
"""Bytes sent by one of n ranks for each byte of what it hands in."""

_NAMESPACES = ("c10d", "_c10d_functional", "_dtensor")
_SILENT = (
    "wait_tensor",
    "_wrap_tensor_autograd",
    "barrier",
    "monitored_barrier_",
    "mesh_get_process_group",
    "check_for_nan",
)
"""Operators of these that send nothing to speak of."""


class Sent(NamedTuple):
    """What one collective makes a rank send."""

    kind: str
    group: str
    """Name of the process group."""
    size: int
    """Bytes."""


def sent_by(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Sent | None:
    """What an operator makes this rank send; None for all but collectives.

    Raises:
        NotImplementedError: a collective of unknown cost, so that none is passed over in silence.
    """
    if func.namespace not in _NAMESPACES or func._opname in _SILENT:
        return None
    given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | dict(kwargs)
    name = func._opname.replace("_", "")
    kind = next((kind for kind in _SENT if kind.replace("-", "") in name), None)
    if kind is None:
        raise NotImplementedError(f"what the collective {func} sends is not known here")
    group = _group(next(given[key] for key in ("process_group", "group_name") if key in given))
    handed_in = next(v for k, v in given.items() if k.startswith("input") or k in ("tensors", "tensor"))
    size = sum(t.numel() * t.element_size() for t in tree_leaves(handed_in) if isinstance(t, Tensor))
    count = group.size()
    return Sent(kind, group.group_name, round(size * _SENT[kind](count)) if count > 1 else 0)


def axis_names(mesh: Mesh | None) -> dict[str, str]:
    """The axis of the mesh that each process group serves; of groups that serve several the innermost is named."""
    if mesh is None:
        return {}
    names = {dist.group.WORLD.group_name: "world"}  # type: ignore[union-attr]  # a mesh exists: so does the group
    axes = {"dp_shard x tp": mesh.shared, "dp_shard": mesh.data, "tp": mesh.tp}
    for axis, part in axes.items():
        groups = part.get_all_groups()
        if len(groups) > 1:
            names[groups[0].group_name] = "dp_replicate"
        names[groups[-1].group_name] = axis
    return names


def _group(given: Any) -> dist.ProcessGroup:
    if isinstance(given, str):
        return dist.distributed_c10d._resolve_process_group(given)  # type: ignore[arg-type]
    if isinstance(given, torch.ScriptObject):
        return dist.ProcessGroup.unbox(given)
    return given
