"""The most memory that a rank holds, measured, beside what the plan says."""

from __future__ import annotations

import torch

from weatherfm.training.parallel.build_model import build_model
from weatherfm.training.parallel.mesh import Mesh
from weatherfm.training.parallel.role import find_role
from weatherfm.training.plan.rank_step import count_step, planned_ground
from weatherfm.training.run_config import RunConfig
from weatherfm.training.starting.run_start import RunStart
from weatherfm.training.validating.expected import as_counted
from weatherfm.training.validating.table import Row

_SHARE = 0.1
"""Of the plan. Between operations an allocator rounds, and messages hold their buffers a little longer."""
_WORKSPACE = 1e8
"""Bytes of a GPU that kernels and libraries take for themselves, which no plan counts."""


def counted_peak(start: RunStart, mesh: Mesh | None, device: torch.device, dtype: torch.dtype) -> float:
    """Bytes that this rank's tensors take at most in a step, counted on real ones; all ranks must call it together.

    Where there is no GPU, nothing else tells them from all that a process holds besides.
    """
    config = as_counted(start.config, device)
    role = find_role(config.parallel, config.model, start.domain, mesh)
    model = build_model(config, start.domain, role, device, dtype, known_blocks=start.known_blocks)
    start.freeze(model)
    ground = planned_ground(config, model, start.domain, role, device)
    return count_step(config, model, ground, dtype).peak


def memory_row(config: RunConfig, found: float, planned: float, device: torch.device) -> Row:
    """Most of any rank against the plan, both in bytes."""
    gpu = device.type == "cuda"
    how = "allocated in the timed steps" if gpu else "counted on real tensors"
    limit = _SHARE * planned + (_WORKSPACE if gpu else 0.0)
    few = gpu and bool(config.data.mix)  # steps of the store that takes most may not be among the timed ones
    ok = found - planned <= limit if few else abs(found - planned) <= limit
    bound = f"within {_SHARE:.0%}{' and 0.1 GB' if gpu else ''}"
    told = f"{_size(found)} {how}, {_size(planned)} planned"
    return Row("memory", "peak, most of any rank", told, bound, ok, found, planned)


def _size(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
