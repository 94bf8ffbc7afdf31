"""The stages of writing a store; each leaves out what the journal says is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from weatherfm.data_pipeline.design.store_design import StoreDesign
from weatherfm.data_pipeline.fields.positions import Portion, Readable
from weatherfm.data_pipeline.fields.time_axis import hour_of_day
from weatherfm.data_pipeline.machine.call import Call
from weatherfm.data_pipeline.machine.disk import check_space
from weatherfm.data_pipeline.machine.parallel import run_tasks
from weatherfm.data_pipeline.store.climatology import ClimatologySums, day_index
from weatherfm.data_pipeline.store.statistics import ChannelStatistics, join_channels, total
from weatherfm.data_pipeline.writing.finishing import Original, finish
from weatherfm.data_pipeline.writing.journal import Journal, Record, write_file
from weatherfm.data_pipeline.writing.shards import Done, StateTask
from weatherfm.data_pipeline.writing.skeleton import skeleton_files, statistics_files
from weatherfm.data_pipeline.writing.tasks import Tasks, shards_to_read
from weatherfm.errors import InputError

if TYPE_CHECKING:
    from weatherfm.data_pipeline.fields.source_data import SourceData


class Writing:
    """One run over all stages.

    Args:
        root: folder of the store.
        design: of it.
        source: where fields come from.
        static: [static, lat, lon] constant fields, if any.
        journal: entered, of the same folder.
        scheduler: address of a dask.distributed scheduler; without it, threads of this process write.
        original: a store that this one must equal byte by byte.
    """

    def __init__(
        self,
        root: Path,
        design: StoreDesign,
        source: SourceData,
        static: np.ndarray | None,
        journal: Journal,
        scheduler: str | None,
        original: Original | None = None,
    ) -> None:
        self.original = original
        self.root, self.design, self.source, self.journal, self.scheduler = root, design, source, journal, scheduler
        self.skeleton = skeleton_files(design, static)
        self.tasks = Tasks(root, design, self.skeleton)

    def run(self, warn: Callable[[ChannelStatistics, ChannelStatistics], None]) -> None:
        """All stages; the manifest makes the store a finished one.

        Args:
            warn: told the statistics of state and tendency before they are written.
        """
        files = {key: write_file(self.root, key, content) for key, content in self.skeleton.items()}
        if len(self.journal.empty_times()):
            self.journal.forget_others({task.name: task.inputs for task in self.tasks.all()})
        records = self.journal.sound_records(
            lambda records: shards_to_read(self.tasks, records, self._collects(records))
        )
        check_space(self.root, self._bytes_left(records))
        sums = self._write_state(records)
        self._measure_changes(records)
        self._write_climatology(records, sums)
        names = {task.name for task in self.tasks.all()}
        records = {name: record for name, record in self.journal.records().items() if name in names}
        if len(self.journal.empty_times()):
            self._refuse_moved(records)
        try:
            state, tendency = self._statistics(records, self.design.tendency_lead)
            more = {lead: self._statistics(records, lead)[1] for lead in self.design.more_leads}
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the records of {self.root} hold statistics that are none ({error!r}); prepare the store anew"
            ) from error
        warn(state, tendency)
        for key, content in statistics_files(state, tendency, self.design.tendency_lead, more).items():
            files[key] = write_file(self.root, key, content)
        finish(self.root, self.design, self.source, files, records, self.original)

    def _refuse_moved(self, records: Mapping[str, Record]) -> None:
        """A worker of a cluster may have been writing still when a time was left out, and all later ones moved."""
        if moved := [task.name for task in self.tasks.all() if records[task.name]["inputs"] != task.inputs]:
            raise InputError(
                f"{len(moved)} shards of {self.root}, the first {moved[0]}, were written by workers that did not know "
                "yet which times are left out; start the same command again: it writes these anew"
            )

    def _collects(self, records: Mapping[str, Record]) -> bool:
        """True when the climatology's sums are gathered while shards are written, those done before read again."""
        if not self.design.sums_beside_writing:
            return False
        n_done = sum(task.name in records for task in self.tasks.state())
        n_undone = sum(1 for _ in self.design.sharding.blocks()) - n_done
        return n_undone > n_done and any(task.name not in records for task in self.tasks.climatology())

    def _bytes_left(self, records: dict[str, Record]) -> int:
        """Before compression, of what the journal does not say to be written."""
        state = sum(task.n_bytes for task in self.tasks.state() if task.name not in records)
        undone = [task.name not in records for task in self.tasks.climatology()]
        return state + self.design.climatology_bytes * sum(undone) // len(undone)

    def _write_state(self, records: dict[str, Record]) -> ClimatologySums | None:
        tasks = list(self.tasks.state())
        sums = self._empty_sums() if self._collects(records) else None

        def calls() -> Iterator[Call]:
            for _, row in groupby(tasks, key=lambda task: task.block.row):
                by_column = {task.block.column: task for task in row}
                for group in self.design.groups:
                    members = [by_column[column] for column in group]
                    done = [task for task in members if task.name in records]
                    if sums is not None and done:
                        yield Call(done[0].name, _collect_again, (done, sums))
                    if missing := [task for task in members if task.name not in records]:
                        arguments = missing, self._portion(missing), self.design.readers, sums
                        yield Call(missing[0].name, _write, arguments)

        n_done = sum(task.n_bytes for task in tasks if task.name in records)
        design = self.design
        self._run("fields", calls(), design.sharding.state_bytes, design.workers, n_done, self.source.fields)
        return sums

    def _measure_changes(self, records: dict[str, Record]) -> None:
        undone = [task for task in self.tasks.tendency() if task.name not in records]
        n_bytes = sum(task.n_bytes(self.design.sharding.field_bytes) for task in undone)
        self._run("changes", (Call(t.name, _alone, (t.run,)) for t in undone), n_bytes, self.design.change_workers)

    def _portion(self, tasks: list[StateTask]) -> Portion:
        """What to read for the shards of one time range, side by side."""
        channels = np.concatenate([np.arange(t.block.channels.start, t.block.channels.stop) for t in tasks])
        return Portion.within(self.design.ends, self.design.axis.indices[tasks[0].block.times], channels)

    def _empty_sums(self) -> ClimatologySums:
        design, sharding = self.design, self.design.sharding
        hours = np.searchsorted(design.hours, hour_of_day(design.axis.times))
        days = day_index(design.axis.times, design.config.climatology_window)
        fields = [(c.stop - c.start, *design.grid.shape) for c in sharding.columns()]
        return ClimatologySums(
            np.where(design.training, hours, -1), days, (len(design.hours), len(design.days)), fields
        )

    def _write_climatology(self, records: dict[str, Record], sums: ClimatologySums | None) -> None:
        undone = [task for task in self.tasks.climatology() if task.name not in records]
        design = self.design
        n_fields = sum(len(task.indices) * (task.channels.stop - task.channels.start) for task in undone)
        calls = (
            Call(t.name, _alone, (t.run if sums is None else partial(t.run, sums.of(t.channels, t.hour)),))
            for t in undone
        )
        self._run("climatology", calls, n_fields * design.sharding.field_bytes, design.climatology_workers)

    def _run(
        self, label: str, calls: Iterable[Call], n_bytes: int, workers: int, done: int = 0, shared: Any = None
    ) -> None:
        """Run calls that return what they dealt with, under a progress bar with rate, time left and what was last."""
        bar = tqdm(total=n_bytes, initial=done, desc=label, unit="B", unit_scale=True, unit_divisor=1024, disable=None)
        with bar:
            for dealt in run_tasks(calls, workers, shared, self.scheduler):
                for one in dealt if isinstance(dealt, list) else [dealt]:
                    bar.set_postfix_str(one.label, refresh=False)
                    bar.update(one.bytes)

    def _statistics(self, records: dict[str, Record], lead: int) -> tuple[ChannelStatistics, ChannelStatistics]:
        """Of state and change over a lead time, merged in the order of the blocks, whatever order they were written
        in."""
        sharding, design = self.design.sharding, self.design
        state: list[list[ChannelStatistics]] = [[] for _ in sharding.columns()]
        tendency: list[list[ChannelStatistics]] = [[] for _ in state]
        across = {(b.times.stop, b.column): b.label for b in sharding.change_blocks(design.steps_of(lead))}
        for block in sharding.blocks():
            payload = records[f"state-{block.label}"]["payload"]
            state[block.column].append(ChannelStatistics.from_dict(payload["state"]))
            changes = payload["tendency"] if lead == design.tendency_lead else payload["tendencies"][str(lead)]
            if changes is not None:
                tendency[block.column].append(ChannelStatistics.from_dict(changes))
            label = across.get((block.times.stop, block.column))
            if label and (record := records.get(design.change_name(lead, label))) is not None:
                tendency[block.column].append(ChannelStatistics.from_dict(record["payload"]))
        widths = [channels.stop - channels.start for channels in sharding.columns()]
        return _joined(state, widths), _joined(tendency, widths)


def _write(
    fields: Readable, tasks: list[StateTask], portion: Portion, readers: int, sums: ClimatologySums | None
) -> list[Done]:
    """Read and write neighbouring shards; `portion` is what they hold together."""
    try:
        values = portion.read(fields, readers)  # [time, channel, lat, lon]
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


def _collect_again(_: Readable, tasks: list[StateTask], sums: ClimatologySums) -> list[Done]:
    """Sums of shards that an interrupted run had written."""
    try:
        for task in tasks:
            sums.add(task.block, task.read_back())
        return []
    except BaseException:
        sums.stop()
        raise


def _alone(_: Any, work: Callable[[], Done]) -> Done:
    """A task that needs no more than the store."""
    return work()


def _joined(columns: list[list[ChannelStatistics]], widths: list[int]) -> ChannelStatistics:
    return join_channels([total(column, width) for column, width in zip(columns, widths, strict=True)])
