"""One pass over all fields: channel groups one after the other, times in order, the next piece read ahead.

At most about 256 MiB of fields are held at once, whatever the length of the store; only where the fields of one
tendency lead take more (long leads at short steps on fine grids) it is those. Every time adds 37 bytes for each channel
of the group.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from weatherfm.data_pipeline.store.measures import Measure, measures_of
from weatherfm.data_pipeline.store.statistics import pairs
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.data_pipeline.verification.channel_scan import SEASON_LATITUDE, ChannelScan, Frame, Part
from weatherfm.data_pipeline.verification.known_climatology import ClimatologySample

MEMORY = 256 * 2**20
"""Bytes of fields to hold at most."""


def scan_store(store: Store, chosen: np.ndarray, take: Callable[[int, ChannelScan], None]) -> None:
    """Stream the fields at positions `chosen` [n] (ascending) and hand each channel's scan to `take(channel, scan)`.

    Times that are not neighbours (a sample) are not compared with each other.

    Raises:
        InputError: a shard that cannot be read.
    """
    whole = len(chosen) == len(store.times)
    frame, measures = _frame(store, whole), _measures(store)
    workers = min(os.cpu_count() or 1, 8)
    positions = np.arange(len(store.times))
    behind = [(positions - partner)[partner >= 0].max(initial=1) for partner in frame.partners.values()]
    before = int(max(behind)) if whole else 0
    n_bytes = 4 * len(chosen) * len(store.channels) * math.prod(store.grid.shape)
    with (
        ThreadPoolExecutor(workers) as pool,
        ThreadPoolExecutor(1) as reader,
        tqdm(total=n_bytes, desc="values", unit="B", unit_scale=True, unit_divisor=1024, disable=None) as bar,
    ):
        for group in _groups(len(store.channels), store.chunk_channels, workers):
            scans = [ChannelScan(frame, store.grid.shape, measures[channel]) for channel in group]
            for window, positions in _windows(store, chosen, group, before, reader):
                parts = (Part(positions, window[:, c], whole) for c in range(len(group)))
                list(pool.map(lambda scan, part: scan.add(part), scans, parts))
                bar.update(4 * len(positions) * math.prod(window.shape[1:]))
            for channel, scan in zip(group, scans, strict=True):
                take(channel, scan)


def _measures(store: Store) -> tuple[Measure, ...]:
    """[channel]: how prepare counted each."""
    by_area = store.manifest["statistics"]["weights"].startswith("area")
    return measures_of(store.channels, store.masks, store.log_scales, store.grid, by_area)


def _windows(
    store: Store, chosen: np.ndarray, group: range, before: int, reader: ThreadPoolExecutor
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(fields [m + n, channel, lat, lon] with the m <= `before` times that precede, positions [n])."""
    names = store.channels[group.start : group.stop]
    field_bytes = 4 * math.prod(store.grid.shape)
    free = MEMORY - before * len(group) * field_bytes
    size = max(1, free // (4 * len(group) * field_bytes))  # the window, the one before it, what is read ahead
    pieces = [chosen[start : start + size] for start in range(0, len(chosen), size)]
    window = np.empty((0, len(group), *store.grid.shape), np.float32)
    ahead = reader.submit(store.read, pieces[0], names)
    for i, positions in enumerate(pieces):
        fields = ahead.result()
        if i + 1 < len(pieces):
            ahead = reader.submit(store.read, pieces[i + 1], names)
        window = np.concatenate([window[len(window) - min(before, len(window)) :], fields])
        yield window, positions


def _groups(n_channels: int, block: int, workers: int) -> Iterator[range]:
    """Ranges of channels that are read together: whole chunks, and a channel for each worker."""
    width = block * -(-workers // block)
    for start in range(0, n_channels, width):
        yield range(start, min(start + width, n_channels))


def _frame(store: Store, whole: bool) -> Frame:
    times, train = store.times, store.periods["train"]
    assert train is not None  # prepare always states it
    training = train.contains(times)
    weights = store.grid.area_weights.ravel()
    told = store.manifest["tendency"]
    leads = [told["lead_hours"], *told.get("more_lead_hours", [])]
    partners = {lead: np.full(len(times), -1, np.int64) for lead in leads}
    for lead, partner in partners.items() if whole else ():
        earlier, later = pairs(times, training, lead)
        partner[later] = earlier
    shard_times, shard_channels = store.shard_shape
    return Frame(
        n_times=len(times),
        training=training,
        shard_times=shard_times,
        shard_channels=shard_channels,
        weights=weights / weights.sum(),
        contrast=_contrast(store),
        partners=partners,
        climatology=ClimatologySample.of(store) if whole else None,
    )


def _contrast(store: Store) -> np.ndarray:
    """[lat * lon]: weights of the area mean north of 20 N, minus those south of 20 S."""
    latitude = np.repeat(store.grid.latitude[:, None], store.grid.shape[1], axis=1)
    result = np.zeros(store.grid.shape)
    for sign in (1, -1):
        part = np.where(sign * latitude > SEASON_LATITUDE, store.grid.area_weights, 0)
        if part.any():
            result += sign * part / part.sum()
    return result.ravel()
