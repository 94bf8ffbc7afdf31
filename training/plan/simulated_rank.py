"""One rank of any number, simulated on this machine: a process group that sends nothing, tensors that hold nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.tensor import debug

from weatherfm.earth.domain import Domain
from weatherfm.errors import InputError
from weatherfm.model.aggregation import AggregationConfig
from weatherfm.training.parallel.build_model import meta_model
from weatherfm.training.parallel.layout import Layout
from weatherfm.training.parallel.mesh import Mesh, build_mesh
from weatherfm.training.parallel.role import find_role, heaviest_rank
from weatherfm.training.plan.rank_step import count_step, planned_ground
from weatherfm.training.plan.step_count import StepCount, accumulated, extrapolate
from weatherfm.training.run_config import RunConfig
from weatherfm.training.starting.learning import freeze

_DEPTHS = (3, 4)
"""Depths that deeper models are extrapolated from: a first block, a last one, and one or two between."""
_BATCHES = 2
"""Batches of a step that are simulated: the first, and one that finds gradients there."""


def simulate(config: RunConfig, domain: Domain, layout: Layout, dtype: torch.dtype = torch.bfloat16) -> StepCount:
    """Count one step of the rank of a layout that holds most channels.

    Args:
        config: of the run; its `parallel` says how channels are split and what is checkpointed.
        domain: of the whole model.
        layout: on which the model can be split (`check_layout`).
        dtype: of matrix products.

    Raises:
        InputError: this process belongs to a process group already.
    """
    depth, batches, alike = config.model.depth, config.training.accumulate, not _names_blocks(config)
    if batches > _BATCHES:
        config = _changed(config, training={"accumulate": _BATCHES})
    with _ranks(layout, heaviest_rank(config, domain, layout)) as mesh:
        depths = _DEPTHS if depth > _DEPTHS[1] and alike else (depth,)
        counts = [_simulate(_changed(config, model={"depth": d}), domain, mesh, dtype) for d in depths]
    count = extrapolate(counts[0], counts[1], _DEPTHS, depth) if len(counts) > 1 else counts[0]
    return count if batches <= _BATCHES else accumulated(count, _BATCHES, batches)


def _names_blocks(config: RunConfig) -> bool:
    """Whether some blocks are frozen by number, so that others are not like them."""
    start = config.training.start_from
    return start is not None and any(part.startswith("blocks.") for part in start.freeze)


def _simulate(config: RunConfig, domain: Domain, mesh: Mesh | None, dtype: torch.dtype) -> StepCount:
    config = _changed(config, training={"compile": False}, model={"aggregation": on_a_gpu(config.model.aggregation)})
    role = find_role(config.parallel, config.model, domain, mesh)
    model = meta_model(config, domain, role, dtype)
    ground = planned_ground(config, model, domain, role, "meta")
    for block in model.all_blocks:
        block.attention.dropout = 0.0  # type: ignore[union-attr]  # a GPU's attention keeps no mask, this CPU's would
    # on meta there are tensors without values, of no process; inside they become simulated ones of this device
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        ground.to_empty("cpu")
        freeze(model, config.training.start_from)
        return count_step(config, model, ground, dtype)


def on_a_gpu(aggregation: AggregationConfig) -> AggregationConfig:
    """With the size of blocks that a GPU takes, which is what is planned for, where it is left open."""
    return aggregation.model_copy(update={"block_mib": aggregation.block_bytes("cuda") / 2**20})


@contextmanager
def _ranks(layout: Layout, rank: int) -> Iterator[Mesh | None]:
    """The mesh of a layout as one of its ranks sees it; None for one device."""
    if layout.devices == 1:
        yield None
        return
    if dist.is_initialized():
        raise InputError("ranks cannot be simulated inside a job of several ranks; run the plan in one process")
    from torch.testing._internal.distributed.fake_pg import FakeStore  # registers the backend

    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=layout.devices)
    try:
        yield build_mesh(layout, "cpu")
    finally:
        dist.destroy_process_group()
        # DTensor remembers decisions with their mesh, and the next layout's may equal this one's but for its groups
        debug._clear_python_sharding_prop_cache()
        debug._clear_fast_path_sharding_prop_cache()


def _changed(config: RunConfig, **sections: dict[str, Any]) -> RunConfig:
    """The same run with other settings in some of its sections."""
    changed = {name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    return config.model_copy(update=changed)
