"""Fields that a run reads over and over, kept in the machine's memory where they fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from tqdm import tqdm

from weatherfm.data_pipeline.host_memory import available_memory, local_processes
from weatherfm.data_pipeline.store import Store
from weatherfm.errors import InputError
from weatherfm.training.config import RunConfig
from weatherfm.training.samples import training_period

_SHARE = 4
"""`auto` takes at most the available memory divided by this and by the processes of the machine."""


@dataclass(frozen=True, eq=False)
class FieldCache:
    """Whether fields are kept, and why."""

    keep: bool
    indices: np.ndarray
    """[n] int64 positions in the store of the times of training and validation."""
    size: int
    """Bytes of their fields."""
    text: str
    """For the log."""


def choose_cache(config: RunConfig, store: Store, channels: Sequence[str], count: int = 1) -> FieldCache:
    """Decide for one process.

    `auto` keeps the fields if they fit into a quarter of the process's part of the available memory, and if training
    reads at least as many as there are to keep.

    Args:
        config: the run.
        store: its store.
        channels: that this process reads.
        count: parts of every batch, of which it reads one.

    Raises:
        InputError: `training.cache` is `on` and there is not enough memory.
    """
    mode, processes = config.training.cache, local_processes()
    periods = (training_period(config, store), config.data.validation)
    wanted = np.any([period.contains(store.times) for period in periods if period is not None], axis=0)
    indices = np.flatnonzero(wanted)
    size = 4 * len(indices) * len(channels) * prod(store.grid.shape)
    free = available_memory() // processes
    fields = f"{_text(size)} ({len(indices)} times, {len(channels)} channels)"
    if mode == "on" and size > free:
        raise InputError(
            f"training.cache=on needs {fields}, but {_text(free)} of memory is available to each of {processes} "
            "processes on this machine; choose training.cache=auto, give the job more memory, or shorten data.train"
        )
    if mode == "on":
        return FieldCache(True, indices, size, f"fields are kept in memory: {fields}")
    if mode == "off":
        return FieldCache(False, indices, size, "fields are read from disk (training.cache=off)")
    if size > free // _SHARE:
        why = f"{fields} is more than a quarter of the {_text(free)} available to each process"
        return FieldCache(False, indices, size, f"fields are read from disk: {why}")
    if _fields_read(config, count) < len(indices):
        return FieldCache(False, indices, size, f"fields are read from disk: the run is too short to keep {fields}")
    return FieldCache(True, indices, size, f"fields are kept in memory: {fields}")


def keep_fields(
    cache: FieldCache,
    store: Store,
    channels: Sequence[str],
    quiet: bool = False,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Read the fields into memory, at the speed of the disk, if that was decided.

    Args:
        cache: what was decided.
        store: from then on it reads them from memory.
        channels: those that will be asked for, in that order.
        quiet: no progress bar.
        alive: called after every piece.

    Raises:
        InputError: a shard that is missing or damaged.
    """
    if not cache.keep:
        return
    hidden = True if quiet else None  # None: where there is no terminal
    with tqdm(total=cache.size, unit="B", unit_scale=True, desc="reading fields", disable=hidden) as bar:

        def progress(n_bytes: int) -> None:
            bar.update(n_bytes)
            alive()

        store.keep(cache.indices, channels, progress)


def _fields_read(config: RunConfig, count: int) -> int:
    """States that training reads in all: of each sample its input times and its target."""
    settings = config.training
    samples = settings.steps * settings.accumulate * settings.batch_size // count
    return samples * (len(config.model.input_times) + 1)


def _text(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:,.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.3g} MiB"
