"""A store looked at with suspicion, from Python."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from weatherfm.atomic import write_atomically
from weatherfm.data_pipeline import verify as verifying
from weatherfm.data_pipeline.store.records.swap import end_interrupted
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.data_pipeline.verification.report import VerifyReport
from weatherfm.errors import InputError
from weatherfm.face.arguments import count, file_to_write, path_text, scheduler_address
from weatherfm.face.runs import Override, RunLike, is_run, read_run, refuse_overrides


def verify(
    store: RunLike | Store,
    *overrides: Override,
    sample: int | None = None,
    output: str | os.PathLike[str] | None = None,
    repair: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    before_repair: Callable[[VerifyReport], Any] | None = None,
) -> VerifyReport:
    """Check a store: checksums, time axis, missing values, physical range, jumps, statistics, climatology, periods.

        findings = weatherfm.verify("runs/demo/store.zarr")
        findings.ok, findings.problems
        print(findings.to_text())

    Args:
        store: folder of a store, an opened one, or a run (a YAML file, a dict, settings of `weatherfm.read_run`), of
            several stores (`data.mix`) the first.
        overrides: settings of the run to change, each as "section.key=value" or {"section.key": value}.
        sample: read so many times, spread evenly, instead of all: quick, but blind to jumps and wrong statistics.
        output: write the findings as JSON into this file too, for the page of `weatherfm.report`; of a run they go to
            verify.json in its folder by default.
        repair: write damaged and missing files again, from the source that the store names (or the run), and check
            again.
        workers: threads that compute checksums; without it, one a CPU core.
        scheduler: address of a dask.distributed scheduler whose workers compute them.
        before_repair: called with the findings, where there is something to repair, before it is done.

    Returns:
        What was looked at (`facts`), what is wrong (`problems`, each with its remedy), and `ok`: True without errors.

    Raises:
        InputError: there is no finished store, a sample of nothing, or a source that a repair cannot reach or that
            gives other values now.
    """
    run = read_run(store, *overrides) if is_run(store) else None  # type: ignore[arg-type]
    if run is None:
        refuse_overrides(store.path if isinstance(store, Store) else store, overrides, "a store")
    path = Path(run.data.store) if run else _folder(store)
    kept = run.folder / "verify.json" if run else None
    kept = kept if output is None else file_to_write(output, "output", ".json")
    sample, workers = count(sample, "sample"), count(workers, "workers")
    scheduler = scheduler_address(scheduler)
    if repair:
        end_interrupted(path)
    findings = verifying.verify(path, sample, workers, scheduler)
    if repair and (bad := findings.bad_files()):
        from weatherfm.data_pipeline import revise

        if before_repair is not None:
            before_repair(findings)
        revise.repair(path, bad, run.data if run else None, scheduler=scheduler)
        findings = verifying.verify(path, sample, workers, scheduler)
    if kept is not None:
        write_atomically(kept, verifying.report_to_bytes(findings))
    return findings


def _folder(store: Any) -> Path:
    if isinstance(store, Store):
        return store.path
    if not isinstance(store, str | os.PathLike):
        raise InputError(f"a store is a folder, or the run it belongs to; got {type(store).__name__} {store!r}")
    return Path(path_text(store, "a store"))
