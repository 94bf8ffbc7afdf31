"""Are values those of the channel, where bounds alone do not tell: fractions, and sums over longer spans?"""

from __future__ import annotations

import numpy as np

from weatherfm.data_pipeline.fields.plausible import (
    DRIEST_GLOBE,
    HUMIDITY,
    REACHED,
    bounds_of_sums,
    is_fraction,
    is_global,
    with_units,
)
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.data_pipeline.verification.channel_scan import ChannelScan
from weatherfm.data_pipeline.verification.report import VerifyReport, name_stretches, stretches
from weatherfm.earth.variables import Channel, parse_channel

_MONTH = 120
"""Times at which a limited area is never so dry throughout."""


def check_meaning(store: Store, report: VerifyReport, channel: int, scan: ChannelScan) -> None:
    """Findings about fractions that were called %, and sums of radiation beyond what the sun gives."""
    parsed = parse_channel(store.channels[channel])
    if parsed.variable.short in REACHED:
        _check_fraction(store, report, parsed, scan)
    hours = store.manifest["channels"][channel].get("accumulation_hours")
    most = bounds_of_sums(parsed, hours)
    if most is not None:
        _check_sums(store, report, parsed, scan, most, hours)


def _check_fraction(store: Store, report: VerifyReport, channel: Channel, scan: ChannelScan) -> None:
    known = np.isfinite(scan.high)
    wrong = known & np.array([is_fraction(channel, float(high), store.grid) for high in scan.high])
    dry = channel.variable.short in HUMIDITY and bool(known.sum() >= _MONTH and (scan.high[known] < DRIEST_GLOBE).all())
    if not is_global(store.grid) and dry and (channel.level or 1000) >= 300:
        wrong = known
    if not wrong.any():
        return
    found, most = stretches(store.times[wrong], store.step_hours), float(scan.high[wrong].max())
    message = (
        f"{channel.name} is at most {with_units(most, channel)} everywhere: a fraction of one, 100 times too small; "
        f"at {name_stretches(found)}"
    )
    report.error("range", message, kind="units", remedy="source", channel=channel.name, times=found, value=most)


def _check_sums(
    store: Store, report: VerifyReport, channel: Channel, scan: ChannelScan, most: float, hours: float
) -> None:
    largest = np.fmax(np.abs(scan.low), np.abs(scan.high))
    wrong = largest > most  # NaN compares as false
    if not wrong.any():
        return
    found, far = stretches(store.times[wrong], store.step_hours), float(largest[wrong].max())
    message = (
        f"{channel.name} reaches {far:.4g} {channel.units} as a sum over {hours:g}h, {far / 3600 / hours:.5g} W m-2, "
        f"more than the sun gives: it is a sum over a longer span; at {name_stretches(found)}"
    )
    report.error("range", message, kind="sum", remedy="source", channel=channel.name, times=found, value=far)
