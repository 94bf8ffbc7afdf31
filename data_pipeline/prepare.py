"""Source -> store: `state` shard by shard, then statistics, climatology and, last of all, the manifest."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
from tqdm import tqdm

from weatherfm.data_pipeline import manifest as manifests
from weatherfm.data_pipeline.climatology import day_index
from weatherfm.data_pipeline.config import DataConfig
from weatherfm.data_pipeline.describe import build_manifest, request_of, with_defaults
from weatherfm.data_pipeline.journal import (
    Journal,
    Record,
    refuse_other_request,
    remove_journal,
    write_file,
)
from weatherfm.data_pipeline.parallel import run_tasks
from weatherfm.data_pipeline.plan import StorePlan, plan_store
from weatherfm.data_pipeline.shards import ClimatologyTask, StateTask, TendencyTask
from weatherfm.data_pipeline.skeleton import array_metadata, skeleton_files, statistics_files
from weatherfm.data_pipeline.statistics import ChannelStatistics, join_channels, pairs, total
from weatherfm.data_pipeline.store import Store, open_store
from weatherfm.data_pipeline.time_axis import hour_of_day
from weatherfm.errors import InputError

if TYPE_CHECKING:
    from weatherfm.data_pipeline.sources import SourceData

_log = logging.getLogger(__name__)


def prepare(config: DataConfig, source: SourceData | None = None, scheduler: str | None = None) -> Store:
    """Write the store that `config` describes, or go on with one that was interrupted.

    An interrupted run that is started again ends with the same bytes as one that was not. A finished store is
    left alone.

    Args:
        config: what to read, keep and call training days.
        source: where to read from; without it, what `config.source` names.
        scheduler: address of a dask.distributed scheduler; without it, threads of this process write.

    Raises:
        InputError: the source or the config cannot work, a value is not finite, the store holds something else
            or is of other settings, or the disk is full.
    """
    root = Path(config.store).expanduser()
    if (root / manifests.NAME).is_file():
        store = open_store(root)
        held = with_defaults(store.manifest["request"])
        refuse_other_request(root, held, request_of(config), "was prepared")
        remove_journal(root)
        _log.info("the store %s is finished; nothing to do", root)
        return store
    if source is None:
        from weatherfm.data_pipeline.sources import open_source  # each source brings its own readers

        source = open_source(config)
    plan = plan_store(config, source)
    static = _static_fields(config, source)
    with Journal(root, _identity(plan, source)) as journal:
        _Writing(root, plan, source, static, journal, scheduler).run()
    return open_store(root)


def _identity(plan: StorePlan, source: SourceData) -> dict[str, Any]:
    """What must be the same for an interrupted run to go on."""
    times = plan.axis.times.astype(np.int64)
    return {
        "format_version": manifests.FORMAT_VERSION,
        "request": request_of(plan.config),
        "source": {"simulated": source.simulated, "attributes": source.attributes},
        "grid": plan.grid.to_dict(),
        "times": {"count": len(times), "first": int(times[0]), "checksum": manifests.checksum(times.tobytes())},
    }


class _Writing:
    """The stages of one run; each leaves out what the journal says is done."""

    def __init__(
        self,
        root: Path,
        plan: StorePlan,
        source: SourceData,
        static: np.ndarray | None,
        journal: Journal,
        scheduler: str | None,
    ) -> None:
        self.root, self.plan, self.source, self.static = root, plan, source, static
        self.journal, self.scheduler = journal, scheduler
        self.blocks = list(plan.layout.blocks())

    def run(self) -> None:
        """All stages; the manifest makes the store a finished one."""
        skeleton = skeleton_files(self.plan, self.static)
        files = {key: write_file(self.root, key, content) for key, content in skeleton.items()}
        records = self.journal.sound_records()
        self._write_state(skeleton, records)
        self._measure_tendency(records)
        self._write_climatology(skeleton, records)
        records = self.journal.records()
        state, tendency = self._statistics("state", records), self._statistics("tendency", records)
        self._warn_of_useless(state, tendency)
        for key, content in statistics_files(state, tendency).items():
            files[key] = write_file(self.root, key, content)
        for record in records.values():
            files |= record["files"]
        self.journal.finish(manifests.to_bytes(build_manifest(self.plan, self.source, files)))

    def _write_state(self, skeleton: dict[str, bytes], records: dict[str, Record]) -> None:
        metadata, plan = array_metadata(skeleton, "state"), self.plan
        state, training, names = self.source.state, plan.training, tuple(plan.config.channels)

        def tasks() -> Iterator[Any]:
            for block in self.blocks:
                times = block.times
                task = StateTask(
                    self.root, metadata, block, names[block.channels], plan.axis.times[times], training[times]
                )
                if task.name not in records:
                    part = state.isel(time=_positions(plan.axis.indices[times]), channel=block.channels)
                    yield dask.delayed(task.run, pure=False, traverse=False)(part.data)

        done = sum(_block_bytes(plan, block) for block in self.blocks if f"state-{block.label}" in records)
        self._run("fields", tasks(), plan.layout.state_bytes, done, plan.workers)

    def _measure_tendency(self, records: dict[str, Record]) -> None:
        plan = self.plan
        earlier, later = pairs(plan.axis.times, plan.training, plan.tendency_lead)
        field_bytes = plan.layout.state_bytes // plan.layout.n_times

        def tasks() -> Iterator[TendencyTask]:
            for block in self.blocks:
                part = slice(*np.searchsorted(earlier, [block.times.start, block.times.stop]))
                yield TendencyTask(self.root, block, earlier[part], later[part])

        self._run("changes", _undone(tasks(), records), 2 * len(earlier) * field_bytes, 0, plan.workers)

    def _write_climatology(self, skeleton: dict[str, bytes], records: dict[str, Record]) -> None:
        plan, layout, window = self.plan, self.plan.layout, self.plan.config.climatology_window
        metadata = array_metadata(skeleton, "climatology")
        training = np.flatnonzero(plan.training)
        hours = hour_of_day(plan.axis.times[training])

        def tasks() -> Iterator[ClimatologyTask]:
            for hour, value in enumerate(plan.hours):
                indices = training[hours == value]
                days = day_index(plan.axis.times[indices], window)
                for column, channels in enumerate(layout.channel_blocks()):
                    yield ClimatologyTask(
                        self.root, metadata, channels, column, hour, indices, days,
                        len(plan.days), window, layout.shard_times, plan.climatology_rows,
                    )  # fmt: skip

        n_bytes = len(training) * layout.state_bytes // layout.n_times
        self._run("climatology", _undone(tasks(), records), n_bytes, 0, plan.climatology_workers)

    def _run(self, label: str, tasks: Iterable[Any], n_bytes: int, done: int, workers: int) -> None:
        """Run tasks that return how many bytes they dealt with, under a progress bar with rate."""
        bar = tqdm(total=n_bytes, initial=done, desc=label, unit="B", unit_scale=True, unit_divisor=1024, disable=None)
        with bar:
            for dealt in run_tasks(tasks, workers, self.scheduler):
                bar.update(dealt)

    def _statistics(self, kind: str, records: dict[str, Record]) -> ChannelStatistics:
        """Merged in the order of the blocks, whatever order they were written in."""
        columns: list[list[ChannelStatistics]] = [[] for _ in self.plan.layout.channel_blocks()]
        for block in self.blocks:
            payload = records[f"{kind}-{block.label}"]["payload"]
            columns[block.column].append(ChannelStatistics.from_dict(payload))
        return join_channels([total(column, len(column[0].count)) for column in columns])

    def _warn_of_useless(self, state: ChannelStatistics, tendency: ChannelStatistics) -> None:
        still = [name for name, std in zip(self.plan.config.channels, state.std, strict=True) if not std > 0]
        if still:
            _log.warning("%s do not vary over the training days: no model can train on them", ", ".join(still))
        if not tendency.count.any():
            _log.warning(
                "no two training times are %dh apart: tendency_std is NaN, and no model can train on this store",
                self.plan.tendency_lead,
            )


def _static_fields(config: DataConfig, source: SourceData) -> np.ndarray | None:
    """[static, lat, lon] in the config's order."""
    if not config.static:
        return None
    assert source.static is not None  # plan_store has looked
    fields = source.static.sel(static=list(config.static)).transpose("static", "latitude", "longitude")
    values = np.asarray(fields.values, np.float32)
    if bad := [name for name, field in zip(config.static, values, strict=True) if not np.isfinite(field).all()]:
        raise InputError(
            f"static fields {', '.join(bad)} hold values that are not finite; mend the source or leave them out"
        )
    return values


def _undone(tasks: Iterable[Any], records: dict[str, Record]) -> Iterator[Any]:
    for task in tasks:
        if task.name not in records:
            yield dask.delayed(task.run, pure=False, traverse=False)()


def _positions(indices: np.ndarray) -> slice | np.ndarray:
    """A slice where the positions are neighbours: cheaper for every reader."""
    whole = slice(int(indices[0]), int(indices[-1]) + 1)
    return whole if whole.stop - whole.start == len(indices) else indices


def _block_bytes(plan: StorePlan, block: Any) -> int:
    n_times, n_channels = block.times.stop - block.times.start, block.channels.stop - block.channels.start
    return plan.layout.state_bytes // (plan.layout.n_times * plan.layout.n_channels) * n_times * n_channels
