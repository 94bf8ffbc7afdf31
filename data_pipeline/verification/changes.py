"""Does every field follow from the one before it? Repeats, jumps, and fields that are turned or in other units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from weatherfm.data_pipeline.fields.plausible import MAY_BE_UNIFORM
from weatherfm.data_pipeline.fields.time_axis import hour_of_day
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.data_pipeline.verification.channel_scan import ChannelScan
from weatherfm.data_pipeline.verification.report import VerifyReport, name_stretches, stretches
from weatherfm.data_pipeline.verification.turned_fields import Turn, name_turns, read_turns
from weatherfm.earth.variables import parse_channel

_FEWEST = 12
"""Steps that tell what is usual."""
_CANDIDATE = (2.0, 4.0)
"""A step is looked at that is so many times the usual, and so many robust standard deviations (of its logarithm)."""
_CERTAIN = (3.0, 5.0)
"""A step that nothing explains is told when it is beyond these, and..."""
_APART = 1.7
"""...beyond so many times all other steps but the largest half per cent: heavy tails are weather."""
_MOST_CANDIDATES = 64
_SLOW = {"sst": 48, "siconc": 48}
"""Hours over which a channel may repeat itself: ERA5 takes sea surface and ice from daily analyses."""


@dataclass(frozen=True, eq=False)
class Usual:
    """The change from field to field that a channel has, by hour of day."""

    change: np.ndarray
    """[time] the usual area RMS change of that step, canonical units."""
    ratio: np.ndarray
    """[time] change / usual; NaN where there is none."""
    score: np.ndarray
    """[time] robust standard deviations above the median of the logarithm."""


def check_changes(store: Store, report: VerifyReport, channel: int, scan: ChannelScan) -> dict[str, Any]:
    """Findings about repeats and jumps; returns the channel's entries for the report's table."""
    _check_repeats(store, report, channel, scan)
    usual = usual_change(scan.change, store.times, store.step_hours)
    if usual is None:
        return {}
    largest = int(np.nanargmax(usual.ratio))
    row = {
        "usual_change": float(np.nanmedian(usual.change)),
        "largest_jump": float(usual.ratio[largest]),
        "largest_jump_at": str(store.times[largest].astype("datetime64[h]")),
    }
    candidates = np.flatnonzero((usual.ratio > _CANDIDATE[0]) & (usual.score > _CANDIDATE[1]))
    candidates = np.sort(candidates[np.argsort(-usual.ratio[candidates])][:_MOST_CANDIDATES])
    if len(candidates) == 0:
        return row
    turns = read_turns(store, channel, candidates, usual.change[candidates])
    for kind, message, times in name_turns(store, channel, turns):
        name = store.channels[channel]
        report.error("changes", message, kind=kind, remedy="source", channel=name, times=times)
    _report_jumps(store, report, channel, scan, usual, candidates, turns)
    return row


def usual_change(change: np.ndarray, times: np.ndarray, step_hours: int) -> Usual | None:
    """What is usual for each step.

    Args:
        change: [time] area RMS of a field less the one before it; NaN where unknown.
        times: [time] datetime64.
        step_hours: of the store; over k steps (gaps, repeats) the change is taken to be sqrt(k) times that of one.

    Returns:
        None where there are too few steps to tell.
    """
    known = np.flatnonzero(np.isfinite(change) & (change > 0))
    if len(known) < _FEWEST:
        return None
    lag = np.ones(len(times))
    fresh = np.maximum.accumulate(np.where(change == 0, 0, np.arange(len(times))))  # whose field this one repeats
    lag[1:] = np.maximum((times[1:] - times[fresh[:-1]]) / np.timedelta64(step_hours, "h"), 1)
    logs = np.log(change[known]) - 0.5 * np.log(lag[known])
    hours = hour_of_day(times)
    groups = [hours[known] == hour for hour in np.unique(hours[known])]
    if min(group.sum() for group in groups) < _FEWEST:
        groups = [np.ones(len(known), bool)]
    usual, ratio, score = (np.full(len(times), np.nan) for _ in range(3))
    for group in groups:
        at, values = known[group], logs[group]
        middle = np.median(values)
        spread = max(1.4826 * float(np.median(np.abs(values - middle))), 0.05)  # 5 %: no channel is steadier
        usual[at] = np.exp(middle + 0.5 * np.log(lag[at]))
        ratio[at] = np.exp(values - middle)
        score[at] = (values - middle) / spread
    return Usual(usual, ratio, score)


def _check_repeats(store: Store, report: VerifyReport, channel: int, scan: ChannelScan) -> None:
    parsed = parse_channel(store.channels[channel])
    same = scan.change == 0
    if parsed.variable.short in MAY_BE_UNIFORM:  # no rain follows no rain
        same &= scan.low != scan.high
    found = stretches(store.times[same], store.step_hours)
    slow = _SLOW.get(parsed.variable.short, 0)
    found = tuple(run for run in found if run.count * store.step_hours > slow)
    if found:
        count = sum(run.count for run in found)
        ending = "s repeat" if count > 1 else " repeats"
        message = f"{parsed.name} is stuck: {count} field{ending} the one before, at {name_stretches(found)}"
        report.error("changes", message, kind="stuck", remedy="source", channel=parsed.name, times=found, value=count)


def _report_jumps(
    store: Store,
    report: VerifyReport,
    channel: int,
    scan: ChannelScan,
    usual: Usual,
    candidates: np.ndarray,
    turns: list[Turn],
) -> None:
    """Warnings of steps that nothing explains; a field unlike both its neighbours is told once."""
    explained = {turn.position for turn in turns}
    certain = [p for p in candidates if p not in explained and _is_certain(usual, p)]
    singles = [p for p in certain if p - 1 not in certain]
    name, units = store.channels[channel], parse_channel(store.channels[channel]).units
    for p in singles:
        when = store.times[p].astype("datetime64[h]")
        back = "; the next field jumps back: this one is unlike both" if p + 1 in certain else ""
        message = (
            f"{name} jumps at {when}: {usual.ratio[p]:.3g} times the usual change ({scan.change[p]:.3g} against "
            f"{usual.change[p]:.3g} {units}), area mean {scan.mean[p - 1]:.6g} to {scan.mean[p]:.6g}{back}"
        )
        report.warning(
            "changes", message, kind="jump", remedy="look", channel=name,
            times=stretches(store.times[p : p + 1], store.step_hours), value=float(usual.ratio[p]),
        )  # fmt: skip


def _is_certain(usual: Usual, position: int) -> bool:
    ratios = np.sort(usual.ratio[np.isfinite(usual.ratio)])
    apart = _APART * ratios[-1 - max(3, len(ratios) // 200)]
    return bool(usual.ratio[position] > max(_CERTAIN[0], apart) and usual.score[position] > _CERTAIN[1])
