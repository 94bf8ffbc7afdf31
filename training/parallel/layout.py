"""Which ranks do what: the layouts a model can be trained on.

Ranks form a mesh of three axes, the innermost last, so that its ranks are neighbours inside a node:

    dp_replicate   copies of all weights; each sees other samples (gradients are averaged)
    dp_shard       the same, but weights, gradients and optimizer state are split (FSDP2)
    tp             one sample is worked on together: channels, attention heads and positions are split
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt

from weatherfm.earth.domain import Domain
from weatherfm.errors import InputError, some_of
from weatherfm.model.architecture import ModelConfig, patch_counts
from weatherfm.model.backbone_config import is_own
from weatherfm.model.reconstruction import decoder_config
from weatherfm.model.roles import find_roles
from weatherfm.model.share import channel_groups, most_shares
from weatherfm.model.tensor_plan import plan_problems
from weatherfm.training.run_config import MOST_DEVICES, ParallelConfig


@dataclass(frozen=True)
class Layout:
    """Sizes of the three axes of the mesh."""

    dp_replicate: int
    dp_shard: int
    tp: int

    def __str__(self) -> str:
        sizes = {"replicate": self.dp_replicate, "shard": self.dp_shard, "tp": self.tp}
        return "-".join(f"{name}{size}" for name, size in sizes.items() if size > 1) or "alone"

    @property
    def dp(self) -> int:
        """Groups of ranks that see different samples."""
        return self.dp_replicate * self.dp_shard

    @property
    def devices(self) -> int:
        """Ranks in all."""
        return self.dp * self.tp


def choose_layout(config: ParallelConfig, devices: int, model: ModelConfig, domain: Domain, batch_size: int) -> Layout:
    """The layout that settings mean on so many devices, checked against the model.

    Raises:
        InputError: as `resolve_layout` and `check_layout`.
    """
    layout = resolve_layout(config, devices)
    check_layout(layout, config, model, domain, batch_size)
    return layout


def resolve_layout(config: ParallelConfig, devices: int) -> Layout:
    """The layout that settings mean on so many devices.

    Raises:
        InputError: the axes do not multiply to the devices.
    """
    if devices > MOST_DEVICES:
        raise InputError(f"{devices} devices are more than any machine has; give {MOST_DEVICES} at most")
    given = config.tp * config.dp_replicate
    shard = config.dp_shard or max(1, devices // given)
    layout = Layout(config.dp_replicate, shard, config.tp)
    if layout.devices != devices:
        rest = f"parallel.dp_shard {devices // given}" if devices % given == 0 else "axes whose product is that number"
        axes = f"dp_replicate {layout.dp_replicate} x dp_shard {shard} x tp {config.tp}"
        raise InputError(
            f"the layout needs {axes} = {layout.devices} devices, but there are {devices}; "
            f"start {layout.devices}, or set {rest}"
        )
    return layout


def check_layout(layout: Layout, config: ParallelConfig, model: ModelConfig, domain: Domain, batch_size: int) -> None:
    """Refuse a layout on which the model cannot be split.

    Raises:
        InputError: every reason, and the layouts of as many devices that would work; or groups of channels that the
            model cannot have on any layout.
    """
    channel_groups(model, domain)
    if problems := layout_problems(layout, config, model, domain, batch_size):
        fitting = [str(good) for good in feasible_layouts(layout.devices, config, model, domain, batch_size)]
        shown = some_of(fitting, 8)
        remedy = (
            f"on {layout.devices} devices these would work: {shown}" if fitting else "no layout of so many would work"
        )
        raise InputError(f"layout {layout} cannot train this model:\n  " + "\n  ".join(problems) + f"\n  {remedy}")


def layout_problems(
    layout: Layout, config: ParallelConfig, model: ModelConfig, domain: Domain, batch_size: int
) -> list[str]:
    """What keeps a model from being split like this; empty where nothing does."""
    tp, most = layout.tp, most_shares(find_roles(model, domain.channels))
    positions = patch_counts(model.patch, domain.grid.shape)
    split = {
        "model.heads": model.heads,
        "model.width": model.width,
        **({} if is_own(model.backbone) else {"the MLP's width": int(model.width * model.mlp_ratio)}),
        f"the number of positions ({positions[0]} x {positions[1]})": positions[0] * positions[1],
    }
    if model.reconstruction is not None:
        own = decoder_config(model)
        split |= {
            "the reconstruction's heads": own.heads,
            "the reconstruction's width": own.width,
            "its MLP's width": int(own.width * own.mlp_ratio),
        }
    problems = [f"tp {tp} does not divide {name} {size}" for name, size in split.items() if size % tp]
    problems += _of_visible(model, positions[0] * positions[1], tp)
    problems += plan_problems(model, domain.grid.shape, domain.grid.periodic, tp)
    if model.aggregation.kind == "hierarchical" and model.aggregation.groups and model.aggregation.groups % tp:
        problems.append(f"tp {tp} does not divide model.aggregation.groups {model.aggregation.groups}")
    if config.channels == "split" and tp > most:
        problems.append(f"tp {tp} is more than the {most} channels: some devices would have none")
    if config.channels == "whole" and (model.aggregation.kind, model.aggregation.evaluate) != ("flat", "tokens"):
        problems.append("parallel.channels: whole needs model.aggregation.kind flat and evaluate tokens")
    widths = {name: size for name, size in split.items() if name in ("model.width", "the reconstruction's width")}
    for name, width in widths.items():
        if tp > 1 and width % tp == 0 and width % (tp * layout.dp_shard):  # biases are split by both
            problems.append(f"tp x dp_shard {tp * layout.dp_shard} does not divide {name} {width}")
    if batch_size % layout.dp:
        problems.append(
            f"training.batch_size {batch_size} is not a multiple of the {layout.dp} data-parallel groups that share it"
        )
    return problems


def _of_visible(model: ModelConfig, positions: int, tp: int) -> list[str]:
    """Devices of `tp` share the patches that are seen, too, and how many these are no layout may decide."""
    settings = model.reconstruction
    if settings is None or not (seen := settings.visible(positions)) % tp:
        return []
    ratios = settings.ratios_for(positions, tp)
    cure = f"; model.reconstruction.mask_ratio {', '.join(ratios)} would do" if ratios else ""
    return [
        f"tp {tp} does not divide the {seen} of {positions} patches that are seen (model.reconstruction.mask_ratio "
        f"{settings.mask_ratio:g}){cure}"
    ]


def feasible_layouts(
    devices: int, config: ParallelConfig, model: ModelConfig, domain: Domain, batch_size: int
) -> Iterator[Layout]:
    """All layouts of so many devices that can train the model; small tp first."""
    for tp in _divisors(devices):
        for shard in reversed(_divisors(devices // tp)):
            layout = Layout(devices // tp // shard, shard, tp)
            if not layout_problems(layout, config, model, domain, batch_size):
                yield layout


def _divisors(n: int) -> list[int]:
    small = [d for d in range(1, isqrt(n) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})
