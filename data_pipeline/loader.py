"""Samples for training and validation: which there are, in which order, and read ahead of their use.

A batch is a function of (store, seed, step) alone, so that a resumed run sees what an uninterrupted one would.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from weatherfm.data_pipeline.fields.time_axis import name_times
from weatherfm.data_pipeline.store.buffers import Buffers
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.data_pipeline.store_config import Period
from weatherfm.errors import InputError

_ORDER, _LEAD = 1, 2  # independent random streams of one seed


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one step: B samples, T input times, C channels, H x W grid; physical units.

    S times the lead time may follow one another; one where nothing else is said.
    """

    history: torch.Tensor
    """[B, T, C, H, W] float32, T in the order of the input times."""
    target: torch.Tensor
    """[B, C, H, W] float32 at `init_time` + `lead_time_hours`; [0, C, H, W] of samples without a target."""
    init_time: np.ndarray
    """[B] datetime64[s]."""
    lead_time_hours: torch.Tensor
    """[B] int64."""
    further: torch.Tensor | None = None
    """[S - 1, B, C, H, W] float32 at `init_time` + 2, 3, .. S lead times; None where S is 1."""
    store: int = 0
    """Which of several stores it is of."""

    def __len__(self) -> int:
        return len(self.init_time)

    @property
    def targets(self) -> tuple[torch.Tensor, ...]:
        """S states [B, C, H, W] float32, one after each lead time."""
        return (self.target,) if self.further is None else (self.target, *self.further)

    @property
    def starts(self) -> np.ndarray:
        """[S, B] datetime64: the initial times, and those that are reached before the last lead time."""
        spans = self.lead_time_hours.cpu().numpy().astype("timedelta64[h]")
        return self.init_time + np.arange(len(self.targets))[:, None] * spans

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        history, target, lead = (
            x.to(device, non_blocking=True) for x in (self.history, self.target, self.lead_time_hours)
        )
        further = None if self.further is None else self.further.to(device, non_blocking=True)
        return Batch(history, target, self.init_time, lead, further, self.store)


def eligible_init_times(
    store: Store, period: Period | None, input_times: Sequence[int], lead_times: Sequence[int]
) -> np.ndarray:
    """Init times whose inputs and targets are all there: [init] datetime64[s], ascending.

    Every input and lead time must be a time of the store inside the period, and no step between the first and
    the last of them may be missing or outside it: no sample crosses a gap, or goes from one summer to the next.

    Args:
        store: finished store.
        period: days that every time of a sample must lie in; None for the whole store.
        input_times: hours relative to init, 0 and before.
        lead_times: hours after init, all of which must be possible.
    """
    times = store.times
    inside = np.ones(len(times), bool) if period is None else period.contains(times)
    starts = np.diff(times, prepend=times[:1]) > np.timedelta64(store.step_hours, "h")
    starts |= ~inside
    run = np.cumsum(starts)  # [time] number of the stretch without gaps, within the period, that a time belongs to
    eligible = inside.copy()
    for offset in (*input_times, *lead_times):
        wanted = times + np.timedelta64(offset, "h")
        found = np.minimum(np.searchsorted(times, wanted), len(times) - 1)
        eligible &= (times[found] == wanted) & inside[found] & (run[found] == run)
    return times[eligible]


def reached_leads(lead_times: Sequence[int], successive: int) -> list[int]:
    """Hours after init that up to `successive` steps of each lead time end at, ascending."""
    return sorted({int(lead) * count for lead in lead_times for count in range(1, successive + 1)})


class SampleLoader:
    """Batches of random samples of a period, by step number.

    Each epoch goes once through all eligible init times in an order of its own (the rest that does not fill a
    batch is left out); each sample's lead time is drawn anew. Both depend on the seed and the step alone.

    Args:
        store: finished store.
        period: days that samples may use; None for all.
        input_times: hours relative to init, 0 and before.
        lead_times: hours to draw from.
        batch_size: samples in a batch.
        seed: 0 or more.
        workers: threads that read ahead; 0 reads when asked.
        channels: short names in the order wanted; all without it.
        pin_memory: hand out page-locked memory (for a GPU).
        part: (index, count): hand out only this one of `count` equal parts of every batch.
        successive: step -> how many targets a sample has from there on, each a lead time after the one before,
            ascending from 0; one without it. With {0: 0} a sample is its input states alone. Samples are those with
            room for the largest number, at every step: their order does not depend on when it comes.
        seen: those of `channels` that input states are read of; all without it. The others are zero there.
        scored: those of `channels` that targets are read of, likewise.

    A sample is chosen by (seed, epoch, step) alone, and the parts of a batch make it up whatever their number. Ranks
    that work on one sample together must ask for the same part: with different weather they would add up parts of
    different forecasts, and nothing would tell.

    Raises:
        InputError: too few eligible init times to fill one batch, or a batch that `count` does not divide.
    """

    def __init__(
        self,
        store: Store,
        period: Period | None,
        input_times: Sequence[int],
        lead_times: Sequence[int],
        batch_size: int,
        seed: int,
        workers: int,
        channels: Sequence[str] | None = None,
        pin_memory: bool = False,
        part: tuple[int, int] = (0, 1),
        successive: Mapping[int, int] | None = None,
        seen: Sequence[str] | None = None,
        scored: Sequence[str] | None = None,
    ) -> None:
        self.store, self.channels, self.batch_size = store, channels, batch_size
        self.input_times, self.lead_times = tuple(input_times), np.asarray(lead_times, np.int64)
        self.seed, self.workers, self._buffers = seed, workers, Buffers(pin_memory)
        self._seen, self._scored = seen, scored
        self._successive = dict(successive or {0: 1})
        most = max(self._successive.values())
        leads = reached_leads(lead_times, most)
        self.init_times = eligible_init_times(store, period, input_times, leads)
        self._order = lru_cache(maxsize=2)(self._shuffled)  # readers may be in two epochs at once
        index, count = part
        if batch_size % count:
            raise InputError(f"a batch of {batch_size} cannot be dealt out to {count} equally; choose a multiple")
        self._part = slice(index * (batch_size // count), (index + 1) * (batch_size // count))
        if len(self.init_times) < batch_size:
            raise InputError(
                f"only {len(self.init_times)} init times have every input {list(input_times)} h and lead "
                f"{leads} h within {period or 'the store'} (times every {store.step_hours}h, "
                f"{name_times(store.times[:1])} to {name_times(store.times[-1:])}), but a batch needs {batch_size}; "
                "choose a longer period, leads that are multiples of the step, or a smaller batch"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the period."""
        return len(self.init_times) // self.batch_size

    def samples(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Init times [B] datetime64[s] and lead times [B] int64 hours of a step, of the own part; nothing read."""
        epoch, position = divmod(step, self.steps_per_epoch)
        chosen = self._order(epoch)[position * self.batch_size : (position + 1) * self.batch_size]
        leads = np.random.default_rng([_LEAD, self.seed, epoch, step]).choice(self.lead_times, self.batch_size)
        return self.init_times[chosen][self._part], leads[self._part]

    def successive(self, step: int) -> int:
        """Targets of each sample of a step."""
        return self._successive[max(begin for begin in self._successive if begin <= step)]

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([_ORDER, self.seed, epoch]).permutation(len(self.init_times))

    def batch(self, step: int, successive: int | None = None) -> Batch:
        """The batch of a step, counted from 0 over all epochs; `successive` in place of its own number of targets."""
        inits, leads = self.samples(step)
        successive = self.successive(step) if successive is None else successive
        return read_batch(
            self.store, inits, self.input_times, leads, self.channels, self._buffers, successive,
            self._seen, self._scored,
        )  # fmt: skip

    def iterate(self, start_step: int, stop_step: int) -> Iterator[Batch]:
        """Batches of the steps `start_step` .. `stop_step` - 1 in order, read ahead by `workers` threads."""
        return read_ahead_of(self.batch, range(start_step, stop_step), self.workers)


def fixed_batches(
    store: Store,
    inits: np.ndarray,
    input_times: Sequence[int],
    lead_time: int,
    batch_size: int,
    channels: Sequence[str] | None = None,
    workers: int = 2,
    pin_memory: bool = False,
    seen: Sequence[str] | None = None,
    scored: Sequence[str] | None = None,
    successive: int = 1,
) -> Iterator[Batch]:
    """All `inits` [init] in order at one lead time in hours, as validation needs them; the last batch may be short.

    `seen`, `scored` and `successive` as of `read_batch`.
    """
    buffers = Buffers(pin_memory)

    def read(start: int) -> Batch:
        part = np.asarray(inits[start : start + batch_size])
        leads = np.full(len(part), lead_time, np.int64)
        return read_batch(store, part, input_times, leads, channels, buffers, successive, seen, scored)

    return read_ahead_of(read, range(0, len(inits), batch_size), workers)


def read_batch(
    store: Store,
    inits: np.ndarray,
    input_times: Sequence[int],
    leads: np.ndarray,
    channels: Sequence[str] | None = None,
    buffers: Buffers | None = None,
    successive: int = 1,
    seen: Sequence[str] | None = None,
    scored: Sequence[str] | None = None,
) -> Batch:
    """Read samples given by init time [B] and lead time [B] in hours, into memory of `buffers` where given.

    Each has so many `successive` targets (0: none), each a lead time after the one before. Of `channels` those that are
    `seen` are read at the input times, and those that are `scored` at the targets' (all without it); the others are
    zero.

    Raises:
        InputError: a time that the store does not hold, or an unknown channel.
    """
    inits = inits.astype("datetime64[s]")
    offsets = np.asarray(input_times, np.int64).astype("timedelta64[h]")
    history_times = inits[:, None] + offsets  # [B, T]
    target_times = inits + np.arange(1, successive + 1)[:, None] * leads.astype("timedelta64[h]")  # [S, B]
    indices = store.index_of(np.concatenate([history_times.ravel(), target_times.ravel()]))
    names = tuple(store.channels if channels is None else channels)
    fields = (buffers or Buffers()).take((len(indices), len(names), *store.grid.shape))  # [B * (T + S), C, H, W]
    n_history = history_times.size
    if seen is None and scored is None and names:
        store.read(indices, names, fields.numpy())
    else:
        _read_some(store, indices[:n_history], names, seen, fields.numpy()[:n_history])
        _read_some(store, indices[n_history:], names, scored, fields.numpy()[n_history:])
    history = fields[:n_history].unflatten(0, history_times.shape)  # [B, T, C, H, W]
    targets = fields[n_history:].unflatten(0, target_times.shape)  # [S, B, C, H, W]
    further = targets[1:] if successive > 1 else None
    target = targets[0] if successive else fields[:0]
    return Batch(history, target, inits, torch.as_tensor(leads, dtype=torch.int64), further)


def _read_some(
    store: Store, indices: np.ndarray, names: Sequence[str], wanted: Sequence[str] | None, out: np.ndarray
) -> None:
    """Into `out` [n, channel, lat, lon] of `names`: the fields of those `wanted`, or of all; zero for the others."""
    wanted = names if wanted is None else wanted
    if wanted and len(wanted) == len(names):
        store.read(indices, names, out)
        return
    out[...] = 0
    if wanted:  # a rank may have none of the channels of one store among several
        out[:, [names.index(name) for name in wanted]] = store.read(indices, wanted)


def read_ahead_of(read: Callable[[int], Batch], keys: Iterable[int], workers: int) -> Iterator[Batch]:
    """`read` of each key in order; `workers` threads keep one batch each, and one more, ready."""
    if workers == 0:
        yield from map(read, keys)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="loader")
    ahead: deque[Future[Batch]] = deque()
    try:
        for key in keys:
            ahead.append(pool.submit(read, key))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
