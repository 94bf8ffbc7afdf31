"""The work of scoring in parts that are kept, on threads here or on a cluster: an interrupted evaluation goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from weatherfm.data_pipeline.access import Access
from weatherfm.data_pipeline.machine.call import Call
from weatherfm.data_pipeline.machine.cluster import capacity_of
from weatherfm.data_pipeline.machine.parallel import run_tasks
from weatherfm.data_pipeline.store.training_store import Store, open_store
from weatherfm.errors import InputError
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.scoring.fitted import Fitted
from weatherfm.evaluation.scoring.fitting import Fitting, fitted_elsewhere
from weatherfm.evaluation.scoring.kept_parts import KeptParts, Part
from weatherfm.evaluation.scoring.scorer import Scorer, Task
from weatherfm.evaluation.scoring.shared_points import SharedPoints, points_of
from weatherfm.evaluation.scoring.sums_and_series import merge

_PARTS = 40
"""At most, of every group of channels: an interruption loses no more than a fortieth of long work."""
_FEWEST = 32
"""Initial times of a part, at least: reading a few at a time is slow."""


@dataclass(frozen=True, eq=False)
class Work:
    """Everything that is scored on one group of channels, and where it is."""

    files: Mapping[str, ForecastFile]
    store: Store
    task: Task

    def scorer(self, fitted: Fitted, threads: int) -> Scorer:
        """Ready to score."""
        return Scorer(self.files, self.store, self.task, fitted, threads)


@dataclass(frozen=True, eq=False)
class _Closed:
    """Work that can travel: paths in place of what is open, and of what was fitted."""

    files: dict[str, tuple[str, Access, set[str]]]
    store: str
    task: Task
    points: SharedPoints | None

    @classmethod
    def of(cls, work: Work) -> _Closed:
        files = {name: (str(file.path), file.access, file.gaps) for name, file in work.files.items()}
        return cls(files, str(work.store.path), work.task, points_of(work.store))

    def truth(self) -> Store:
        store = open_store(self.store)
        return store if self.points is None else self.points.on(store)

    def opened(self) -> Work:
        store = self.truth()
        files = {name: ForecastFile(path, store.step_hours, access) for name, (path, access, _) in self.files.items()}
        for name, file in files.items():
            file.gaps = self.files[name][2]
            if self.points is not None:
                file.keep_rows(store.grid.latitude)
            file.require(self.task.wanted.channels, self.task.lead_times, store.grid)
        return Work(files, store, self.task)


@dataclass(frozen=True, eq=False)
class _Shared:
    """What all tasks of a cluster share; a worker gets it once."""

    works: Sequence[_Closed]
    kept: KeptParts
    init_times: np.ndarray


def score_in_parts(
    works: Sequence[Work],
    init_times: np.ndarray,
    kept: KeptParts,
    workers: int | None = None,
    scheduler: str | None = None,
) -> list[Part]:
    """Score every group of channels; what a group asks to be fitted is, when its turn comes.

    Args:
        works: one a group of channels.
        init_times: datetime64 [case], ascending.
        kept: where finished parts and fits are found and kept.
        workers: threads; without it, as many as there are cores.
        scheduler: address of a dask.distributed scheduler; its workers must see the same files, kept ones too.

    Returns:
        For every group, all cases of every forecast.

    Raises:
        InputError: a scheduler, and no folder that keeps parts; what cannot be fitted.
    """
    if scheduler is not None and kept.folder is None:
        raise InputError(
            "an evaluation on a cluster keeps what is fitted in a folder that all workers see; give one as `parts`, or "
            "leave `scheduler` out"
        )
    pieces = np.array_split(init_times, min(_PARTS, max(1, len(init_times) // _FEWEST)))
    parts: dict[str, Part] = {}
    with tqdm(total=len(works) * len(init_times), desc="evaluate", unit="case", disable=None) as bar:
        for group, i in np.ndindex(len(works), len(pieces)):
            if (part := kept.find(name := _name(group, i))) is not None:
                parts[name] = part
                bar.update(len(pieces[i]))
        undone = [at for at in np.ndindex(len(works), len(pieces)) if _name(*at) not in parts]
        if scheduler is None:
            fitting = Fitting(works[0].store, init_times, kept)
            run = _here(works, pieces, undone, fitting, workers or os.cpu_count() or 1, bar)
        else:
            shared = _Shared([_Closed.of(work) for work in works], kept, init_times)
            run = _elsewhere(shared, pieces, undone, scheduler, bar)
        for name, part in run:
            kept.keep(name, part)
            parts[name] = part
    return [merge([parts[_name(group, i)] for i in range(len(pieces))]) for group in range(len(works))]


def _here(
    works: Sequence[Work],
    pieces: Sequence[np.ndarray],
    undone: Sequence[tuple[int, ...]],
    fitting: Fitting,
    threads: int,
    bar: tqdm,
) -> Iterator[tuple[str, Part]]:
    """In order of time: what one part has read, the next has at hand. One group's fit is in memory at a time."""
    for group in sorted({group for group, _ in undone}):
        scorer = works[group].scorer(fitting.of(_group_name(group), works[group].task.to_fit), threads)
        for i in [i for of, i in undone if of == group]:
            yield _name(group, i), scorer.score(pieces[i], bar.update)
        del scorer  # before the next group is fitted


def _elsewhere(
    shared: _Shared, pieces: Sequence[np.ndarray], undone: Sequence[tuple[int, ...]], scheduler: str, bar: tqdm
) -> Iterator[tuple[str, Part]]:
    """On a cluster's workers, each with files of its own; truth around the ends of a part is read twice."""
    workers, groups = capacity_of(scheduler)[0], sorted({group for group, _ in undone})
    asking = [group for group in groups if shared.works[group].task.to_fit.anything]
    alone = 1 if asking and shared.works[asking[0]].task.to_fit.ridge else 0  # fits what all groups start from, too
    with tqdm(total=len(asking), desc="fit", unit="group", leave=False, disable=None) as fits:
        for these in filter(None, (asking[:alone], asking[alone:])):
            for _ in run_tasks((Call(_group_name(g), _fit, (g,)) for g in these), workers, shared, scheduler):
                fits.update()
    calls = (Call(_name(*at), _score, (*at, pieces[at[1]])) for at in undone)
    for name, part in run_tasks(calls, workers, shared, scheduler):
        bar.update(len(next(iter(part.values())).init_times))
        yield name, part


def _fit(shared: _Shared, group: int) -> int:
    """Leaves what was fitted in the folder."""
    closed = shared.works[group]
    Fitting(closed.truth(), shared.init_times, shared.kept, shown=False).of(_group_name(group), closed.task.to_fit)
    return group


def _score(shared: _Shared, group: int, piece: int, init_times: np.ndarray) -> tuple[str, Part]:
    work = shared.works[group].opened()
    fitted = fitted_elsewhere(_group_name(group), work.task.to_fit, shared.kept)
    return _name(group, piece), work.scorer(fitted, threads=1).score(init_times)


def _group_name(group: int) -> str:
    return f"{group:03d}"


def _name(group: int, part: int) -> str:
    return f"{group:03d}-{part:03d}"
