"""What `prepare --dry-run` says of a design."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weatherfm.data_pipeline.design.store_design import StoreDesign
from weatherfm.data_pipeline.fields.time_axis import name_times
from weatherfm.data_pipeline.machine.disk import LEAST_SHARE, USUAL_SHARE, free_bytes
from weatherfm.data_pipeline.store.sharding import MIB

DEFAULT_BANDWIDTHS = (10.0, 100.0, 1000.0)
"""MB/s: a home line, a good office, a data centre."""


def to_dict(design: StoreDesign) -> dict[str, Any]:
    """Plain numbers; bytes are bytes."""
    cost = design.cost
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
        "store": design.config.store,
        "times": len(design.axis.times),
        "missing_times": len(design.axis.missing),
        "preliminary_times": int(design.preliminary.sum()),
        "step_hours": design.axis.step_hours,
        "channels": design.sharding.n_channels,
        "reading": reading,
        "bytes_before_compression": design.bytes_before_compression,
        "bytes_on_disk": round(USUAL_SHARE * design.bytes_before_compression),
        "bytes_free": free_bytes(Path(design.config.store)),
        "bytes_to_download": design.download_bytes,
        "shards": design.shards,
        "files": design.files,
        "peak_memory": design.stated_memory,
        "records_memory": design.records_bytes,
        "workers": design.workers,
        "readers": design.readers,
    }


def to_text(design: StoreDesign, bandwidths: Sequence[float] = DEFAULT_BANDWIDTHS) -> str:
    """Lines for a terminal.

    Args:
        design: of the store.
        bandwidths: MB/s, for which to say how long reading takes.
    """
    times, sharding = design.axis.times, design.sharding
    shard = f"{sharding.shard_times} times x {sharding.shard_channels}"
    block = f"chunk 1 time x {sharding.channel_block} channels, shard {shard}"
    lines = {
        "store": f"{design.config.store}{' (simulated data)' if design.simulated else ''}",
        "times": f"{len(times)} every {design.axis.step_hours}h, {name_times(times[:1])} to {name_times(times[-1:])}",
        "missing": f"{len(design.axis.missing)} {name_times(design.axis.missing)}".strip(),
        "channels": f"{sharding.n_channels}: {' '.join(design.config.channels)}",
        "grid": str(design.grid),
        **{name: str(period or "none") for name, period in design.periods.items()},
        "layout": f"{block} channels ({sharding.shard_bytes / MIB:.1f} MiB)",
        **_reading(design, bandwidths),
        "disk": _disk(design),
        "memory": f"at most {design.stated_memory / MIB:,.0f} MiB with {design.workers} x {design.readers} threads, "
        f"{design.records_bytes / MIB:,.0f} MiB of them for the records of shards",
    }
    if design.download_folder is not None:
        free = _size(free_bytes(Path(design.download_folder)))
        lines["download"] = f"about {_size(design.download_bytes)} to {design.download_folder}, where {free} are free"
    if design.preliminary.any():
        lines["preliminary"] = f"{design.preliminary.sum()} times, from {name_times(times[design.preliminary][:1])} on"
    advice = [] if design.cost is None else [f"WASTEFUL: {text}" for text in design.cost.advice]
    return "\n".join([*(f"{name:<12}{text}" for name, text in lines.items()), *advice])


def _disk(design: StoreDesign) -> str:
    whole, free = design.bytes_before_compression, free_bytes(Path(design.config.store))
    verdict = "" if whole <= free else ": TOO LITTLE" if LEAST_SHARE * whole > free else ": may not fit"
    return (
        f"at most {whole / MIB:,.0f} MiB in {design.files:,} files, about {USUAL_SHARE:.0%} of that once compressed; "
        f"{free / MIB:,.0f} MiB are free{verdict}"
    )


def _reading(design: StoreDesign, bandwidths: Sequence[float]) -> dict[str, str]:
    cost = design.cost
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
