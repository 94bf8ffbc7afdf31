"""Which days training may use: its samples, and the initial times that validation scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weatherfm.data_pipeline.loader import SampleLoader, eligible_init_times
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.data_pipeline.store_config import Period
from weatherfm.model.share import ChannelShare, whole
from weatherfm.training.run_config import RunConfig


def training_period(config: RunConfig, store: Store) -> Period | None:
    """The config's training days, or those the store was prepared with."""
    return config.data.train or store.periods["train"]


def training_samples(
    config: RunConfig,
    store: Store,
    pin_memory: bool = False,
    share: ChannelShare | None = None,
    part: tuple[int, int] = (0, 1),
) -> SampleLoader:
    """The training samples of a run; nothing is read yet.

    Args:
        config: the run.
        store: its store.
        pin_memory: hand out page-locked memory (for a GPU).
        share: channels to read; without it, all of the run.
        part: (index, count) of the part of every batch to read.

    Raises:
        InputError: too few for one batch.
    """
    settings, alone = config.training, config.model.reconstruction is not None
    share = share or whole(config.model, store.domain(config.data.channels))
    seen, scored = (None, None) if alone else channels_read(share, reads_inputs(config))
    return SampleLoader(
        store,
        training_period(config, store),
        config.model.input_times,
        settings.lead_times,
        settings.batch_size,
        settings.seed,
        settings.workers,
        share.channels,
        pin_memory,
        part,
        {0: 0} if alone else {step * settings.accumulate: count for step, count in settings.model_steps.items()},
        seen,
        scored,
    )


def channels_read(share: ChannelShare, ahead: bool = False) -> tuple[Sequence[str] | None, Sequence[str] | None]:
    """Channels of a share whose input states, and whose targets, are read; None: all.

    `ahead`: at the times of the targets those that are inputs alone are read as well.
    """
    if share.inputs == share.outputs:
        return None, None
    return share.inputs, None if ahead else share.outputs


def reads_inputs(config: RunConfig) -> bool:
    """Whether later steps of a rollout take channels that are inputs alone from the store."""
    rollout = config.training.rollout
    return rollout is not None and rollout.most > 1 and rollout.inputs == "read"


def validation_inits(config: RunConfig, store: Store) -> np.ndarray:
    """[n] initial times that validation scores, each at every lead time."""
    inputs, leads = config.model.input_times, config.training.lead_times
    inits = eligible_init_times(store, config.data.validation, inputs, leads)
    return spread_evenly(inits, config.training.validation_samples)


def spread_evenly(times: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the times [n], ascending, first and last among them where count > 1."""
    if len(times) <= count:
        return times
    return times[np.linspace(0, len(times) - 1, count).round().astype(np.int64)]
