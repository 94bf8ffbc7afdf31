"""A simulated rank without extrapolation: every block and every batch of a step by itself."""

from __future__ import annotations

import torch

from weatherfm.earth.domain import Domain
from weatherfm.training.config import RunConfig
from weatherfm.training.parallel.layout import Layout
from weatherfm.training.parallel.role import heaviest_rank
from weatherfm.training.plan.simulated_rank import _ranks, _simulate
from weatherfm.training.plan.step_count import StepCount


def simulate_whole(config: RunConfig, domain: Domain, layout: Layout, dtype: torch.dtype = torch.bfloat16) -> StepCount:
    with _ranks(layout, heaviest_rank(config, domain, layout)) as mesh:
        return _simulate(config, domain, mesh, dtype)
