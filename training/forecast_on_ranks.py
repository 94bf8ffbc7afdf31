"""One forecast by several ranks: other initial times on each, or one model that is split over them.

Without a section `parallel` that splits the model every rank holds all of it. With one the model is built as for
training: ranks of `tp` hold a share of the channels each, read the states of these alone and exchange what training
exchanges; of a rollout nothing else. Their fields come together only to be written.

Legend: I initial time, M member, C channel, H lat, W lon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from weatherfm.device import choose_device, choose_precision
from weatherfm.evaluation.forecast import Task, open_task
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.on_disk import make_forecast
from weatherfm.evaluation.forecasting.processes import Processes
from weatherfm.model.loading import load_weights
from weatherfm.model.model import WeatherViT
from weatherfm.model.share import ChannelShare, channel_shares
from weatherfm.training.parallel.layout import Layout, check_layout, resolve_layout
from weatherfm.training.parallel.load_weights import load_parts
from weatherfm.training.parallel.mesh import build_mesh
from weatherfm.training.parallel.parallelize import parallelize
from weatherfm.training.parallel.role import Role, find_role
from weatherfm.training.ranks.coordination import Coordination
from weatherfm.training.ranks.job import Job
from weatherfm.training.ranks.process_group import join
from weatherfm.training.run_config import ParallelConfig

T = TypeVar("T")


def forecast_together(
    weights: Path,
    place: str | Path,
    settings: ForecastConfig,
    parallel: ParallelConfig,
    output: Path,
    rules: Mapping[str, Any] | None = None,
    base: Path | None = None,
) -> Path:
    """Forecast with all ranks that were started together; returns where the forecast is. All must call it.

    Args:
        weights: file.
        place: store or file with the states; every rank must see it, and the folder of `output`.
        settings: initial times, lead times, device and precision.
        parallel: how the model is split, if it is; the ranks' time-out.
        output: folder to write.
        rules: how files are read; without it, as the weights tell.
        base: weights that an adapter belongs to.

    Raises:
        InputError: what cannot be, on one rank; `QuietExit` on the others.
        OutsideError: a rank did not start, or is gone.
    """
    device = choose_device(settings.device, "forecast.device")
    with join(device, parallel.timeout) as job:

        def check() -> tuple[Task, Layout | None]:
            task = open_task(weights, place, settings, job.first, rules, base)
            return task, find_layout(parallel, job.world, task)

        task, layout = job.first_checks(check)
        if layout is None:
            processes: Ranks = Ranks(job, (job.rank, job.world))
            model = load_weights(weights, device, base)
        else:
            model, role = build_split(task, parallel, layout, device)
            processes = SplitRanks(job, role, [s.outputs for s in _shares(task, parallel, layout)])
        origin = processes.first_does(task.origin)
        make_forecast(model, task.states, task.init_times, settings, output, origin, processes, task.domain)
    return output


def find_layout(parallel: ParallelConfig, devices: int, task: Task) -> Layout | None:
    """The layout that a model is split on; None where every rank holds all of it.

    Raises:
        InputError: the axes do not multiply to the devices, or the model cannot be split like this.
    """
    if devices == 1 or (parallel.tp == 1 and (parallel.dp_shard or 1) == 1):
        return None
    layout = resolve_layout(parallel, devices)
    check_layout(layout, parallel, task.model, task.domain, layout.dp)
    return layout


def build_split(task: Task, parallel: ParallelConfig, layout: Layout, device: torch.device) -> tuple[WeatherViT, Role]:
    """This rank's part of the model, from the file, and its role. All ranks must call it."""
    role = find_role(parallel, task.model, task.domain, build_mesh(layout, device.type))
    with torch.device("meta"):
        model = WeatherViT(task.model, task.domain, role.share)
    plain = parallel.model_copy(update={"activation_checkpointing": "none"})  # nothing is kept for a backward pass
    parallelize(model, role.mesh, plain, choose_precision(task.settings.precision, device), compile=False)
    model.to_empty(device=device)
    model.set_statistics()
    load_parts(model, task.weights, task.model, task.domain, task.base)
    return model.eval(), role


class Ranks(Processes):
    """Ranks that hold the whole model each, and make other initial times.

    Args:
        job: all ranks.
        part: (index, count) of this rank's share of the initial times.
    """

    def __init__(self, job: Job, part: tuple[int, int]) -> None:
        self._job, self._ranks = job, Coordination()
        self._part, self.parts = part, part[1]
        self.first = job.first

    def first_then_all(self, act: Callable[[], T]) -> T:
        """What `act` returns here, called when the first rank has done it."""
        made: list[T] = []
        self._ranks.first_does(lambda: made.append(act()))
        return made[0] if made else act()

    def first_does(self, act: Callable[[], T]) -> T:
        """What `act` returns on the first rank, on all."""
        return self._ranks.first_does(act)

    def deal_out(self, items: Sequence[T]) -> tuple[list[T], int]:
        """Every so many items, and how many of them count: the rest only keep all ranks in step."""
        index, count = self._part
        own = list(items[index::count])
        padding = -(-len(items) // count) - len(own) if self.in_step else 0
        return own + list(items[-1:]) * padding, len(own)

    def beat(self) -> None:
        """This rank is alive, and a step further."""
        self._job.beat()

    def wait(self) -> None:
        """Until all ranks have come here."""
        self._ranks.barrier()


class SplitRanks(Ranks):
    """Ranks over which the model is split: all call it in step, and one of each `tp` group writes.

    Args:
        job: all ranks.
        role: of this rank.
        shares: channels that come out of each rank of `tp`.
    """

    in_step = True

    def __init__(self, job: Job, role: Role, shares: Sequence[Sequence[str]]) -> None:
        super().__init__(job, role.part)
        assert role.mesh is not None
        self._tp, self.writes = role.mesh.tp, role.mesh.tp_index == 0
        self._sizes = [len(share) for share in shares]
        held = [name for share in shares for name in share]
        self._order = [held.index(name) for name in role.channels]

    def collect(self, fields: Tensor) -> Tensor:
        """[I, M, C, H, W] of all channels on the rank that writes; `fields` [I, M, C own, H, W] on the others."""
        if len(self._sizes) == 1:
            return fields
        padding = max(self._sizes) - fields.shape[-3]
        own = pad(fields, (0, 0, 0, 0, 0, padding)).contiguous()  # all ranks send equally much
        parts = [torch.empty_like(own) for _ in self._sizes] if self.writes else None
        dist.gather(own, parts, group=self._tp.get_group(), group_dst=0)
        if parts is None:
            return fields
        found = [part.narrow(-3, 0, size) for part, size in zip(parts, self._sizes, strict=True)]
        return torch.cat(found, dim=-3)[:, :, self._order]


def _shares(task: Task, parallel: ParallelConfig, layout: Layout) -> list[ChannelShare]:
    return channel_shares(task.model, task.domain, layout.tp if parallel.channels == "split" else 1)
