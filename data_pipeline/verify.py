"""Look at a finished store with suspicion: files, metadata, times, values, changes, statistics, splits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from weatherfm.data_pipeline.store.records.manifest_reading import read_manifest
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.data_pipeline.verification.files import check_files
from weatherfm.data_pipeline.verification.metadata import check_metadata, check_splits
from weatherfm.data_pipeline.verification.report import VerifyReport
from weatherfm.data_pipeline.verification.times import check_times
from weatherfm.data_pipeline.verification.values import check_values
from weatherfm.errors import InputError
from weatherfm.home import expanded

_UNREADABLE = ("duplicate", "order", "unreadable")


def verify(
    path: str | Path, sample: int | None = None, workers: int | None = None, scheduler: str | None = None
) -> VerifyReport:
    """Check a finished store.

    Every file is read once for its checksum, and every field once for all else; about 256 MiB of fields are held.

    Args:
        path: its folder.
        sample: read this many times, spread evenly, instead of all; statistics are then only checked for
            contradictions, not computed again, and fields are not compared with their neighbours.
        workers: threads that compute checksums; without it, one a CPU core.
        scheduler: address of a dask.distributed scheduler whose workers compute them instead; they must see the same
            files.

    Raises:
        InputError: there is no finished store to check, or a sample of less than one time.
    """
    if sample is not None and sample < 1:
        raise InputError(f"a sample of {sample} times checks nothing; give 1 or more, or leave it out to read all")
    path = expanded(path)
    manifest = read_manifest(path)
    store = Store(path, manifest)
    report = VerifyReport(str(path), str(manifest.get("checksum", "")), store.simulated)
    check_files(store, report, workers, scheduler)
    for check, label in ((check_metadata, "metadata"), (check_times, "times"), (check_splits, "splits")):
        _guarded(check, label, store, report)
    if _fit_to_read(report):
        _guarded(lambda s, r: check_values(s, r, sample), "values", store, report)
    else:
        report.warning("values", "not read, because of the errors above", kind="not read", remedy="first")
    return report


def report_to_bytes(report: VerifyReport) -> bytes:
    """The JSON file that `weatherfm report` makes a section of its page from."""
    return (json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n").encode()


def _fit_to_read(report: VerifyReport) -> bool:
    """Values of a store with damaged files or without a clear time axis say nothing new."""
    errors = [problem for problem in report.problems if problem.severity == "error"]
    return not any(p.check in ("files", "metadata") or p.kind in _UNREADABLE for p in errors)


def _guarded(check: Callable[[Store, VerifyReport], None], label: str, store: Store, report: VerifyReport) -> None:
    """A check that cannot read what it needs is a finding, not the end."""
    try:
        check(store, report)
    except (InputError, OSError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        report.error(label, f"cannot be checked: {str(error) or type(error).__name__}", kind="unreadable")
