"""Statistics of the store against those computed again."""

from __future__ import annotations

import numpy as np

from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.data_pipeline.verification.channel_scan import ChannelScan
from weatherfm.data_pipeline.verification.report import VerifyReport

RELATIVE = 1e-9
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
    held = {statistic: getattr(store, statistic)[channel] for statistic in computed}
    for lead, spread in store.tendency_std_by_lead.items():
        held[f"tendency_std over {lead}h"] = spread[channel]
        computed[f"tendency_std over {lead}h"] = scan.tendencies[lead].std
    for statistic, (value,) in computed.items():
        if _differ(held[statistic], value, scale):
            name = store.channels[channel]
            message = f"{statistic} of {name} is {held[statistic]:.9g}, the data give {value:.9g}"
            kind = statistic.split()[0]
            report.error("statistics", message, kind=kind, channel=name, value=float(held[statistic]))


def compare_extremes(store: Store, report: VerifyReport, channel: int, scan: ChannelScan) -> None:
    """Of a sample: no training value lies outside the stored minimum and maximum."""
    found, name = scan.training, store.channels[channel]
    if found.count[0] and (found.minimum[0] < store.minimum[channel] or found.maximum[0] > store.maximum[channel]):
        message = f"{name} has training values outside the stored minimum and maximum"
        report.error("statistics", message, kind="extremes", channel=name)


def _differ(held: float, value: float, scale: float) -> bool:
    return bool(np.isnan(held) != np.isnan(value) or abs(held - value) > RELATIVE * scale)
