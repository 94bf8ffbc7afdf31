"""Verbs that make and check a store: prepare, append, verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from weatherfm.errors import InputError
from weatherfm.verbs.run import Overrides, as_json, load, say, store_path

if TYPE_CHECKING:
    from weatherfm.training.config import RunConfig

Scheduler = Annotated[
    str | None,
    Parameter(
        help="Address of a dask.distributed scheduler (tcp://host:port); its workers write, so they must see the same "
        "files. Without it, threads of this process do the work."
    ),
]
Workers = Annotated[int | None, Parameter(help="Most shards to write at a time; by default one a CPU core.")]
Memory = Annotated[
    float | None,
    Parameter(help="GB that data may take; by default half of the machine's. Fewer writers work where it is short."),
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
    if not dry_run:
        prepare_run(run, workers, memory, scheduler)
        return
    from weatherfm.data_pipeline.plan import plan_store
    from weatherfm.data_pipeline.plan_text import DEFAULT_BANDWIDTHS, to_dict, to_text
    from weatherfm.data_pipeline.sources import open_source

    plan = plan_store(run.data, open_source(run.data), workers, _bytes(memory))
    rates = DEFAULT_BANDWIDTHS if bandwidth is None else (_positive("bandwidth", bandwidth),)
    say(as_json(to_dict(plan)) if json else to_text(plan, rates))


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
    from weatherfm.data_pipeline.revise import append as append_to_store

    run = load(config, overrides)
    store = append_to_store(run.data, scheduler=scheduler, workers=workers, memory=_bytes(memory))
    say(f"store     {store.path}")


def verify(store: Path, *, json: bool = False) -> int:
    """Check a store: checksums, time axis, missing values, physical range, statistics, periods.

    Parameters
    ----------
    store
        Folder of the store, or the run's YAML file.
    json
        Print the findings as JSON.
    """
    from weatherfm.data_pipeline.verify import verify as verify_store

    findings = verify_store(store_path(store))
    say(as_json(findings.to_dict()) if json else findings.to_text())
    return 0 if findings.ok else 1


def prepare_run(
    run: RunConfig, workers: int | None = None, memory: float | None = None, scheduler: str | None = None
) -> None:
    """Prepare the store of a run and say where it is; `memory` in GB."""
    from weatherfm.data_pipeline.prepare import prepare as prepare_store

    store = prepare_store(run.data, scheduler=scheduler, workers=workers, memory=_bytes(memory))
    say(f"store     {store.path}")


def _bytes(memory: float | None) -> int | None:
    return None if memory is None else int(_positive("memory", memory) * 1e9)


def _positive(name: str, value: float) -> float:
    if value <= 0:
        raise InputError(f"--{name} must be above 0, got {value:g}")
    return value
