"""Look at a finished store with suspicion: files, metadata, times, values, statistics, splits."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from tqdm import tqdm

from weatherfm.data_pipeline.climatology import day_coordinate
from weatherfm.data_pipeline.manifest import NAME, PROGRESS, file_checksum, is_sealed, read_manifest
from weatherfm.data_pipeline.store import Store
from weatherfm.data_pipeline.time_axis import name_times
from weatherfm.data_pipeline.verify_report import VerifyReport
from weatherfm.data_pipeline.verify_values import check_climatology, check_values
from weatherfm.errors import InputError
from weatherfm.variables import parse_channel


def verify(path: str | Path, sample: int | None = None) -> VerifyReport:
    """Check a finished store.

    Args:
        path: its folder.
        sample: read this many times, spread evenly, instead of all; statistics are then only checked for
            contradictions, not computed again.

    Raises:
        InputError: there is no finished store to check.
    """
    path = Path(path).expanduser()
    report = VerifyReport(str(path))
    store = Store(path, read_manifest(path))
    _check_files(store, report)
    for check, label in ((_check_metadata, "metadata"), (_check_times, "times"), (_check_splits, "splits")):
        _guarded(check, label, store, report)
    if report.ok:  # values of a store with damaged files say nothing new
        _guarded(lambda s, r: check_values(s, r, sample), "values", store, report)
        _guarded(check_climatology, "climatology", store, report)
    else:
        report.warning("values", "not read, because of the errors above")
    return report


def _guarded(check: Callable[[Store, VerifyReport], None], label: str, store: Store, report: VerifyReport) -> None:
    """A check that cannot read what it needs is a finding, not the end."""
    try:
        check(store, report)
    except (InputError, OSError, KeyError, ValueError) as error:
        report.error(label, f"cannot be checked: {error}")


def _check_files(store: Store, report: VerifyReport) -> None:
    if not is_sealed(store.manifest):
        report.error("files", f"{NAME} was changed since prepare wrote it")
    files: dict[str, dict[str, Any]] = store.manifest["files"]

    def look(key: str) -> str | None:
        file, expected = store.path / key, files[key]
        if not file.is_file():
            return f"{key} is missing"
        if (size := file.stat().st_size) != expected["bytes"]:
            return f"{key} has {size} bytes instead of {expected['bytes']}"
        return None if file_checksum(file) == expected["sha256"] else f"{key} has a wrong checksum"

    with ThreadPoolExecutor() as pool:
        for found in tqdm(pool.map(look, files), total=len(files), desc="checksums", unit="file", disable=None):
            if found:
                report.error("files", found)
    present = {str(p.relative_to(store.path)) for p in store.path.rglob("*") if p.is_file()}
    for extra in sorted(present - files.keys() - {NAME}):
        if not extra.startswith(PROGRESS):
            report.warning("files", f"{extra} does not belong to the store")
    n_bytes = sum(entry["bytes"] for entry in files.values())
    report.facts.append(f"{len(files)} files, {n_bytes / 2**20:,.1f} MiB: checksums compared")


def _check_metadata(store: Store, report: VerifyReport) -> None:
    group = zarr.open_group(store.path, mode="r")
    n_channels, grid = len(store.channels), store.grid
    n_hours = len(store.manifest["climatology"]["hours"])
    n_days = len(day_coordinate(store.climatology_window))
    shapes: dict[str, tuple[int, ...]] = {
        "state": (store.manifest["times"]["count"], n_channels, *grid.shape),
        "climatology": (n_days, n_hours, n_channels, *grid.shape),
        **{name: (n_channels,) for name in ("mean", "std", "minimum", "maximum", "tendency_std", "channel", "units")},
    }
    if store.static_names:
        shapes["static_fields"] = (len(store.static_names), *grid.shape)
    for name, expected in shapes.items():
        if (found := group[name].shape) != expected:  # type: ignore[union-attr]
            report.error("metadata", f"{name} has shape {found}, the manifest says {expected}")
    stated = {
        "channel": list(store.channels),
        "units": [parse_channel(name).units for name in store.channels],
        "latitude": grid.latitude.tolist(),
        "longitude": grid.longitude.tolist(),
    }
    for name, values in stated.items():
        if (held := group[name][:].tolist()) != values:  # type: ignore[index, union-attr]
            report.error("metadata", f"{name} holds {_short(held)}, the manifest says {_short(values)}")
    report.facts.append(f"{n_channels} channels on {grid}")


def _check_times(store: Store, report: VerifyReport) -> None:
    times, stated = store.times, store.manifest["times"]
    steps = np.diff(times)
    zero, step = np.timedelta64(0, "s"), np.timedelta64(store.step_hours, "h")
    if (steps == zero).any():
        report.error("times", f"duplicate times {name_times(times[1:][steps == zero])}")
    if (steps < zero).any():
        report.error("times", f"times out of order: {name_times(times[1:][steps < zero])}")
        return
    absent = np.setdiff1d(np.arange(times[0], times[-1] + step, step), times)
    listed = np.array(stated["missing"], "datetime64[s]")
    if len(absent):
        report.warning("times", f"{len(absent)} steps of {store.step_hours}h are missing: {name_times(absent)}")
    if not np.array_equal(absent, listed):
        report.error("times", f"the manifest lists {len(listed)} missing steps, the time axis lacks {len(absent)}")
    if (str(times[0]), str(times[-1]), len(times)) != (stated["start"], stated["end"], stated["count"]):
        report.error("times", f"{len(times)} times {times[0]} to {times[-1]}, the manifest says {_short(stated)}")
    report.facts.append(f"{len(times)} times every {store.step_hours}h from {times[0]} to {times[-1]}")


def _check_splits(store: Store, report: VerifyReport) -> None:
    given = [(name, period) for name, period in store.periods.items() if period is not None]
    for i, (name, period) in enumerate(given):
        if not period.contains(store.times).any():
            report.error("splits", f"{name} ({period}) holds no time")
        for other, held in given[i + 1 :]:
            if period.overlaps(held):
                report.error("splits", f"{name} ({period}) and {other} ({held}) share days")
    train = store.periods["train"]
    for name in ("statistics", "climatology", "tendency"):
        stated = store.manifest[name]["period"]
        if stated != store.manifest["periods"]["train"]:
            report.error("splits", f"{name} are over {stated}, training days are {train}")
    report.facts.append("splits: " + ", ".join(f"{name} {period}" for name, period in given))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
