"""What `prepare` is about to do: every check that needs no data, and what it will cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from dask.system import CPU_COUNT

from weatherfm.data_pipeline.climatology import check_coverage, day_coordinate
from weatherfm.data_pipeline.config import DataConfig, Period
from weatherfm.data_pipeline.layout import MIB, Layout, choose_layout
from weatherfm.data_pipeline.time_axis import TimeAxis, hour_of_day, name_times, resolve_periods, select_times
from weatherfm.errors import InputError
from weatherfm.grid import Grid

if TYPE_CHECKING:
    from weatherfm.data_pipeline.sources import SourceData

STATE_DIMS = ("time", "channel", "latitude", "longitude")
_CLIMATOLOGY_MEMORY = 4 * 2**30
"""Bytes that the sums of all climatology tasks together should not pass; one task always runs."""
_BUFFERS = 4
"""Copies of a shard that a writer may hold: the source's pieces, these joined, encoded, and in float64."""


@dataclass(frozen=True, eq=False)
class StorePlan:
    """A store before it is written."""

    config: DataConfig
    axis: TimeAxis
    grid: Grid
    periods: dict[str, Period | None]
    layout: Layout
    hours: np.ndarray
    """[hour] int64 UTC, those of the training times."""
    tendency_lead: int
    """Hours."""
    simulated: bool
    workers: int

    @property
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
        return self.layout.shard_rows(len(self.days))

    @property
    def climatology_bytes(self) -> int:
        """Before compression."""
        return len(self.days) * len(self.hours) * 4 * self.layout.n_channels * math.prod(self.grid.shape)

    @property
    def climatology_task_bytes(self) -> int:
        """Sums that one climatology task holds in float64."""
        return 2 * len(self.days) * self.layout.chunk_bytes

    @property
    def climatology_workers(self) -> int:
        """Climatology tasks at a time."""
        return max(1, min(self.workers, _CLIMATOLOGY_MEMORY // self.climatology_task_bytes))

    @property
    def bytes_before_compression(self) -> int:
        """Of all arrays; on disk it is less."""
        static = 4 * len(self.config.static) * math.prod(self.grid.shape)
        return self.layout.state_bytes + self.climatology_bytes + static

    @property
    def shards(self) -> int:
        """Files of `state` and `climatology`."""
        state = len(self.axis.times) / self.layout.shard_times
        days = len(self.days) / self.climatology_rows
        return (math.ceil(state) + math.ceil(days) * len(self.hours)) * self.layout.n_columns

    @property
    def files(self) -> int:
        """All files, metadata and coordinates included."""
        statistics, coordinates = 5, 9  # one data and one metadata file each
        static = 6 if self.config.static else 0
        return self.shards + 2 * (statistics + coordinates) + static + 4

    @property
    def peak_memory(self) -> int:
        """Bytes that the data may take while writing, beside the program itself and what the source keeps."""
        writing = self.workers * _BUFFERS * self.layout.shard_bytes
        climatology = self.climatology_workers * (self.climatology_task_bytes + 5 * self.layout.shard_bytes)
        return max(writing, climatology)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "store": self.config.store,
            "times": len(self.axis.times),
            "missing_times": len(self.axis.missing),
            "step_hours": self.axis.step_hours,
            "channels": self.layout.n_channels,
            "bytes_before_compression": self.bytes_before_compression,
            "shards": self.shards,
            "files": self.files,
            "peak_memory": self.peak_memory,
            "workers": self.workers,
        }

    def to_text(self) -> str:
        """Lines for a terminal."""
        times, layout = self.axis.times, self.layout
        block = f"chunk 1 time x {layout.channel_block} channels, shard {layout.shard_times} times"
        lines = {
            "store": f"{self.config.store}{' (simulated data)' if self.simulated else ''}",
            "times": f"{len(times)} every {self.axis.step_hours}h, {name_times(times[:1])} to {name_times(times[-1:])}",
            "missing": f"{len(self.axis.missing)} {name_times(self.axis.missing)}".strip(),
            "channels": f"{layout.n_channels}: {' '.join(self.config.channels)}",
            "grid": str(self.grid),
            **{name: str(period or "none") for name, period in self.periods.items()},
            "layout": f"{block} ({layout.shard_bytes / MIB:.1f} MiB)",
            "disk": f"at most {self.bytes_before_compression / MIB:,.0f} MiB in {self.files} files",
            "memory": f"about {self.peak_memory / MIB:,.0f} MiB for data with {self.workers} writers",
        }
        return "\n".join(f"{name:<11}{text}" for name, text in lines.items())


def plan_store(config: DataConfig, source: SourceData, workers: int | None = None) -> StorePlan:
    """Check a source against its config without reading fields, and count what the store will take.

    Args:
        config: the store wanted.
        source: what there is.
        workers: shards written at a time; without it, one a CPU core.

    Raises:
        InputError: a time axis, split, grid, channel set or climatology window that cannot work.
    """
    _check_source(config, source)
    grid = Grid(source.state["latitude"].values, source.state["longitude"].values)
    axis = select_times(source.state["time"].values, config)
    periods = resolve_periods(config, axis.times)
    train = periods["train"]
    assert train is not None  # resolve_periods fills it
    training_times = axis.times[train.contains(axis.times)]
    hours = np.unique(hour_of_day(training_times))
    check_coverage(training_times, hours, config.climatology_window, train)
    return StorePlan(
        config=config,
        axis=axis,
        grid=grid,
        periods=periods,
        layout=choose_layout(config, len(axis.times), grid.shape),
        hours=hours,
        tendency_lead=_tendency_lead(config, axis, training_times),
        simulated=source.simulated,
        workers=workers or CPU_COUNT,
    )


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
