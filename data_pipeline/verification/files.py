"""Are all files there, and as they were written? This is where everything is hashed, on all cores or on a cluster."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from weatherfm.data_pipeline.machine.call import Call
from weatherfm.data_pipeline.machine.cluster import capacity_of
from weatherfm.data_pipeline.machine.parallel import run_tasks
from weatherfm.data_pipeline.store.records.manifest import FILES, NAME, RECORDS, SOURCES, file_checksum, is_sealed
from weatherfm.data_pipeline.store.records.record_checks import Damaged, path_inside
from weatherfm.data_pipeline.store.records.source_files import read_sources
from weatherfm.data_pipeline.store.records.store_files import fault_of, foreign_files, read_files, read_shards
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.data_pipeline.verification.report import VerifyReport
from weatherfm.errors import InputError

_TASK_BYTES, _TASK_FILES = 256 * 2**20, 200
"""Of one task, at least: it takes about a second."""

Files = Mapping[str, Mapping[str, Any]]


def check_files(store: Store, report: VerifyReport, workers: int | None = None, scheduler: str | None = None) -> None:
    """Size and sha256 of every file against the records, these against the manifest, and what does not belong there.

    Args:
        store: to look at.
        report: told what is found.
        workers: files looked at at a time; without it, one a CPU core, or a thread of the cluster.
        scheduler: address of a dask.distributed scheduler, whose workers must see the same files.

    Raises:
        InputError: no scheduler answers at that address.
    """
    if not is_sealed(store.manifest):
        report.error("files", f"{NAME} was changed since prepare wrote it", kind="manifest", files=(NAME,))
    n_bad = _check_records(store, report)
    try:
        files = read_files(store.path, store.manifest)
    except InputError:  # told above
        report.files = {"count": 0, "bytes": 0, "bad": n_bad}
        return
    n_bytes = sum(entry["bytes"] for entry in files.values())
    found: dict[str, tuple[str, str]] = {}
    root, calls = str(store.path.absolute()), (Call(next(iter(part)), _faults, (part,)) for part in _cut(files))
    if workers is None:
        workers = (os.cpu_count() or 1) if scheduler is None else capacity_of(scheduler)[0]
    with tqdm(total=n_bytes, desc="checksums", unit="B", unit_scale=True, unit_divisor=1024, disable=None) as bar:
        for dealt, faults in run_tasks(calls, workers, root, scheduler):
            bar.update(dealt)
            found |= faults
    for key, (kind, message) in sorted(found.items()):
        report.error("files", message, kind=kind, remedy="repair", files=(key,))
    _check_extra(store, files, report)
    report.files = {"count": len(files), "bytes": n_bytes, "bad": n_bad + len(found)}
    report.facts.append(f"{len(files)} files, {n_bytes / 2**20:,.1f} MiB: checksums compared")


def _check_records(store: Store, report: VerifyReport) -> int:
    """How many of the records themselves are not as they were written."""
    faults = {}
    for name, read in ((name, {FILES: read_files}.get(name, read_shards)) for name in RECORDS):
        try:
            if fault := fault_of(path_inside(store.path, name), store.manifest["records"][name]):
                faults[name] = f"{name} {fault}"
            else:
                read(store.path, store.manifest)
        except InputError as error:  # it is what was sealed, and no store's
            report.error("files", str(error), kind="manifest", files=(name,))
    try:
        read_sources(store.path, store.manifest)
    except (Damaged, InputError) as error:
        faults[SOURCES] = str(error)
    for name, message in faults.items():
        report.error("files", message, kind="record", remedy="repair", files=(name,))
    return len(faults)


def _cut(files: Files) -> Iterator[dict[str, Mapping[str, Any]]]:
    part: dict[str, Mapping[str, Any]] = {}
    n_bytes = 0
    for key, entry in files.items():
        part[key] = entry
        n_bytes += entry["bytes"]
        if n_bytes >= _TASK_BYTES or len(part) >= _TASK_FILES:
            yield part
            part, n_bytes = {}, 0
    if part:
        yield part


def _faults(root: str, files: Files) -> tuple[int, dict[str, tuple[str, str]]]:
    """Bytes dealt with, and key -> (kind, message) of every file that is not as written."""
    found = {key: fault for key, entry in files.items() if (fault := _fault(Path(root), key, entry))}
    return sum(entry["bytes"] for entry in files.values()), found


def _fault(root: Path, key: str, expected: Mapping[str, Any]) -> tuple[str, str] | None:
    try:
        file = path_inside(root, key)
        status = file.lstat()
    except InputError as error:
        return "link", str(error)
    except (FileNotFoundError, NotADirectoryError):
        return "missing", f"{key} is missing"
    except OSError as error:
        return "unreadable", f"{key} cannot be read ({error.strerror})"
    if not stat.S_ISREG(status.st_mode):
        return "missing", f"{key} is no file"
    if status.st_size != expected["bytes"]:
        return "size", f"{key} has {status.st_size} bytes instead of {expected['bytes']}"
    try:
        return None if file_checksum(file) == expected["sha256"] else ("checksum", f"{key} has a wrong checksum")
    except OSError as error:  # a missing right, a bad disk: the other files are looked at all the same
        return "unreadable", f"{key} cannot be read ({error.strerror})"


def _check_extra(store: Store, files: Files, report: VerifyReport) -> None:
    for extra in foreign_files(store.path, files):
        report.warning("files", f"{extra} does not belong to the store", kind="extra", remedy="remove", files=(extra,))
