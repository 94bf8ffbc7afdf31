"""What `plan` says of a step before it is taken: of the layout and of one rank alone, in one process."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from weatherfm.data_pipeline.machine.host_memory import available_memory
from weatherfm.earth.domain import Domain
from weatherfm.training.parallel.layout import Layout
from weatherfm.training.plan.simulated_rank import simulate
from weatherfm.training.plan.step_count import StepCount
from weatherfm.training.run_config import RunConfig
from weatherfm.training.validating.rates import product_rate
from weatherfm.training.validating.shortened import largest_that_fits, with_changes

ALONE = Layout(1, 1, 1)
_SECONDS = 60.0
"""That a step of one rank in float64 may take."""
_REACHED = 0.2
"""Share of the rate of a large product that a step reaches, at least."""


@dataclass(frozen=True)
class Expected:
    """For one run on one layout."""

    step: StepCount
    """Of the rank that holds most."""
    flops: float
    """Of one optimizer step of the whole model, without what checkpointing makes again or ranks do twice."""
    compared: RunConfig | None
    """What one rank alone can hold and compute, to be compared with the layout; None: nothing of it."""


def expect(
    config: RunConfig, to_compare: RunConfig, domain: Domain, layout: Layout, dtype: torch.dtype, device: torch.device
) -> Expected:
    """Simulate what is about to be measured.

    Args:
        config: the run that is timed.
        to_compare: the run whose function is compared, if it is not too large.
        domain: of the whole model.
        layout: of the devices.
        dtype: of matrix products.
        device: of this rank.

    Raises:
        InputError: this process belongs to a process group already.
    """
    known: dict[str, StepCount] = {}

    def count(run: RunConfig, layout: Layout, dtype: torch.dtype) -> StepCount:
        counted = as_counted(run, device)
        sections = (counted.model, counted.training, counted.parallel)
        key = " ".join([str(layout), str(dtype), *(section.model_dump_json() for section in sections)])
        if key not in known:  # most runs are compared as large as they are
            known[key] = simulate(counted, domain, layout, dtype)
        return known[key]

    def fits(tried: RunConfig) -> bool:
        found = count(tried, ALONE, torch.float32)
        return 2 * found.peak <= memory and _all_flops(found) <= flops

    step = count(config, layout, dtype)
    plain = with_changes(config, parallel={"activation_checkpointing": "none"})
    alone = count(plain, ALONE, torch.float32)
    memory, flops = _memory(device), _SECONDS * _REACHED * product_rate(device, torch.float64)
    return Expected(step, _all_flops(alone), largest_that_fits(to_compare, layout.dp, fits))


def as_counted(config: RunConfig, device: torch.device) -> RunConfig:
    """With what decides memory as it is on this device: blocks of the aggregation; and without masks of chance."""
    aggregation = config.model.aggregation
    here = aggregation.model_copy(update={"block_mib": aggregation.block_bytes(device.type) / 2**20})
    return with_changes(
        config, model={"aggregation": here, "dropout": 0.0, "drop_path": 0.0}, training={"compile": False}
    )


def _memory(device: torch.device) -> float:
    """Bytes that one rank alone may take; of a host's memory a third, which others use as well."""
    if device.type == "cuda":
        return 0.8 * torch.cuda.mem_get_info(device)[0]
    return available_memory() / 3


def _all_flops(count: StepCount) -> float:
    return float(sum(count.total_flops().values()))
