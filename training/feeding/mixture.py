"""Batches of several stores: which store each is of, and which of that store's batches.

The store of a batch is drawn by weight; the batches of a store are those that it would have alone, one after the other.
Both follow from the seed and the number of the batch alone, and a longer run begins like a shorter one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from weatherfm.data_pipeline.loader import Batch, SampleLoader, read_ahead_of

_STORE = 4
"""A stream of its own beside those of `weatherfm.data_pipeline.loader` and `channel_sampling`."""


def draw_stores(weights: Sequence[float], seed: int, count: int) -> np.ndarray:
    """[count] int64: the store that each of the first batches is of."""
    ends = np.cumsum(weights) / np.sum(weights)
    drawn = np.random.default_rng([_STORE, seed]).random(count)
    return np.minimum(np.searchsorted(ends, drawn, side="right"), len(weights) - 1)


class Mixture:
    """Batches by number, of one store or several.

    Args:
        loaders: of each store, for this rank.
        weights: of the stores.
        seed: of the run.
        count: batches of the whole run.
    """

    def __init__(self, loaders: Sequence[SampleLoader], weights: Sequence[float], seed: int, count: int) -> None:
        self.loaders = loaders
        self.stores = draw_stores(weights, seed, count) if len(loaders) > 1 else np.zeros(count, np.int64)
        self._numbers = np.empty(count, np.int64)  # among those of its store
        for store in range(len(loaders)):
            own = self.stores == store
            self._numbers[own] = np.arange(own.sum())

    def batch(self, number: int) -> Batch:
        """A batch of the run, from 0."""
        store = int(self.stores[number])
        loader = self.loaders[store]
        return replace(loader.batch(int(self._numbers[number]), loader.successive(number)), store=store)

    def iterate(self, start: int, stop: int) -> Iterator[Batch]:
        """Batches `start` .. `stop` - 1 in order, read ahead by threads."""
        return read_ahead_of(self.batch, range(start, stop), self.loaders[0].workers)
