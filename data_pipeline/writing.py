"""The stages of writing a store; each leaves out what the journal says is done."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
from dask.delayed import Delayed
from tqdm import tqdm

from weatherfm.data_pipeline.climatology import day_index
from weatherfm.data_pipeline.climatology_sums import ClimatologySums
from weatherfm.data_pipeline.finishing import Original, finish
from weatherfm.data_pipeline.journal import Journal, Record, write_file
from weatherfm.data_pipeline.parallel import run_tasks
from weatherfm.data_pipeline.plan import StorePlan
from weatherfm.data_pipeline.reading_back import shards_to_read
from weatherfm.data_pipeline.shards import ClimatologyTask, Done, StateTask, TendencyTask, fingerprint
from weatherfm.data_pipeline.skeleton import array_metadata, skeleton_files, statistics_files
from weatherfm.data_pipeline.statistics import ChannelStatistics, join_channels, total
from weatherfm.data_pipeline.time_axis import hour_of_day
from weatherfm.errors import InputError

if TYPE_CHECKING:
    from weatherfm.data_pipeline.sources import SourceData

Task = StateTask | TendencyTask | ClimatologyTask


@dataclass(frozen=True, eq=False)
class Tasks:
    """All tasks that make up a store, in the order in which they are best done."""

    root: Path
    plan: StorePlan
    skeleton: dict[str, bytes]
    """As `skeleton_files` made it."""

    def state(self) -> Iterator[StateTask]:
        """One a shard, all channels of a time range before the next time range."""
        plan, metadata = self.plan, array_metadata(self.skeleton, "state")
        for block in plan.layout.blocks():
            part = block.times
            yield StateTask(
                self.root, metadata, block, tuple(plan.config.channels[block.channels]), plan.axis.times[part],
                plan.training[part], plan.preliminary[part], plan.tendency_lead,
            )  # fmt: skip

    def tendency(self) -> Iterator[TendencyTask]:
        """One a shard that has pairs which end in a later one."""
        plan = self.plan
        earlier, later = plan.pairs
        for block in plan.layout.blocks():
            part = slice(*np.searchsorted(earlier, [block.times.start, block.times.stop]))
            if part.start < part.stop:
                yield TendencyTask(
                    self.root, block, earlier[part], later[part],
                    self._fingerprint(earlier[part], later[part], block.channels),
                )  # fmt: skip

    def climatology(self) -> Iterator[ClimatologyTask]:
        """One an hour of day and channel block."""
        plan, layout, window = self.plan, self.plan.layout, self.plan.config.climatology_window
        metadata = array_metadata(self.skeleton, "climatology")
        training = np.flatnonzero(plan.training)
        hours = hour_of_day(plan.axis.times[training])
        for hour, value in enumerate(plan.hours):
            indices = training[hours == value]
            days = day_index(plan.axis.times[indices], window)
            for column, channels in enumerate(layout.channel_blocks()):
                yield ClimatologyTask(
                    self.root, metadata, channels, column, hour, indices, days, len(plan.days), window,
                    layout.shard_times, plan.climatology_rows, self._fingerprint(indices, indices[:0], channels),
                )  # fmt: skip

    def all(self) -> Iterator[Task]:
        """Every task."""
        yield from self.state()
        yield from self.tendency()
        yield from self.climatology()

    def _fingerprint(self, first: np.ndarray, second: np.ndarray, channels: slice) -> str:
        plan = self.plan
        parts = [array[index] for index in (first, second) for array in (plan.axis.times, plan.preliminary)]
        return fingerprint(plan.config.channels[channels], plan.config.climatology_window, *parts)


class Writing:
    """One run over all stages.

    Args:
        root: folder of the store.
        plan: of it.
        source: where fields come from.
        static: [static, lat, lon] constant fields, if any.
        journal: entered, of the same folder.
        scheduler: address of a dask.distributed scheduler; without it, threads of this process write.
        original: a store that this one must equal byte by byte.
    """

    def __init__(
        self,
        root: Path,
        plan: StorePlan,
        source: SourceData,
        static: np.ndarray | None,
        journal: Journal,
        scheduler: str | None,
        original: Original | None = None,
    ) -> None:
        self.original = original
        self.root, self.plan, self.source, self.journal, self.scheduler = root, plan, source, journal, scheduler
        self.skeleton = skeleton_files(plan, static)
        self.tasks = Tasks(root, plan, self.skeleton)

    def run(self, warn: Callable[[ChannelStatistics, ChannelStatistics], None]) -> None:
        """All stages; the manifest makes the store a finished one.

        Args:
            warn: told the statistics of state and tendency before they are written.
        """
        files = {key: write_file(self.root, key, content) for key, content in self.skeleton.items()}
        records = self.journal.sound_records(
            lambda records: shards_to_read(self.tasks, records, self._collects(records))
        )
        sums = self._write_state(records)
        self._measure_changes(records)
        self._write_climatology(records, sums)
        names = {task.name for task in self.tasks.all()}
        records = {name: record for name, record in self.journal.records().items() if name in names}
        try:
            state, tendency = self._statistics(records)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the records of {self.root} hold statistics that are none ({error!r}); prepare the store anew"
            ) from error
        warn(state, tendency)
        for key, content in statistics_files(state, tendency).items():
            files[key] = write_file(self.root, key, content)
        finish(self.root, self.plan, self.source, files, records, self.original)

    def _collects(self, records: Mapping[str, Record]) -> bool:
        """True when the climatology's sums are gathered while shards are written, those done before read again."""
        if self.scheduler is not None or not self.plan.sums_beside_writing:
            return False
        n_done = sum(task.name in records for task in self.tasks.state())
        n_undone = sum(1 for _ in self.plan.layout.blocks()) - n_done
        return n_undone > n_done and any(task.name not in records for task in self.tasks.climatology())

    def _write_state(self, records: dict[str, Record]) -> ClimatologySums | None:
        tasks = list(self.tasks.state())
        sums = self._empty_sums() if self._collects(records) else None

        def jobs() -> Iterator[Delayed]:
            for _, row in groupby(tasks, key=lambda task: task.block.row):
                by_column = {task.block.column: task for task in row}
                for group in self.plan.groups:
                    members = [by_column[column] for column in group]
                    done = [task for task in members if task.name in records]
                    if sums is not None and done:
                        yield _delayed(partial(_collect_again, done, sums))
                    if missing := [task for task in members if task.name not in records]:
                        yield _delayed(partial(_write, missing, sums), self._values(missing))

        n_done = sum(task.n_bytes for task in tasks if task.name in records)
        plan = self.plan
        self._run("fields", jobs(), plan.layout.state_bytes, plan.workers, n_done, plan.readers)
        return sums

    def _measure_changes(self, records: dict[str, Record]) -> None:
        undone = [task for task in self.tasks.tendency() if task.name not in records]
        n_fields = sum(2 * len(t.earlier) * (t.block.channels.stop - t.block.channels.start) for t in undone)
        self._run("changes", (_delayed(t.run) for t in undone), n_fields * self._field_bytes, self.plan.most_workers)

    @property
    def _field_bytes(self) -> int:
        return 4 * math.prod(self.plan.grid.shape)

    def _values(self, tasks: list[StateTask]) -> Any:
        """[time, channel, lat, lon] lazy: the shards of one time range side by side."""
        channels = np.concatenate([np.arange(t.block.channels.start, t.block.channels.stop) for t in tasks])
        times = self.plan.axis.indices[tasks[0].block.times]
        return self.source.state.isel(time=_positions(times), channel=_positions(channels)).data

    def _empty_sums(self) -> ClimatologySums:
        plan, layout = self.plan, self.plan.layout
        hours = np.searchsorted(plan.hours, hour_of_day(plan.axis.times))
        days = day_index(plan.axis.times, plan.config.climatology_window)
        fields = [(c.stop - c.start, *plan.grid.shape) for c in layout.channel_blocks()]
        return ClimatologySums(np.where(plan.training, hours, -1), days, (len(plan.hours), len(plan.days)), fields)

    def _write_climatology(self, records: dict[str, Record], sums: ClimatologySums | None) -> None:
        undone = [task for task in self.tasks.climatology() if task.name not in records]
        plan = self.plan
        n_bytes = sum(len(t.indices) * (t.channels.stop - t.channels.start) for t in undone) * self._field_bytes
        jobs = (
            _delayed(task.run if sums is None else partial(task.run, sums.of(task.column, task.hour)))
            for task in undone
        )
        self._run("climatology", jobs, n_bytes, plan.climatology_workers)

    def _run(
        self, label: str, jobs: Iterable[Delayed], n_bytes: int, workers: int, done: int = 0, readers: int = 1
    ) -> None:
        """Run jobs that return what they dealt with, under a progress bar with rate, time left and what was last."""
        bar = tqdm(total=n_bytes, initial=done, desc=label, unit="B", unit_scale=True, unit_divisor=1024, disable=None)
        with bar:
            for dealt in run_tasks(jobs, workers, self.scheduler, readers):
                for one in dealt if isinstance(dealt, list) else [dealt]:
                    bar.set_postfix_str(one.label, refresh=False)
                    bar.update(one.bytes)

    def _statistics(self, records: dict[str, Record]) -> tuple[ChannelStatistics, ChannelStatistics]:
        """Of state and tendency, merged in the order of the blocks, whatever order they were written in."""
        state: list[list[ChannelStatistics]] = [[] for _ in self.plan.layout.channel_blocks()]
        tendency: list[list[ChannelStatistics]] = [[] for _ in state]
        for block in self.plan.layout.blocks():
            payload = records[f"state-{block.label}"]["payload"]
            state[block.column].append(ChannelStatistics.from_dict(payload["state"]))
            tendency[block.column].append(ChannelStatistics.from_dict(payload["tendency"]))
            if (across := records.get(f"tendency-{block.label}")) is not None:
                tendency[block.column].append(ChannelStatistics.from_dict(across["payload"]))
        return _joined(state), _joined(tendency)


def _write(tasks: list[StateTask], sums: ClimatologySums | None, values: np.ndarray) -> list[Done]:
    """Write neighbouring shards from `values` [time, channel, lat, lon] of all of them."""
    try:
        done, start = [], 0
        for task in tasks:
            part = values[:, start : start + len(task.channels)]
            start += len(task.channels)
            done.append(task.run(part))
            if sums is not None:
                sums.add(task.block, part)
        return done
    except BaseException:
        if sums is not None:
            sums.stop()
        raise


def _collect_again(tasks: list[StateTask], sums: ClimatologySums) -> list[Done]:
    """Sums of shards that an interrupted run had written."""
    try:
        for task in tasks:
            sums.add(task.block, task.read_back())
        return []
    except BaseException:
        sums.stop()
        raise


def _delayed(function: Callable[..., Any], *arguments: Any) -> Delayed:
    """A dask task; only its lazy fields are looked into."""
    return dask.delayed(function, pure=False, traverse=False)(*arguments)


def _joined(columns: list[list[ChannelStatistics]]) -> ChannelStatistics:
    return join_channels([total(column, len(column[0].count)) for column in columns])


def _positions(indices: np.ndarray) -> slice | np.ndarray:
    """A slice where the positions are evenly spaced: cheaper for every reader."""
    step = int(indices[1] - indices[0]) if len(indices) > 1 else 1
    even = slice(int(indices[0]), int(indices[-1]) + 1, step)
    return even if np.array_equal(np.arange(even.start, even.stop, step), indices) else indices
