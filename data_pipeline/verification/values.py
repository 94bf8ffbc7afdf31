"""Are the values there, finite, possible, and those that statistics and climatology were made from?"""

from __future__ import annotations

from typing import Any

import numpy as np

from weatherfm.data_pipeline.fields.plausible import MAY_BE_UNIFORM, plausible_bounds, suspect_units
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.data_pipeline.verification.changes import check_changes
from weatherfm.data_pipeline.verification.channel_scan import ChannelScan
from weatherfm.data_pipeline.verification.field_stream import scan_store
from weatherfm.data_pipeline.verification.fractions_and_sums import check_meaning
from weatherfm.data_pipeline.verification.known_climatology import compare_climatology
from weatherfm.data_pipeline.verification.report import VerifyReport, name_stretches, stretches
from weatherfm.data_pipeline.verification.season import check_season
from weatherfm.data_pipeline.verification.shard_notes import ShardNotes
from weatherfm.data_pipeline.verification.stored_statistics import compare_extremes, compare_statistics
from weatherfm.earth.variables import parse_channel


def check_values(store: Store, report: VerifyReport, sample: int | None) -> None:
    """Everything that needs the fields, in one pass; `sample` reads that many times instead of all."""
    times = store.times
    chosen = np.arange(len(times))
    if sample is not None and sample < len(times):
        chosen = np.unique(np.linspace(0, len(times) - 1, sample).astype(np.int64))
    whole = len(chosen) == len(times)
    notes = ShardNotes(store, report) if whole else None
    n_bad = 0

    def take(channel: int, scan: ChannelScan) -> None:
        nonlocal n_bad
        n_bad += int(scan.n_bad.sum())
        _check_finite(store, report, channel, scan)
        _check_mask(store, report, channel, scan)
        _check_range(store, report, channel, scan)
        _check_uniform(store, report, channel, scan)
        check_meaning(store, report, channel, scan)
        check_season(store, report, channel, scan)
        row = _summary(store, channel, scan)
        if not whole:
            compare_extremes(store, report, channel, scan)
        else:
            row |= {} if store.grid.plane else check_changes(store, report, channel, scan)
        if notes is not None and scan.whole:
            compare_statistics(store, report, channel, scan)
            notes.compare(report, channel, scan)
            if scan.sums is not None and scan.frame.climatology is not None:
                compare_climatology(store, report, channel, scan.frame.climatology, scan.sums)
        report.channels.append(row)

    scan_store(store, chosen, take)
    report.facts.append(f"{len(chosen)} of {len(times)} times read, {n_bad} values not finite")
    if whole:
        report.facts.append("mean, std, minimum, maximum and tendency_std computed again")
        report.facts.append("climatology of two days computed again, at up to four hours")
        if not store.grid.plane:  # pictures do not follow one another
            report.facts.append("every field compared with the one before it")
    else:
        report.facts.append("a sample: statistics, climatology and changes were not computed again")


def _check_finite(store: Store, report: VerifyReport, channel: int, scan: ChannelScan) -> None:
    if scan.whole:
        return
    name, count = store.channels[channel], int(scan.n_bad.sum())
    share = count / (scan.seen.sum() * np.prod(scan.shape))
    when = store.times[scan.n_bad > 0]
    rows = store.grid.latitude[scan.rows[scan.bad_rows]]
    where = f"at {rows[0]:g} N" if len(rows) == 1 else f"from {rows[-1]:g} to {rows[0]:g} N"
    found = stretches(when, store.step_hours)
    empty = int((scan.n_bad == np.prod(scan.shape)).sum())
    whole = f"; {empty} fields have no value at all" if empty else ""
    message = f"{name} has {count} values that are not finite ({share:.2%}), {where}, at {name_stretches(found)}{whole}"
    report.error("values", message, kind="nan", remedy="source", channel=name, times=found, value=float(share))


def _check_mask(store: Store, report: VerifyReport, channel: int, scan: ChannelScan) -> None:
    if not (inside := scan.n_inside > 0).any():
        return
    name, count = store.channels[channel], int(scan.n_inside.sum())
    found = stretches(store.times[inside], store.step_hours)
    message = f"{name} has {count} values inside its mask, where it should have none, at {name_stretches(found)}"
    report.error("values", message, kind="mask", remedy="source", channel=name, times=found, value=count)


def _check_range(store: Store, report: VerifyReport, channel: int, scan: ChannelScan) -> None:
    parsed = parse_channel(store.channels[channel])
    hours = store.manifest["channels"][channel].get("accumulation_hours")
    low, high = plausible_bounds(parsed, hours)
    wrong = (scan.low < low) | (scan.high > high)  # [time]; NaN compares as false
    if not wrong.any():
        return
    least, most = float(scan.low[wrong].min()), float(scan.high[wrong].max())
    found = stretches(store.times[wrong], store.step_hours)
    units = suspect_units(parsed, least, most)
    other = "wrong units or damaged" if hours is None else f"wrong units, damaged, or no sums over {hours:g}h"
    guess = f"looks like {units}" if units else other
    message = (
        f"{parsed.name} reaches from {least:.6g} to {most:.6g} {parsed.units}, possible on Earth is {low:g} to "
        f"{high:g}: {guess}; at {name_stretches(found)}"
    )
    say = report.warning if store.simulated else report.error  # another planet may be another world
    far = most if most > high else least
    kind = "units" if units else "range"
    say("range", message, kind=kind, remedy="source", channel=parsed.name, times=found, value=far)


def _check_uniform(store: Store, report: VerifyReport, channel: int, scan: ChannelScan) -> None:
    parsed = parse_channel(store.channels[channel])
    uniform = scan.low == scan.high
    if store.grid.plane:
        uniform &= scan.low != 0  # background alone
    if parsed.variable.short in MAY_BE_UNIFORM or not uniform.any():
        return
    found = stretches(store.times[uniform], store.step_hours)
    message = (
        f"{parsed.name} is the same everywhere ({scan.low[uniform][0]:.6g} {parsed.units}) at {name_stretches(found)}"
    )
    count = int(uniform.sum())
    report.error("values", message, kind="uniform", remedy="source", channel=parsed.name, times=found, value=count)


def _summary(store: Store, channel: int, scan: ChannelScan) -> dict[str, Any]:
    """The channel's row of the report: finite values only, None where there are none."""
    everything = scan.all_days
    counted = bool(everything.count[0])
    return {
        "name": store.channels[channel],
        "units": parse_channel(store.channels[channel]).units,
        "times_read": int(scan.seen.sum()),
        "minimum": float(np.nanmin(scan.low)) if np.isfinite(scan.low).any() else None,
        "mean": float(everything.mean[0]) if counted else None,
        "maximum": float(np.nanmax(scan.high)) if np.isfinite(scan.high).any() else None,
        "std": float(everything.std[0]) if counted else None,
        "missing": float(scan.n_bad.sum() / (scan.seen.sum() * np.prod(scan.shape))),
        "usual_change": None,
        "largest_jump": None,
        "largest_jump_at": None,
    }
