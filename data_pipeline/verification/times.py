"""Is the time axis whole: in order, on its step, without unknown gaps, leap days and all?"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from weatherfm.data_pipeline.fields.time_axis import name_times, skipped_leap_days
from weatherfm.data_pipeline.fields.time_ranges import from_ranges
from weatherfm.data_pipeline.formats.time_values import WITHOUT_LEAP_DAYS
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.data_pipeline.verification.metadata import shortened
from weatherfm.data_pipeline.verification.report import VerifyReport, name_stretches, stretches


def check_times(store: Store, report: VerifyReport) -> None:
    """Order, duplicates, step, gaps and leap days of the time axis, and what the manifest says of it."""
    times, step = store.times, store.step_hours
    steps = np.diff(times)
    zero = np.timedelta64(0, "s")
    for wrong, kind, text in ((steps == zero, "duplicate", "duplicate times"), (steps < zero, "order", "out of order")):
        if wrong.any():
            found = np.unique(times[1:][wrong])
            message = f"{text} {name_times(found)}" if kind == "duplicate" else f"times {text}: {name_times(found)}"
            report.error("times", message, kind=kind, times=stretches(found, step), value=int(wrong.sum()))
    if (steps < zero).any():
        return
    absent = _check_gaps(store, report)
    _check_leap_days(store, report)
    preliminary = _check_preliminary(store, report)
    report.coverage = {
        "start": str(times[0]),
        "end": str(times[-1]),
        "step_hours": step,
        "count": len(times),
        "missing": [asdict(run) for run in stretches(absent, step)],
        "preliminary": [asdict(run) for run in stretches(preliminary, step)],
        "periods": {
            name: ", ".join(map(str, period.pieces)) for name, period in store.periods.items() if period is not None
        },
    }
    report.facts.append(f"{len(times)} times every {step}h from {times[0]} to {times[-1]}")


def _check_gaps(store: Store, report: VerifyReport) -> np.ndarray:
    """[gap] datetime64 steps that the axis lacks."""
    times, step, stated = store.times, np.timedelta64(store.step_hours, "h"), store.manifest["times"]
    uneven = times[(times - times[0]) % step != np.timedelta64(0, "s")]
    if len(uneven):
        message = f"{len(uneven)} times are not on steps of {store.step_hours}h from {times[0]}: {name_times(uneven)}"
        report.error("times", message, kind="uneven", times=stretches(uneven, store.step_hours), value=len(uneven))
    absent = np.setdiff1d(np.arange(times[0], times[-1] + step, step), times)
    listed = from_ranges(stated["missing"], stated)
    if len(absent):
        found = stretches(absent, store.step_hours)
        message = f"{len(absent)} steps of {store.step_hours}h are missing: {name_stretches(found)}"
        report.warning("times", message, kind="gap", remedy="gap", times=found, value=len(absent))
    if not np.array_equal(absent, listed):
        message = f"the manifest lists {len(listed)} missing steps, the time axis lacks {len(absent)}"
        report.error("times", message, kind="manifest")
    if (str(times[0]), str(times[-1]), len(times)) != (stated["start"], stated["end"], stated["count"]):
        message = f"{len(times)} times {times[0]} to {times[-1]}, the manifest says {shortened(stated)}"
        report.error("times", message, kind="manifest")
    return absent


def _check_leap_days(store: Store, report: VerifyReport) -> None:
    """29 February is there wherever its neighbours are, unless the source says that its calendar has none."""
    absent = skipped_leap_days(store.times)
    if not len(absent):
        return
    names = ", ".join(map(str, absent))
    said = store.manifest["source"].get("attributes", {}).get("attributes", {}).get("calendar")
    if said in WITHOUT_LEAP_DAYS:
        report.facts.append(f"years of 365 days, as the source's calendar ({said}): no {names}")
        return
    message = f"leap day missing: {names}; its neighbours are there: a source with a no-leap calendar?"
    found = stretches(absent.astype("datetime64[s]"), 24)
    report.error("times", message, kind="leap day", remedy="source", times=found, value=len(absent))


def _check_preliminary(store: Store, report: VerifyReport) -> np.ndarray:
    """[time] datetime64 of fields that their source will replace (ERA5T)."""
    preliminary = from_ranges(store.manifest["times"]["preliminary"], store.manifest["times"])
    if len(preliminary):
        found = stretches(preliminary, store.step_hours)
        message = f"{len(preliminary)} times are preliminary (ERA5T): {name_stretches(found)}"
        report.warning("times", message, kind="preliminary", remedy="append", times=found, value=len(preliminary))
    return preliminary
