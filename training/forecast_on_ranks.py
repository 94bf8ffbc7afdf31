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

from weatherfm.device import Precision, choose_device, choose_precision
from weatherfm.errors import InputError
from weatherfm.evaluation.forecast import Task, open_task
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.on_disk import make_forecast
from weatherfm.evaluation.forecasting.processes import Processes
from weatherfm.evaluation.forecasting.weights_files import WeightsFile
from weatherfm.model.loading import load_weights
from weatherfm.model.model import WeatherViT
from weatherfm.model.share import channel_shares
from weatherfm.training.parallel.layout import Layout, check_layout, resolve_layout
from weatherfm.training.parallel.load_weights import load_parts
from weatherfm.training.parallel.mesh import Mesh, build_mesh
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
        weights: file; of no effect where `settings.members` names weights.
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
        domains = [one.domain for one in task.models]
        if layout is None:
            processes: Ranks = Ranks(job, (job.rank, job.world))
            models = [load_weights(one.path, device, one.base) for one in task.models]
        else:
            mesh = build_mesh(layout, device.type)
            built = [build_split(one, parallel, mesh, device, settings.precision) for one in task.models]
            models, roles = [model for model, _ in built], [role for _, role in built]
            processes = SplitRanks(job, roles, [_held_by(one, parallel, layout) for one in task.models])
        origins = processes.first_does(task.origins)
        make_forecast(models, task.states, task.init_times, settings, output, origins, processes, domains)
    return output


def find_layout(parallel: ParallelConfig, devices: int, task: Task) -> Layout | None:
    """The layout that a model is split on; None where every rank holds all of it.

    Raises:
        InputError: the axes do not multiply to the devices, or the model cannot be split like this.
    """
    if devices == 1 or (parallel.tp == 1 and (parallel.dp_shard or 1) == 1):
        return None
    layout = resolve_layout(parallel, devices)
    for one in task.models:
        check_layout(layout, parallel, one.model, one.domain, layout.dp)
    if task.settings.dropout and layout.tp > 1:
        raise InputError(
            f"forecast.dropout would drop other numbers where parallel.tp {layout.tp} splits the model; set "
            "parallel.tp=1, or make members by noise or several weights files"
        )
    return layout


def build_split(
    weights: WeightsFile, parallel: ParallelConfig, mesh: Mesh, device: torch.device, precision: Precision
) -> tuple[WeatherViT, Role]:
    """This rank's part of a model, from its file, and its role. All ranks must call it."""
    role = find_role(parallel, weights.model, weights.domain, mesh)
    with torch.device("meta"):
        model = WeatherViT(weights.model, weights.domain, role.share)
    plain = parallel.model_copy(update={"activation_checkpointing": "none"})  # nothing is kept for a backward pass
    parallelize(model, role.mesh, plain, choose_precision(precision, device), compile=False)
    model.to_empty(device=device)
    model.set_statistics()
    load_parts(model, weights.path, weights.model, weights.domain, weights.base)
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
    """Ranks over which each model is split: all call it in step, and one of each `tp` group writes.

    Args:
        job: all ranks.
        roles: of this rank, in each model.
        shares: of each model, the channels that come out of each rank of `tp`.
    """

    in_step = True

    def __init__(self, job: Job, roles: Sequence[Role], shares: Sequence[Sequence[Sequence[str]]]) -> None:
        mesh = roles[0].mesh
        super().__init__(job, roles[0].part)
        assert mesh is not None
        self._tp, self.writes = mesh.tp, mesh.tp_index == 0
        self._sizes = [[len(share) for share in model] for model in shares]
        self._order = []
        for role, model in zip(roles, shares, strict=True):
            held = [name for share in model for name in share]
            self._order.append([held.index(name) for name in role.channels])

    def collect(self, fields: Tensor, which: int = 0) -> Tensor:
        """[I, M, C, H, W] of all channels on the rank that writes; `fields` [I, M, C own, H, W] on the others."""
        sizes = self._sizes[which]
        if len(sizes) == 1:
            return fields
        padding = max(sizes) - fields.shape[-3]
        own = pad(fields, (0, 0, 0, 0, 0, padding)).contiguous()  # all ranks send equally much
        parts = [torch.empty_like(own) for _ in sizes] if self.writes else None
        dist.gather(own, parts, group=self._tp.get_group(), group_dst=0)
        if parts is None:
            return fields
        found = [part.narrow(-3, 0, size) for part, size in zip(parts, sizes, strict=True)]
        return torch.cat(found, dim=-3)[:, :, self._order[which]]


def _held_by(weights: WeightsFile, parallel: ParallelConfig, layout: Layout) -> list[tuple[str, ...]]:
    """Channels that come out of each rank of `tp`."""
    ranks = layout.tp if parallel.channels == "split" else 1
    return [share.outputs for share in channel_shares(weights.model, weights.domain, ranks)]
