"""Which days training may use, and its samples."""

from __future__ import annotations

from collections.abc import Sequence

from weatherfm.data_pipeline.config import Period
from weatherfm.data_pipeline.loader import SampleLoader
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.training.config import RunConfig


def training_period(config: RunConfig, store: Store) -> Period | None:
    """The config's training days, or those the store was prepared with."""
    return config.data.train or store.periods["train"]


def training_samples(
    config: RunConfig,
    store: Store,
    pin_memory: bool = False,
    channels: Sequence[str] | None = None,
    part: tuple[int, int] = (0, 1),
) -> SampleLoader:
    """The training samples of a run; nothing is read yet.

    Args:
        config: the run.
        store: its store.
        pin_memory: hand out page-locked memory (for a GPU).
        channels: those to read; without it, all of the run.
        part: (index, count) of the part of every batch to read.

    Raises:
        InputError: too few for one batch.
    """
    settings = config.training
    return SampleLoader(
        store,
        training_period(config, store),
        config.model.input_times,
        settings.lead_times,
        settings.batch_size,
        settings.seed,
        settings.workers,
        channels or config.data.channels,
        pin_memory,
        part,
    )
