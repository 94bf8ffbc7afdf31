"""Statistics of the store and of each of its shards against those computed again."""

from __future__ import annotations

from typing import Any

import numpy as np

from weatherfm.data_pipeline.manifest import SHARDS
from weatherfm.data_pipeline.statistics import ChannelStatistics
from weatherfm.data_pipeline.store import Store
from weatherfm.data_pipeline.store_files import read_shards
from weatherfm.data_pipeline.verification.report import VerifyReport
from weatherfm.data_pipeline.verification.scan import ChannelScan

_RELATIVE = 1e-9
"""Float64 sums in another order; 1e10 values lose some 1e-11."""


def compare_statistics(store: Store, report: VerifyReport, channel: int, scan: ChannelScan) -> None:
    """One channel of mean, std, minimum, maximum and tendency_std."""
    found = scan.training
    scale = max(abs(found.mean[0]), found.std[0])
    computed = {
        "mean": found.mean,
        "std": found.std,
        "minimum": found.minimum,
        "maximum": found.maximum,
        "tendency_std": scan.tendency.std,
    }
    for statistic, (value,) in computed.items():
        held = getattr(store, statistic)[channel]
        if _differ(held, value, scale):
            name = store.channels[channel]
            message = f"{statistic} of {name} is {held:.9g}, the data give {value:.9g}"
            report.error("statistics", message, kind=statistic, channel=name, value=float(held))


def compare_extremes(store: Store, report: VerifyReport, channel: int, scan: ChannelScan) -> None:
    """Of a sample: no training value lies outside the stored minimum and maximum."""
    found, name = scan.training, store.channels[channel]
    if found.count[0] and (found.minimum[0] < store.minimum[channel] or found.maximum[0] > store.maximum[channel]):
        message = f"{name} has training values outside the stored minimum and maximum"
        report.error("statistics", message, kind="extremes", channel=name)


def read_shard_records(store: Store) -> dict[str, Any]:
    """What each task noted of its shard, by the task's name."""
    return read_shards(store.path, store.manifest)


def compare_shards(
    store: Store, report: VerifyReport, records: dict[str, Any], channel: int, scan: ChannelScan
) -> None:
    """One channel of the statistics noted with each shard, from which `append` merges those of the store."""
    column, place = divmod(channel, scan.frame.shard_channels)
    for row in range(-(-len(store.times) // scan.frame.shard_times)):
        payload = records.get(f"state-{row:05d}-{column:03d}", {}).get("payload")
        if payload is None:
            continue
        noted = ChannelStatistics.from_dict(payload.get("state", payload))
        found = scan.trained.get(row, ChannelStatistics.empty(1))
        scale = max(abs(found.mean[0]), float(np.nan_to_num(found.std[0])))
        wrong = [
            name
            for name, known, value in _pairs(noted, place, found)
            if (known != value if name == "count" else _differ(known, value, scale))
        ]
        if wrong:
            name = store.channels[channel]
            message = f"{', '.join(wrong)} of {name} noted for shard {row} in {SHARDS} differ from what it holds"
            report.error("statistics", message, kind="shard statistics", channel=name, files=(SHARDS,))


def _pairs(noted: ChannelStatistics, place: int, found: ChannelStatistics) -> list[tuple[str, float, float]]:
    """(statistic, noted, found) of one channel; of no values there is only the count."""
    names = ("count", "mean", "std", "minimum", "maximum") if found.count[0] else ("count",)
    return [(name, float(getattr(noted, name)[place]), float(getattr(found, name)[0])) for name in names]


def _differ(held: float, value: float, scale: float) -> bool:
    return bool(np.isnan(held) != np.isnan(value) or abs(held - value) > _RELATIVE * scale)
