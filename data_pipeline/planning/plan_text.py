"""What `prepare --dry-run` says of a plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weatherfm.data_pipeline.fields.time_axis import name_times
from weatherfm.data_pipeline.machine.disk import LEAST_SHARE, USUAL_SHARE, free_bytes
from weatherfm.data_pipeline.planning.plan import StorePlan
from weatherfm.data_pipeline.store.shard_layout import MIB

DEFAULT_BANDWIDTHS = (10.0, 100.0, 1000.0)
"""MB/s: a home line, a good office, a data centre."""


def to_dict(plan: StorePlan) -> dict[str, Any]:
    """Plain numbers; bytes are bytes."""
    cost = plan.cost
    reading = (
        None
        if cost is None
        else {
            "requests": cost.requests,
            "bytes_wanted": cost.wanted,
            "bytes_moved_decoded": cost.moved,
            "bytes_moved": cost.compressed,
            "advice": list(cost.advice),
        }
    )
    return {
        "store": plan.config.store,
        "times": len(plan.axis.times),
        "missing_times": len(plan.axis.missing),
        "preliminary_times": int(plan.preliminary.sum()),
        "step_hours": plan.axis.step_hours,
        "channels": plan.layout.n_channels,
        "reading": reading,
        "bytes_before_compression": plan.bytes_before_compression,
        "bytes_on_disk": round(USUAL_SHARE * plan.bytes_before_compression),
        "bytes_free": free_bytes(Path(plan.config.store)),
        "bytes_to_download": plan.download_bytes,
        "shards": plan.shards,
        "files": plan.files,
        "peak_memory": plan.stated_memory,
        "records_memory": plan.records_bytes,
        "workers": plan.workers,
        "readers": plan.readers,
    }


def to_text(plan: StorePlan, bandwidths: Sequence[float] = DEFAULT_BANDWIDTHS) -> str:
    """Lines for a terminal.

    Args:
        plan: of the store.
        bandwidths: MB/s, for which to say how long reading takes.
    """
    times, layout = plan.axis.times, plan.layout
    block = (
        f"chunk 1 time x {layout.channel_block} channels, shard {layout.shard_times} times x {layout.shard_channels}"
    )
    lines = {
        "store": f"{plan.config.store}{' (simulated data)' if plan.simulated else ''}",
        "times": f"{len(times)} every {plan.axis.step_hours}h, {name_times(times[:1])} to {name_times(times[-1:])}",
        "missing": f"{len(plan.axis.missing)} {name_times(plan.axis.missing)}".strip(),
        "channels": f"{layout.n_channels}: {' '.join(plan.config.channels)}",
        "grid": str(plan.grid),
        **{name: str(period or "none") for name, period in plan.periods.items()},
        "layout": f"{block} channels ({layout.shard_bytes / MIB:.1f} MiB)",
        **_reading(plan, bandwidths),
        "disk": _disk(plan),
        "memory": f"at most {plan.stated_memory / MIB:,.0f} MiB with {plan.workers} x {plan.readers} threads, "
        f"{plan.records_bytes / MIB:,.0f} MiB of them for the records of shards",
    }
    if plan.download_folder is not None:
        free = _size(free_bytes(Path(plan.download_folder)))
        lines["download"] = f"about {_size(plan.download_bytes)} to {plan.download_folder}, where {free} are free"
    if plan.preliminary.any():
        lines["preliminary"] = f"{plan.preliminary.sum()} times, from {name_times(times[plan.preliminary][:1])} on"
    advice = [] if plan.cost is None else [f"WASTEFUL: {text}" for text in plan.cost.advice]
    return "\n".join([*(f"{name:<12}{text}" for name, text in lines.items()), *advice])


def _disk(plan: StorePlan) -> str:
    whole, free = plan.bytes_before_compression, free_bytes(Path(plan.config.store))
    verdict = "" if whole <= free else ": TOO LITTLE" if LEAST_SHARE * whole > free else ": may not fit"
    return (
        f"at most {whole / MIB:,.0f} MiB in {plan.files:,} files, about {USUAL_SHARE:.0%} of that once compressed; "
        f"{free / MIB:,.0f} MiB are free{verdict}"
    )


def _reading(plan: StorePlan, bandwidths: Sequence[float]) -> dict[str, str]:
    cost = plan.cost
    if cost is None:
        return {"reads": "the source does not tell"}
    times = ", ".join(f"{_duration(cost.compressed / 1e6 / rate)} at {rate:g} MB/s" for rate in bandwidths)
    return {
        "reads": f"{cost.requests:,} requests, {_size(cost.compressed)} as stored, {_size(cost.moved)} decoded"
        + (f", of which {_size(cost.wanted)} are wanted" if cost.moved > cost.wanted else ""),
        "time": f"{times} for reading alone",
    }


def _size(n_bytes: float) -> str:
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    power = min(len(units) - 1, int(math.log(n_bytes, 1000))) if n_bytes >= 1 else 0
    return f"{n_bytes / 1000**power:.3g} {units[power]}"


def _duration(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{max(1, seconds):.0f} seconds"
