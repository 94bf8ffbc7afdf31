"""How much memory of the machine a process may still take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

BESIDE = "WEATHERFM_JOBS_BESIDE"
"""Environment variable: how many jobs share the machine's memory."""


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that are free, or hold no more than copies of files, within every limit that is set for this process.

    On Linux what the kernel calls available (/proc/meminfo), and what is left of the limits of its control groups,
    through which batch systems and containers cap a job; elsewhere the size of the machine's memory.

    Args:
        root: of the file system.
    """
    meminfo = root / "proc/meminfo"
    if not meminfo.exists():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    sizes = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    machine = int(sizes["MemAvailable"].split()[0]) * 1024  # it says kB and means KiB
    return max(0, min([machine, *_left_in_groups(root)]))


def local_processes() -> int:
    """Processes of this job on this machine, as far as the launcher has told: torchrun does, others seldom do."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def jobs_beside() -> int:
    """Jobs that were started side by side on this machine, this one among them, as `train --at-once` tells."""
    return int(os.environ.get(BESIDE, "1"))


def _left_in_groups(root: Path) -> Iterator[int]:
    """Of the limit of the process's group, and of every group around it; control groups of version 2 and 1."""
    groups = root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit, usage, prefix = root / "sys/fs/cgroup", "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):
            top, limit, usage = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            prefix = "total_"
        else:
            continue
        own = top / path.lstrip("/")
        for folder in (own, *own.parents):  # inside a container some do not exist, and its own is `top`
            if folder.is_relative_to(top) and (folder / limit).exists():
                yield from _left(folder / limit, folder / usage, folder / "memory.stat", prefix)


def _left(limit: Path, usage: Path, statistics: Path, prefix: str) -> Iterator[int]:
    if (text := limit.read_text().strip()) == "max":
        return
    numbers = dict(line.split() for line in statistics.read_text().splitlines())
    files = sum(int(numbers.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
    yield int(text) - (int(usage.read_text()) - files)  # copies of files make room when asked
