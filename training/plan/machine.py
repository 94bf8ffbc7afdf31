"""What a plan is made for: devices, their rates, a training to pay; and the simple model that compares layouts.

The command's options of the same names (imported with it: no torch here).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from weatherfm.errors import InputError

if TYPE_CHECKING:
    from weatherfm.training.parallel.layout import Layout
    from weatherfm.training.plan.step_count import StepCount

GB = 1e9


class Seconds(NamedTuple):
    """Estimated time of a step."""

    compute: float
    exchange: float

    @property
    def total(self) -> float:
        """One after the other: nothing is assumed to overlap."""
        return self.compute + self.exchange


@dataclass(frozen=True)
class Machine:
    """Devices and their rates; what is not given is that of nodes of eight H100.

    Raises:
        InputError: a number that cannot be.
    """

    devices: int
    """How many there are."""
    memory: float
    """GB (1e9 bytes) of each."""
    tflops: float = 400.0
    """Tera-operations a second of a device in matrix products, as reached in training."""
    devices_per_node: int = 8
    """Devices that the faster network joins."""
    node_bandwidth: float = 300.0
    """GB a second that a device sends inside a node."""
    network_bandwidth: float = 40.0
    """GB a second that a device sends between nodes."""
    spare: float = 0.1
    """Share of the memory left for what is not counted: workspaces, fragments, buffers of the network."""

    def __post_init__(self) -> None:
        _require_positive(self, "spare")
        if self.devices > 1_000_000:
            raise InputError(f"--devices {self.devices} is more than any machine has; give 1000000 at most")
        if not 0 <= self.spare < 1:
            raise InputError(f"--spare must lie in [0, 1), got {self.spare:g}")

    @property
    def usable(self) -> float:
        """GB a device that counted memory may take."""
        return self.memory * (1 - self.spare)

    def seconds(self, layout: Layout, count: StepCount) -> Seconds:
        """Operations by rate, bytes by the bandwidth of the slowest link that an axis of the mesh crosses."""
        span = {"tp": layout.tp, "dp_shard": layout.tp * layout.dp_shard, "dp_shard x tp": layout.tp * layout.dp_shard}
        exchange = 0.0
        for (axis, _), size in count.total_sent().items():
            inside = span.get(axis, layout.devices) <= self.devices_per_node
            exchange += size / GB / (self.node_bandwidth if inside else self.network_bandwidth)
        return Seconds(sum(count.total_flops().values()) / 1e12 / self.tflops, exchange)


@dataclass(frozen=True)
class Training:
    """The whole training, for hours, money and energy.

    Raises:
        InputError: a number that cannot be.
    """

    samples: float | None = None
    """How many the whole training sees; by default training.steps of training.batch_size x training.accumulate."""
    price_per_gpu_hour: float | None = None
    """Of one device, in any currency: for money."""
    watts: float | None = None
    """That one device draws, with its share of the node and of cooling, if these are to count: for energy."""

    def __post_init__(self) -> None:
        _require_positive(self)


def _require_positive(options: Any, *but: str) -> None:
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name not in but and value is not None and not 0 < value < math.inf:
            kind = "finite" if value == math.inf else "positive"
            raise InputError(f"--{field.name.replace('_', '-')} must be {kind}, got {value:g}")
