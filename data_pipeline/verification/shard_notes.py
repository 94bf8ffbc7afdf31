"""Statistics noted with each shard, from which `append` merges those of the store, against those computed again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from weatherfm.data_pipeline.store.records.manifest import SHARDS
from weatherfm.data_pipeline.store.records.store_files import read_shards
from weatherfm.data_pipeline.store.statistics import ChannelStatistics, join_channels
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.data_pipeline.verification.channel_scan import ChannelScan
from weatherfm.data_pipeline.verification.report import VerifyReport
from weatherfm.data_pipeline.verification.stored_statistics import RELATIVE

_NAMES = ("count", "mean", "std", "minimum", "maximum")
_MISCOUNT = 0.5
"""Counts of points are whole; sums of areas are rounded."""
_NOTHING = ChannelStatistics.empty(1)


class ShardNotes:
    """What is noted, read once: 40 bytes a shard and channel.

    Args:
        store: to look at.
        report: told of notes that are no statistics.

    Raises:
        InputError: the record of shards cannot be read.
    """

    def __init__(self, store: Store, report: VerifyReport) -> None:
        self._store = store
        self._times, self._channels = store.shard_shape
        rows = -(-len(store.times) // self._times)
        self._noted = np.full((len(store.channels), rows, len(_NAMES)), np.nan)  # no count: no note
        records, wrong = read_shards(store.path, store.manifest), list[str]()
        for column, start in enumerate(range(0, len(store.channels), self._channels)):
            part = self._noted[start : start + self._channels]
            for row in range(rows):
                name = f"state-{row:05d}-{column:03d}"
                if name in records and not _read_into(part[:, row], records[name]["payload"]):
                    wrong.append(name)
        self._changes = self._changes_noted(records, wrong)
        if wrong := list(dict.fromkeys(wrong)):
            message = f"{SHARDS} notes no statistics for {', '.join(wrong[:5])} ({len(wrong)} shards)"
            report.error("statistics", message, kind="shard statistics", files=(SHARDS,))

    def _changes_noted(self, records: Mapping[str, Any], wrong: list[str]) -> ChannelStatistics:
        """Statistics of the change over the tendency lead, all notes together; names that hold none go to `wrong`."""
        n_channels = len(self._store.channels)
        widths = [min(self._channels, n_channels - start) for start in range(0, n_channels, self._channels)]
        columns = [ChannelStatistics.empty(width) for width in widths]
        for name, record in sorted(records.items()):
            kind, column = name.split("-")[0], name.rpartition("-")[2]
            try:
                payload = record["payload"]["tendency"] if kind == "state" else record["payload"]
                if kind in ("state", "tendency") and payload is not None:
                    noted = ChannelStatistics.from_dict(payload)
                    if noted.count.shape != columns[int(column)].count.shape or np.isnan(noted.count).any():
                        raise ValueError("of other channels")
                    columns[int(column)] += noted
            except (LookupError, TypeError, ValueError):
                wrong.append(name)
        return join_channels(columns)

    def compare(self, report: VerifyReport, channel: int, scan: ChannelScan) -> None:
        """One channel; shards without a note are left out."""
        noted = self._noted[channel]
        found = _columns(join_channels([scan.trained.get(row, _NOTHING) for row in range(len(noted))]))
        scale = np.maximum(np.abs(found[:, 1]), np.nan_to_num(found[:, 2]))[:, None]
        with np.errstate(invalid="ignore"):  # of no values, whose smallest is infinite
            wrong = (np.isnan(noted) != np.isnan(found)) | (np.abs(noted - found) > RELATIVE * scale)
        wrong[:, 1:] &= found[:, :1] > 0  # of no values there is only the count
        wrong[:, 0] = np.abs(noted[:, 0] - found[:, 0]) > _MISCOUNT
        wrong[np.isnan(noted[:, 0])] = False
        for row in np.flatnonzero(wrong.any(1)):
            name, which = self._store.channels[channel], [_NAMES[i] for i in np.flatnonzero(wrong[row])]
            message = f"{', '.join(which)} of {name} noted for shard {row} in {SHARDS} differ from what it holds"
            report.error("statistics", message, kind="shard statistics", channel=name, files=(SHARDS,))
        self._compare_changes(report, channel, scan, float(scale.max()))

    def _compare_changes(self, report: VerifyReport, channel: int, scan: ChannelScan, scale: float) -> None:
        """All notes together: which shard a pair of times is noted with, depends on how changes were measured."""
        noted, found = _columns(self._changes)[channel], _columns(scan.tendency)[0]
        with np.errstate(invalid="ignore"):
            wrong = np.isnan(noted) != np.isnan(found)
            wrong |= np.abs(noted - found) > RELATIVE * scale
        wrong[0] = abs(noted[0] - found[0]) > _MISCOUNT
        wrong[1:] &= found[0] > 0
        if wrong.any():
            name, which = self._store.channels[channel], [_NAMES[i] for i in np.flatnonzero(wrong)]
            message = f"{', '.join(which)} of the change of {name} noted in {SHARDS} differ from what the shards hold"
            report.error("statistics", message, kind="shard statistics", channel=name, files=(SHARDS,))


def _read_into(out: np.ndarray, payload: Any) -> bool:
    """Put what is noted of a shard into `out` [channel, statistic]; False where that is none."""
    try:
        noted = ChannelStatistics.from_dict(payload["state"])
        out[:] = _columns(noted)
    except (KeyError, TypeError, ValueError):
        return False
    return not np.isnan(noted.count).any()


def _columns(found: ChannelStatistics) -> np.ndarray:
    """[channel, statistic]."""
    return np.stack([getattr(found, name) for name in _NAMES], axis=-1)
