"""Do the arrays say what the manifest says, and are the periods kept apart?"""

from __future__ import annotations

from typing import Any

import zarr

from weatherfm.data_pipeline.store.climatology import day_coordinate
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.data_pipeline.verification.report import VerifyReport
from weatherfm.earth.variables import parse_channel


def check_metadata(store: Store, report: VerifyReport) -> None:
    """Shapes, channels, units and coordinates of the arrays against the manifest."""
    group = zarr.open_group(store.path, mode="r")
    grid = store.grid
    for name, expected in _shapes(store).items():
        if (found := group[name].shape) != expected:  # type: ignore[union-attr]
            report.error("metadata", f"{name} has shape {found}, the manifest says {expected}", kind="shape")
    stated = {
        "channel": list(store.channels),
        "units": [parse_channel(name).units for name in store.channels],
        "latitude": grid.latitude.tolist(),
        "longitude": grid.longitude.tolist(),
    }
    for name, values in stated.items():
        if (held := group[name][:].tolist()) != values:  # type: ignore[index, union-attr]
            message = f"{name} holds {shortened(held)}, the manifest says {shortened(values)}"
            report.error("metadata", message, kind="coordinate")
    for channel in store.manifest["channels"]:
        if channel["units"] != (units := parse_channel(channel["name"]).units):
            message = f"{channel['name']} is in {channel['units']!r} by the manifest, must be in {units!r}"
            report.error("metadata", message, kind="units", channel=channel["name"])
    report.facts.append(f"{len(store.channels)} channels on {grid}")


def check_splits(store: Store, report: VerifyReport) -> None:
    """Periods hold times and share none; statistics and climatology are of the training days."""
    given = [(name, period) for name, period in store.periods.items() if period is not None]
    for i, (name, period) in enumerate(given):
        if not period.contains(store.times).any():
            report.error("splits", f"{name} ({period}) holds no time", kind="empty", remedy="settings")
        for other, held in given[i + 1 :]:
            if period.overlaps(held):
                message = f"{name} ({period}) and {other} ({held}) share days"
                report.error("splits", message, kind="overlap", remedy="settings")
    train = store.periods["train"]
    for name in ("statistics", "climatology", "tendency"):
        stated = store.manifest[name]["period"]
        if stated != store.manifest["periods"]["train"]:
            report.error("splits", f"{name} are over {stated}, training days are {train}", kind="leak")
    report.facts.append("splits: " + ", ".join(f"{name} {period}" for name, period in given))


def shortened(value: Any) -> str:
    """Text of at most 120 characters."""
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _shapes(store: Store) -> dict[str, tuple[int, ...]]:
    n_channels = len(store.channels)
    n_hours, n_days = len(store.manifest["climatology"]["hours"]), len(day_coordinate(store.climatology_window))
    by_channel = ("mean", "std", "minimum", "maximum", "tendency_std", "channel", "units")
    shapes: dict[str, tuple[int, ...]] = {
        "state": (store.manifest["times"]["count"], n_channels, *store.grid.shape),
        "climatology": (n_days, n_hours, n_channels, *store.grid.shape),
        **{name: (n_channels,) for name in by_channel},
    }
    if store.static_names:
        shapes["static_fields"] = (len(store.static_names), *store.grid.shape)
    if more := store.manifest["tendency"].get("more_lead_hours"):
        shapes |= {"tendency_leads": (len(more) + 1,), "tendency_std_by_lead": (len(more) + 1, n_channels)}
    if store.masks:
        shapes["masks"] = (len(store.masks), *store.grid.shape)
    return shapes
