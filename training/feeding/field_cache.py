"""Fields that a run reads over and over, kept in memory where they fit: one copy a machine.

All ranks of a job decide together, so that those that share a copy agree, and read it together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from socket import gethostname

import numpy as np
from tqdm import tqdm

from weatherfm.data_pipeline.machine.host_memory import available_memory, jobs_beside, local_processes
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.errors import InputError
from weatherfm.model.share import balanced
from weatherfm.training.feeding.field_copies import Copy, Reader, assign_copies
from weatherfm.training.feeding.samples import training_period
from weatherfm.training.ranks.coordination import Coordination
from weatherfm.training.ranks.shared_memory import machine, process_space, share_memory
from weatherfm.training.run_config import RunConfig

_log = logging.getLogger(__name__)

_SHARE = 4
"""`auto` takes at most the available memory divided by this and by the copies on the machine."""


@dataclass(frozen=True, eq=False)
class FieldCache:
    """Whether fields are kept, where, and why."""

    keep: bool
    indices: np.ndarray
    """[n] int64 positions in the store of the times of training and validation."""
    size: int
    """Bytes of their fields."""
    text: str
    """For the log."""
    fields: np.ndarray | None = None
    """[n, channel, lat, lon] float32: memory for them that other ranks share; None: in memory of this process's own."""
    part: slice = field(default_factory=lambda: slice(None))
    """Of `indices`: what this process reads into the shared memory."""


def choose_cache(config: RunConfig, store: Store, channels: Sequence[str], count: int = 1) -> FieldCache:
    """Decide, and set the memory aside that ranks share; in a job of several ranks all must call this together.

    `auto` keeps the fields if they fit into a quarter of their copy's part of the available memory, and if training
    reads at least as many as there are to keep.

    Args:
        config: the run.
        store: its store.
        channels: that this process reads.
        count: parts of every batch, of which it reads one.

    Raises:
        InputError: `training.cache` is `on` and there is not enough memory, on this machine or another rank's.
    """
    wanted = _Wanted(config, store, len(channels), count)
    if wanted.mode == "off":
        return FieldCache(False, wanted.indices, wanted.size, "fields are read from disk (training.cache=off)")
    ranks = Coordination()
    reader = Reader(machine(), process_space(), tuple(channels), available_memory() // jobs_beside(), local_processes())
    copy, cache = _agree(ranks, reader, wanted.judge)
    shared = share_memory(ranks, copy.sharers if cache.keep else (), wanted.size)
    if not shared.all_well:  # somewhere a copy cannot be shared: each of its ranks needs one of its own
        speaks = shared.problem and ranks.rank == copy.sharers[0]
        if shared.problem:
            reader = replace(reader, space=f"rank {ranks.rank}")
        copy, cache = _agree(ranks, reader, lambda copy: wanted.judge(copy, shared.problem))
        if speaks and ranks.rank:  # the caller logs what rank 0 has
            _log.warning("on %s: %s", gethostname(), cache.text)
    if not cache.keep or shared.memory is None:
        return cache
    fields = np.ndarray(wanted.shape, np.float32, buffer=shared.memory)
    return replace(cache, fields=fields, part=_part(len(fields), copy.sharers.index(ranks.rank), len(copy.sharers)))


def keep_fields(
    cache: FieldCache,
    store: Store,
    channels: Sequence[str],
    quiet: bool = False,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Read the fields into memory, at the speed of the disk, if so decided; ranks that share a copy read a part each.

    Returns when all ranks of the job have read theirs; in a job of several ranks all must call this together.

    Args:
        cache: what was decided.
        store: from then on it reads them from memory.
        channels: those that will be asked for, in that order.
        quiet: no progress bar.
        alive: called after every piece.

    Raises:
        InputError: a shard that is missing or damaged, whichever rank finds it.
    """
    if cache.keep:
        Coordination().all_do(lambda: _read(cache, store, channels, quiet, alive))
    else:
        Coordination().barrier()  # of those that have read none, none goes ahead either


def _read(cache: FieldCache, store: Store, channels: Sequence[str], quiet: bool, alive: Callable[[], None]) -> None:
    own = len(cache.indices[cache.part])
    hidden = True if quiet else None  # None: where there is no terminal
    total = cache.size * own // max(1, len(cache.indices))
    with tqdm(total=total, unit="B", unit_scale=True, desc="reading fields", disable=hidden) as bar:

        def progress(n_bytes: int) -> None:
            bar.update(n_bytes)
            alive()

        store.keep(cache.indices, channels, progress, cache.fields, cache.part)


def _agree(ranks: Coordination, reader: Reader, judge: Callable[[Copy], FieldCache]) -> tuple[Copy, FieldCache]:
    """This rank's copy, and what it comes to; what is wrong with that on one rank is raised on all."""
    copy = ranks.decide(lambda: reader, assign_copies)
    found: list[FieldCache] = []
    ranks.all_do(lambda: found.append(judge(copy)))
    return copy, found[0]


class _Wanted:
    """What a process would keep; arguments as those of `choose_cache`."""

    def __init__(self, config: RunConfig, store: Store, channels: int, count: int) -> None:
        periods = (training_period(config, store), config.data.validation)
        wanted = np.any([period.contains(store.times) for period in periods if period is not None], axis=0)
        self.mode = config.training.cache
        self.indices = np.flatnonzero(wanted)
        self.shape = (len(self.indices), channels, *store.grid.shape)
        self.size = 4 * prod(self.shape)
        self._reads = _fields_read(config, count)

    def judge(self, copy: Copy, problem: str = "") -> FieldCache:
        """Whether it is kept, the same on all ranks that share the copy.

        Args:
            copy: that would be used.
            problem: why it cannot be shared, if so.
        """
        fields = f"{_text(self.size)} ({self.shape[0]} times, {self.shape[1]} channels)"
        room = f"the {_text(copy.free)} available" + (f" to each of {copy.copies} copies" if copy.copies > 1 else "")
        why = f", as memory cannot be shared by the processes here ({problem})" if problem else ""
        together = f", one copy for {len(copy.sharers)} processes" if len(copy.sharers) > 1 else ""
        keep, text = True, f"kept in memory: {fields}{together}" + (f", a copy in each process{why}" if problem else "")
        if self.mode == "on" and self.size > copy.free:
            raise InputError(
                f"training.cache=on needs {fields}, more than {room} on this machine{why}; "
                "choose training.cache=auto, give the job more memory, or shorten data.train"
            )
        if self.mode == "auto" and self.size > copy.free // _SHARE:
            keep, text = False, f"read from disk: {fields} is more than a quarter of {room} on this machine{why}"
        elif self.mode == "auto" and self._reads * len(copy.sharers) < len(self.indices):
            keep, text = False, f"read from disk: the run is too short to keep {fields}"
        return FieldCache(keep, self.indices, self.size, f"fields are {text}")


def _part(total: int, index: int, count: int) -> slice:
    """One of `count` parts of so many, which differ by one at most."""
    sizes = balanced(total, count)
    return slice(sum(sizes[:index]), sum(sizes[: index + 1]))


def _fields_read(config: RunConfig, count: int) -> int:
    """States that training reads in all: of each sample its input times and, of forecasts, its target."""
    settings = config.training
    samples = settings.steps * settings.accumulate * settings.batch_size // count
    return samples * (len(config.model.input_times) + (config.model.reconstruction is None))


def _text(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:,.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.3g} MiB"
