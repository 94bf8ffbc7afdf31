"""Verbs that make and check a store: prepare, append, verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from weatherfm.errors import InputError
from weatherfm.verbs.run import Overrides, Whole, as_json, importing, is_run, load, say

if TYPE_CHECKING:
    from weatherfm.training.run_config import RunConfig

Scheduler = Annotated[
    str | None,
    Parameter(
        help="Address of a dask.distributed scheduler (tcp://host:port) whose workers do the work; they must see the "
        "same files. Without it, threads of this process do it."
    ),
]
Workers = Annotated[Whole, Parameter(help="Most shards to write at a time; by default one a CPU core.")]
Memory = Annotated[
    float | None,
    Parameter(help="GB that data may take; by default half of what is available. Where it is short, fewer write."),
]


def prepare(
    config: Path,
    *overrides: Overrides,
    dry_run: bool = False,
    json: bool = False,
    bandwidth: float | None = None,
    workers: Workers = None,
    memory: Memory = None,
    scheduler: Scheduler = None,
) -> None:
    """Turn the source of a run into its training store; goes on by itself where it was interrupted.

    Parameters
    ----------
    config
        The run's YAML file.
    dry_run
        Say what would be read and written, how long that takes and what would be cheaper, and move nothing.
    json
        With --dry-run: print it as JSON.
    bandwidth
        With --dry-run: MB/s for which to say how long reading takes.
    """
    run = load(config, overrides)
    if (json or bandwidth is not None) and not dry_run:
        raise InputError(f"{'--json' if json else '--bandwidth'} is for --dry-run; add that, or leave it out")
    if json and bandwidth is not None:
        raise InputError("--json has no times of reading, which --bandwidth is for; leave one of the two out")
    if not dry_run:
        prepare_run(run, workers, memory, scheduler)
        return
    with importing():
        from weatherfm.data_pipeline.design.dry_run import DEFAULT_BANDWIDTHS, to_dict, to_text
        from weatherfm.face.arguments import positive
        from weatherfm.face.stores import prepare as prepare_store
        from weatherfm.face.stores import runs_of_stores

    rates = DEFAULT_BANDWIDTHS if bandwidth is None else (positive(bandwidth, "--bandwidth"),)
    designs = [
        prepare_store(one, dry_run=True, workers=workers, memory=memory, scheduler=scheduler)
        for one in runs_of_stores(run)
    ]
    if json:
        told = [to_dict(design) for design in designs]
        say(as_json(told if run.data.mix else told[0]))
    else:
        say("\n\n".join(to_text(design, rates) for design in designs))


def append(
    config: Path,
    *overrides: Overrides,
    workers: Workers = None,
    memory: Memory = None,
    scheduler: Scheduler = None,
) -> None:
    """Make a finished store longer, and replace preliminary fields (ERA5T) by final ones.

    Give the run with its new period (and splits, if they change); everything else must be as it was. What stays the
    same is not written again, and the store can be read all the while. Goes on where it was interrupted.

    Parameters
    ----------
    config
        The run's YAML file.
    """
    run = load(config, overrides)
    with importing():
        from weatherfm.face.stores import append as append_to_store
        from weatherfm.face.stores import runs_of_stores

    for one in runs_of_stores(run):
        say(f"store     {append_to_store(one, workers=workers, memory=memory, scheduler=scheduler).path}")


def verify(
    store: Path,
    *overrides: Overrides,
    json: bool = False,
    sample: Whole = None,
    output: Path | None = None,
    repair: bool = False,
    workers: Annotated[Whole, Parameter(help="Threads that compute checksums; by default one a CPU core.")] = None,
    scheduler: Scheduler = None,
) -> int:
    """Check a store: checksums, time axis, missing values, physical range, jumps, statistics, climatology, periods.

    Parameters
    ----------
    store
        Folder of the store, or the run's YAML file.
    json
        Print the findings as JSON.
    sample
        Read so many times, spread evenly, instead of all: quick, but blind to jumps and wrong statistics.
    output
        Write the findings as JSON into this file too, for the page that `weatherfm report` makes; with a run's YAML
        file they go to verify.json in its folder by default.
    repair
        Write damaged and missing files again, from the source that the store names (or the YAML file), and check again.
    """
    run = load(store, overrides) if is_run(store) else None
    with importing():
        from weatherfm.face.runs import refuse_overrides
        from weatherfm.face.stores import runs_of_stores
        from weatherfm.face.verification import verify as verify_store

    if run is None:
        refuse_overrides(store, overrides, "a store")
    found = [
        verify_store(
            one,
            sample=sample,
            output=output,
            repair=repair,
            workers=workers,
            scheduler=scheduler,
            before_repair=lambda damaged: None if json else say(damaged.to_text()),
        )
        for one in ([store] if run is None else runs_of_stores(run)[::-1])  # what is kept last is of the first store
    ][::-1]
    told = [findings.to_dict() for findings in found]
    say(as_json(told if len(told) > 1 else told[0]) if json else "\n\n".join(one.to_text() for one in found))
    return 0 if all(findings.ok for findings in found) else 1


def verify_run(run: RunConfig) -> bool:
    """Check the store of a run and keep the findings beside its results; True when it is sound."""
    with importing():
        from weatherfm.face.verification import verify as verify_store

    findings = verify_store(run)
    say(findings.to_text())
    return findings.ok


def prepare_run(
    run: RunConfig, workers: int | None = None, memory: float | None = None, scheduler: str | None = None
) -> None:
    """Prepare the store of a run and say where it is; `memory` in GB."""
    with importing():
        from weatherfm.face.stores import prepare as prepare_store
        from weatherfm.face.stores import runs_of_stores

    for one in runs_of_stores(run):
        say(f"store     {prepare_store(one, workers=workers, memory=memory, scheduler=scheduler).path}")
