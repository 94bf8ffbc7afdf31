"""What `prepare` is about to do: every check that needs no data, and what it will cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from dask.system import CPU_COUNT

from weatherfm.data_pipeline.fields.masks import Masks
from weatherfm.data_pipeline.fields.positions import STATE_DIMS, BlockEnds
from weatherfm.data_pipeline.fields.source_data import ReadCost
from weatherfm.data_pipeline.fields.time_axis import TimeAxis, hour_of_day, resolve_periods, select_times
from weatherfm.data_pipeline.machine.cluster import capacity_of
from weatherfm.data_pipeline.machine.host_memory import available_memory
from weatherfm.data_pipeline.store.climatology import check_coverage, day_coordinate
from weatherfm.data_pipeline.store.measures import Measure, measures_of
from weatherfm.data_pipeline.store.sharding import Sharding, choose_sharding
from weatherfm.data_pipeline.store.statistics import pairs
from weatherfm.data_pipeline.store_config import DataConfig, Period
from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError

if TYPE_CHECKING:
    from weatherfm.data_pipeline.fields.source_data import SourceData

_ENCODED = 2
"""Copies of a shard that encoding takes at most: its chunks, and these as one file."""
_RECORD_BYTES = 600
"""Of a shard's record in memory, beside its numbers."""
_NUMBER_BYTES = 25
"""Of one number of a record in memory: 11 as text, and what reading and writing all records hold beside that."""
_NUMBERS = 10
"""Of a record for each channel: five of the fields, five of their changes."""


@dataclass(frozen=True)
class Limits:
    """What tasks may take together."""

    workers: int
    """Tasks at a time, where memory allows."""
    memory: int
    """Bytes."""
    on_cluster: bool


@dataclass(frozen=True, eq=False)
class StoreDesign:
    """A store before it is written."""

    config: DataConfig
    axis: TimeAxis
    grid: Grid
    periods: Mapping[str, Period | None]
    sharding: Sharding
    hours: np.ndarray
    """[hour] int64 UTC, those of the training times."""
    tendency_lead: int
    """Hours."""
    more_leads: tuple[int, ...]
    """Hours of further lead times over which changes are measured, ascending."""
    simulated: bool
    preliminary: np.ndarray
    """[time] bool: fields that their source will replace."""
    groups: list[list[int]]
    """Columns of shards to write from one read of the source."""
    ends: BlockEnds
    """Of the blocks that the source is best read in."""
    block_bytes: int
    """Bytes that reading one block of the source holds for a moment."""
    cost: ReadCost | None
    """Of reading it all; None where the source cannot tell."""
    download_bytes: int
    """What the source has yet to bring to this machine, about."""
    download_folder: str | None
    """Where it puts that."""
    limits: Limits
    """What writing may take; one writer always runs."""
    masks: Masks = field(default_factory=dict)
    """Of channels that some points have no value of: known once one time of them has been read."""
    checked: bool = True
    """Whether every chunk carries a checksum (crc32c); stores of before it came are continued without."""

    @cached_property
    def training(self) -> np.ndarray:
        """[time] bool: the days that may be learned from."""
        period = self.periods["train"]
        assert period is not None  # resolve_periods fills it
        return period.contains(self.axis.times)

    @property
    def days(self) -> np.ndarray:
        """[dayofyear] coordinate of the climatology."""
        return day_coordinate(self.config.climatology_window)

    @property
    def climatology_rows(self) -> int:
        """Days in one shard of the climatology."""
        return self.sharding.climatology_rows(len(self.days))

    @property
    def climatology_bytes(self) -> int:
        """Before compression."""
        return len(self.days) * len(self.hours) * 4 * self.sharding.n_channels * math.prod(self.grid.shape)

    @property
    def climatology_sums_bytes(self) -> int:
        """Sums in float64 of all hours and channels."""
        return 2 * self.climatology_bytes

    @property
    def sums_beside_writing(self) -> bool:
        """True when the climatology's sums fit into half the memory, so that they are gathered while shards are written
        and the store is not read a second time."""
        return not self.limits.on_cluster and self.climatology_sums_bytes <= self.limits.memory // 2

    @property
    def climatology_task_bytes(self) -> int:
        """Held by one climatology task that reads the store: sums in float64, some shards, and fields read for them."""
        held = 2 * len(self.days) + 5 * self.climatology_rows + self.sharding.batch_times
        return held * self.sharding.chunk_bytes

    @property
    def climatology_workers(self) -> int:
        """Climatology tasks at a time."""
        return self._fitting(self.climatology_task_bytes)

    @property
    def change_workers(self) -> int:
        """Tasks at a time that look at changes; each holds fields, differences and one channel in float64."""
        steps = self.steps_of(max(self.tendency_lead, *self.more_leads, 0))
        rows = self.sharding.change_rows(steps) * self.sharding.shard_times + steps
        return self._fitting(2 * rows * (self.sharding.chunk_bytes + self.sharding.field_bytes))

    def steps_of(self, lead: int) -> int:
        """Steps of the time axis in a lead time."""
        return max(1, lead // self.axis.step_hours)

    @property
    def writer_bytes(self) -> int:
        """Held by one writer: the shards of its group, and one of them encoded."""
        return (max(len(group) for group in self.groups) + _ENCODED) * self.sharding.shard_bytes

    @property
    def reader_bytes(self) -> int:
        """Held by one thread that reads for a writer: a block of the source, in what it is read from and as fields."""
        times, channels = self.ends.largest()
        held = min(times, self.sharding.shard_times) * min(channels, self.sharding.n_channels)
        return self.block_bytes + held * self.sharding.field_bytes

    @property
    def records_bytes(self) -> int:
        """Held by what is known of every shard that is written."""
        number = _NUMBERS * self.sharding.n_channels * _NUMBER_BYTES
        return self.sharding.n_rows * (self.sharding.n_columns * _RECORD_BYTES + number)

    def _fitting(self, task_bytes: int) -> int:
        return max(1, min(self.limits.workers, self.limits.memory // max(1, task_bytes)))

    @property
    def _free(self) -> int:
        return self.limits.memory - (self.climatology_sums_bytes if self.sums_beside_writing else 0)

    @property
    def workers(self) -> int:
        """Writers at a time; no more than there is to write."""
        jobs = len(self.groups) * self.sharding.n_rows
        return max(1, min(self.limits.workers, jobs, self._free // (self.writer_bytes + self.reader_bytes)))

    @property
    def readers(self) -> int:
        """Threads of each writer that read and regrid the blocks of its shards, so that few writers use all cores."""
        if self.limits.on_cluster:
            return 1  # a task is one thread of one worker
        fitting = (self._free // self.workers - self.writer_bytes) // self.reader_bytes
        return max(1, min(self.limits.workers // self.workers, fitting))

    @property
    def bytes_before_compression(self) -> int:
        """Of all arrays; on disk it is less."""
        static = 4 * len(self.config.static) * math.prod(self.grid.shape)
        return self.sharding.state_bytes + self.climatology_bytes + static

    @property
    def shards(self) -> int:
        """Files of `state` and `climatology`."""
        days = -(-len(self.days) // self.climatology_rows)
        climatology = days * len(self.hours) * len(self.sharding.channel_blocks())
        return self.sharding.n_rows * self.sharding.n_columns + climatology

    @property
    def files(self) -> int:
        """All files, metadata and coordinates included."""
        statistics, coordinates = 5, 9  # one data and one metadata file each
        static = 6 if self.config.static else 0
        return self.shards + 2 * (statistics + coordinates) + static + 7

    @property
    def peak_memory(self) -> int:
        """Bytes that the data may take, beside the program itself; it does not grow with the length of the record."""
        writing = self.workers * (self.writer_bytes + self.readers * self.reader_bytes)
        if self.sums_beside_writing:
            return writing + self.climatology_sums_bytes
        return max(writing, self.climatology_workers * self.climatology_task_bytes)

    @property
    def stated_memory(self) -> int:
        """Bytes to tell people: data, and what is known of every shard."""
        return self.peak_memory + self.records_bytes

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """[channel]: how each is counted in statistics."""
        config = self.config
        return measures_of(config.channels, self.masks, config.log_scales, self.grid, config.area_weighted)

    def change_name(self, lead: int, label: str) -> str:
        """In the journal, of what measures changes over a lead time between some shards."""
        return f"{'tendency' if lead == self.tendency_lead else f'tendency{lead}h'}-{label}"

    def pairs(self, lead: int) -> tuple[np.ndarray, np.ndarray]:
        """Store positions of training times a lead time apart, of which the later lies in a later shard."""
        earlier, later = pairs(self.axis.times, self.training, lead)
        crossing = earlier // self.sharding.shard_times != later // self.sharding.shard_times
        return earlier[crossing], later[crossing]


def design_store(
    config: DataConfig,
    source: SourceData,
    workers: int | None = None,
    memory: int | None = None,
    scheduler: str | None = None,
    empty: np.ndarray | None = None,
) -> StoreDesign:
    """Check a source against its config without reading fields, and count what the store will take.

    Args:
        config: the store wanted.
        source: what there is.
        workers: most shards to write at a time; without it, one a CPU core.
        memory: bytes that data may take; without it, half of what is available to the process.
        scheduler: address of a dask.distributed scheduler: cores and memory are those of its workers then.
        empty: [n] datetime64, times that the source has no values of: gaps.

    Raises:
        InputError: a time axis, split, grid, channel set or climatology window that cannot work.
        OutsideError: the scheduler has no workers.
    """
    _check_source(config, source)
    if workers is not None and workers < 1:
        raise InputError(f"workers must be 1 or more, got {workers}")
    grid = source.grid
    axis = select_times(source.state["time"].values, config, empty)
    periods = resolve_periods(config, axis.times) if source.periods is None else source.periods
    train = periods["train"]
    assert train is not None  # resolve_periods fills it
    training_times = axis.times[train.contains(axis.times)]
    hours = np.unique(hour_of_day(training_times))
    check_coverage(training_times, hours, config.climatology_window, train)
    sharding = choose_sharding(config, len(axis.times), grid.shape)
    every = np.zeros(len(source.state["time"]), bool)
    return StoreDesign(
        config=config,
        axis=axis,
        grid=grid,
        periods=periods,
        sharding=sharding,
        hours=hours,
        tendency_lead=(lead := _tendency_lead(config, axis, training_times)),
        more_leads=_more_leads(config, axis, training_times, lead),
        simulated=source.simulated,
        preliminary=(every if source.preliminary is None else source.preliminary)[axis.indices],
        groups=sharding.groups(source.together),
        ends=BlockEnds.of(source.state),
        block_bytes=source.block_bytes,
        cost=None if source.cost is None else source.cost(axis.indices),
        download_bytes=source.download_bytes,
        download_folder=source.download_folder,
        limits=find_limits(workers, memory, scheduler),
    )


def find_limits(workers: int | None, memory: int | None, scheduler: str | None) -> Limits:
    """What was asked for; else all cores and half of the memory, of this machine or of the cluster's workers together.

    Raises:
        InputError: no scheduler answers at that address.
        OutsideError: it has no workers.
    """
    if scheduler is not None:
        threads, held = capacity_of(scheduler)
        return Limits(workers or threads, memory or held // 2, True)
    return Limits(workers or CPU_COUNT, memory or available_memory() // 2, False)


def _tendency_lead(config: DataConfig, axis: TimeAxis, training_times: np.ndarray) -> int:
    lead = config.tendency_lead
    if lead is None:
        return max(24, axis.step_hours)
    if lead < 1 or not np.isin(training_times + np.timedelta64(lead, "h"), training_times).any():
        raise InputError(
            f"tendency_lead {lead}h: no two training times are so far apart (step {axis.step_hours}h); "
            "choose a positive multiple of the step"
        )
    return lead


def _more_leads(config: DataConfig, axis: TimeAxis, training_times: np.ndarray, lead: int) -> tuple[int, ...]:
    for hours in config.tendency_leads:
        if hours < 1 or not np.isin(training_times + np.timedelta64(hours, "h"), training_times).any():
            raise InputError(
                f"tendency_leads has {hours}h: no two training times are so far apart (step {axis.step_hours}h); "
                "choose positive multiples of the step"
            )
    return tuple(sorted(set(config.tendency_leads) - {lead}))


def _check_source(config: DataConfig, source: SourceData) -> None:
    if source.state.dims != STATE_DIMS:
        raise InputError(f"the source's state has dims {source.state.dims}, expected {STATE_DIMS}; mend the source")
    given = [str(name) for name in source.state["channel"].values]
    if given != config.channels:
        raise InputError(
            f"the source delivers channels {given}, the config asks for {config.channels}; mend the source"
        )
    names = [] if source.static is None else [str(name) for name in source.static["static"].values]
    if absent := [name for name in config.static if name not in names]:
        raise InputError(
            f"the source has no {', '.join(absent)} for static (it has {', '.join(names) or 'none'}); "
            "name the file in static_paths or leave it out"
        )
