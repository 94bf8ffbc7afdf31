"""Fields that a run reads over and over, kept in memory where they fit: one copy a machine.

All ranks of a job decide together, so that those that share a copy agree, and read it together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
from tqdm import tqdm

from weatherfm.data_pipeline.host_memory import available_memory, local_processes
from weatherfm.data_pipeline.store import Store
from weatherfm.errors import InputError
from weatherfm.share import balanced
from weatherfm.training.config import RunConfig
from weatherfm.training.field_copies import Copy, Reader, deal_copies
from weatherfm.training.ranks.coordination import Coordination
from weatherfm.training.ranks.shared_memory import machine, process_space, share_memory
from weatherfm.training.samples import training_period

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
    periods = (training_period(config, store), config.data.validation)
    wanted = np.any([period.contains(store.times) for period in periods if period is not None], axis=0)
    indices, shape = np.flatnonzero(wanted), (len(channels), *store.grid.shape)
    size = 4 * len(indices) * prod(shape)
    if config.training.cache == "off":
        return FieldCache(False, indices, size, "fields are read from disk (training.cache=off)")

    def judge(copy: Copy, problem: str = "") -> FieldCache:
        fields = f"{_text(size)} ({len(indices)} times, {len(channels)} channels)"
        reads = _fields_read(config, count) * len(copy.sharers)
        keep, text = _judge(config.training.cache, fields, size, copy, reads >= len(indices), problem)
        return FieldCache(keep, indices, size, text)

    ranks = Coordination()
    reader = Reader(machine(), process_space(), tuple(channels), available_memory(), local_processes())
    copy, cache = _agree(ranks, reader, judge)
    shared = share_memory(ranks, copy.sharers if cache.keep else (), size)
    if not shared.all_well:  # somewhere a copy cannot be shared: each of its ranks needs one of its own
        if shared.problem:
            reader = replace(reader, space=f"rank {ranks.rank}")
        copy, cache = _agree(ranks, reader, lambda copy: judge(copy, shared.problem))
    if not cache.keep or shared.memory is None:
        return cache
    sizes, place = balanced(len(indices), len(copy.sharers)), copy.sharers.index(ranks.rank)
    first = sum(sizes[:place])
    memory = np.ndarray((len(indices), *shape), np.float32, buffer=shared.memory)
    return replace(cache, fields=memory, part=slice(first, first + sizes[place]))


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
        Coordination().all_do(lambda: None)


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
    copy = ranks.decide(lambda: reader, deal_copies)
    found: list[FieldCache] = []
    ranks.all_do(lambda: found.append(judge(copy)))
    return copy, found[0]


def _judge(mode: str, fields: str, size: int, copy: Copy, often: bool, problem: str) -> tuple[bool, str]:
    """Whether fields are kept, and the words for it; the same on all ranks that share the copy."""
    room = f"the {_text(copy.free)} available to each of {copy.copies} copies" if copy.copies > 1 else _text(copy.free)
    why = f", as memory cannot be shared by the processes here ({problem})" if problem else ""
    if mode == "on" and size > copy.free:
        raise InputError(
            f"training.cache=on needs {fields}, more than {room} of memory on this machine{why}; "
            "choose training.cache=auto, give the job more memory, or shorten data.train"
        )
    if mode == "auto" and size > copy.free // _SHARE:
        return False, f"fields are read from disk: {fields} is more than a quarter of {room} on this machine{why}"
    if mode == "auto" and not often:
        return False, f"fields are read from disk: the run is too short to keep {fields}"
    together = f", one copy for {len(copy.sharers)} processes" if len(copy.sharers) > 1 else ""
    each = f", a copy in each process{why}" if problem else ""
    return True, f"fields are kept in memory: {fields}{together}{each}"


def _fields_read(config: RunConfig, count: int) -> int:
    """States that training reads in all: of each sample its input times and its target."""
    settings = config.training
    samples = settings.steps * settings.accumulate * settings.batch_size // count
    return samples * (len(config.model.input_times) + 1)


def _text(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:,.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.3g} MiB"
