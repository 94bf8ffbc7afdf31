"""The work of scoring in parts that are kept, on threads here or on a cluster: an interrupted evaluation goes on."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from tqdm import tqdm

from weatherfm.atomic import write_atomically
from weatherfm.data_pipeline.access import Access
from weatherfm.data_pipeline.machine.call import Call
from weatherfm.data_pipeline.machine.cluster import capacity_of
from weatherfm.data_pipeline.machine.parallel import run_tasks
from weatherfm.data_pipeline.store.training_store import Store, open_store
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.scoring.scorer import Scorer, Task
from weatherfm.evaluation.scoring.sums_and_series import ScoredCases, load_part, merge, save_part

_log = logging.getLogger(__name__)

_PARTS = 40
"""At most, of every group of channels: an interruption loses no more than a fortieth of long work."""
_FEWEST = 32
"""Initial times of a part, at least: reading a few at a time is slow."""
_FINGERPRINT = "fingerprint"

Part = dict[str, ScoredCases]
"""Forecast -> its cases."""


@dataclass(frozen=True, eq=False)
class Work:
    """Everything that is scored on one group of channels, and where it is."""

    files: Mapping[str, ForecastFile]
    store: Store
    task: Task

    def scorer(self, threads: int) -> Scorer:
        """Ready to score."""
        return Scorer(self.files, self.store, self.task, threads)


class KeptParts:
    """Finished parts in a folder; those of other work are thrown away.

    Args:
        folder: None keeps nothing.
        fingerprint: of all that decides the scores.
    """

    def __init__(self, folder: Path | None, fingerprint: str) -> None:
        self._folder, self._fingerprint = folder, fingerprint
        if folder is None:
            return
        note = folder / _FINGERPRINT
        if not note.exists() or note.read_text() != fingerprint:
            shutil.rmtree(folder, ignore_errors=True)
            write_atomically(note, fingerprint.encode())

    def find(self, name: str) -> Part | None:
        """A part that was finished before."""
        path = self._folder / f"{name}.npz" if self._folder else None
        if path is None or not path.exists():
            return None
        try:
            return load_part(path, self._seal_of(name))
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            _log.warning("%s is damaged (%s) and scored again", path, error)
            return None

    def keep(self, name: str, part: Part) -> None:
        """Write a finished part, whole or not at all."""
        if self._folder is not None:
            save_part(self._folder / f"{name}.npz", part, self._seal_of(name))

    def _seal_of(self, name: str) -> bytes:
        """So that a part of other work, or another part of this one, is not taken for it."""
        return f"{self._fingerprint} {name}\n".encode()


def score_in_parts(
    works: Sequence[Work],
    init_times: np.ndarray,
    kept: KeptParts,
    workers: int | None = None,
    scheduler: str | None = None,
) -> list[Part]:
    """Score every group of channels.

    Args:
        works: one a group of channels.
        init_times: datetime64 [case], ascending.
        kept: where finished parts are found and kept.
        workers: threads; without it, as many as there are cores.
        scheduler: address of a dask.distributed scheduler; its workers must see the same files.

    Returns:
        For every group, all cases of every forecast.
    """
    pieces = np.array_split(init_times, min(_PARTS, max(1, len(init_times) // _FEWEST)))
    parts: dict[str, Part] = {}
    with tqdm(total=len(works) * len(init_times), desc="evaluate", unit="case", disable=None) as bar:
        for group, i in np.ndindex(len(works), len(pieces)):
            if (part := kept.find(name := _name(group, i))) is not None:
                parts[name] = part
                bar.update(len(pieces[i]))
        undone = [at for at in np.ndindex(len(works), len(pieces)) if _name(*at) not in parts]
        if scheduler is None:
            run = _here(works, pieces, undone, workers or os.cpu_count() or 1, bar)
        else:
            run = _elsewhere(works, pieces, undone, scheduler, bar)
        for name, part in run:
            kept.keep(name, part)
            parts[name] = part
    return [merge([parts[_name(group, i)] for i in range(len(pieces))]) for group in range(len(works))]


def _here(
    works: Sequence[Work], pieces: Sequence[np.ndarray], undone: Sequence[tuple[int, ...]], threads: int, bar: tqdm
) -> Iterator[tuple[str, Part]]:
    """In order of time: what one part has read, the next has at hand."""
    for group, work in enumerate(works):
        scorer = work.scorer(threads)
        for i in [i for of, i in undone if of == group]:
            yield _name(group, i), scorer.score(pieces[i], bar.update)


def _elsewhere(
    works: Sequence[Work], pieces: Sequence[np.ndarray], undone: Sequence[tuple[int, ...]], scheduler: str, bar: tqdm
) -> Iterator[tuple[str, Part]]:
    """On a cluster's workers, each with files of its own; truth around the ends of a part is read twice."""
    closed = [_closed(work) for work in works]
    calls = (Call(_name(*at), _score_opened, (*at, pieces[at[1]])) for at in undone)
    for name, part in run_tasks(calls, capacity_of(scheduler)[0], closed, scheduler):
        bar.update(len(next(iter(part.values())).init_times))
        yield name, part


def _closed(work: Work) -> tuple[dict[str, tuple[str, Access]], str, Task]:
    """Work that can travel: paths in place of what is open."""
    return {name: (str(file.path), file.access) for name, file in work.files.items()}, str(work.store.path), work.task


def _score_opened(
    works: Sequence[tuple[dict[str, tuple[str, Access]], str, Task]], group: int, piece: int, init_times: np.ndarray
) -> tuple[str, Part]:
    paths, store_path, task = works[group]
    store = open_store(store_path)
    files = {name: ForecastFile(path, store.step_hours, access) for name, (path, access) in paths.items()}
    for file in files.values():
        file.require(task.wanted.channels, task.lead_times, store.grid)
    return _name(group, piece), Work(files, store, task).scorer(threads=1).score(init_times)


def _name(group: int, part: int) -> str:
    return f"{group:03d}-{part:03d}"
