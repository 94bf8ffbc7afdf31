"""Stores from Python: make one, make it longer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from weatherfm.data_pipeline import prepare as preparing
from weatherfm.data_pipeline import revise
from weatherfm.data_pipeline.design.store_design import StoreDesign, design_store
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.errors import InputError
from weatherfm.face.arguments import count, positive, scheduler_address
from weatherfm.face.runs import Override, RunLike, read_run

if TYPE_CHECKING:
    from weatherfm.training.run_config import RunConfig


@overload
def prepare(
    config: RunLike,
    *overrides: Override,
    dry_run: Literal[False] = False,
    workers: int | None = None,
    memory: float | None = None,
    scheduler: str | None = None,
) -> Store: ...


@overload
def prepare(
    config: RunLike,
    *overrides: Override,
    dry_run: Literal[True],
    workers: int | None = None,
    memory: float | None = None,
    scheduler: str | None = None,
) -> StoreDesign: ...


def prepare(
    config: RunLike,
    *overrides: Override,
    dry_run: bool = False,
    workers: int | None = None,
    memory: float | None = None,
    scheduler: str | None = None,
) -> Store | StoreDesign:
    """Turn the source of a run into its training store; go on by itself where it was interrupted.

        store = weatherfm.prepare("my_run.yaml")
        store.read([0], ["t850"])  # [time, channel, latitude, longitude], K

    Of a run on several (`data.mix`) it makes all, one after the other, and returns the first.

    Args:
        config: path of the run's YAML file, a dict, or settings of `weatherfm.read_run`.
        overrides: settings to change, each as "section.key=value" or {"section.key": value}.
        dry_run: only say what would be read and written, and move nothing.
        workers: most shards to write at a time; without it, one a CPU core.
        memory: GB that data may take; without it, half of what is available.
        scheduler: address of a dask.distributed scheduler (tcp://host:port) whose workers do the work; they must see
            the same files. Without it, threads of this process do it.

    Returns:
        The finished store, fields in canonical units; a store that was finished already is left alone. With `dry_run`
        its design: `shards`, `files`, `bytes_before_compression`, `peak_memory` and `cost` as attributes;
        `weatherfm.data_pipeline.design.dry_run.to_text` writes it out.

    Raises:
        InputError: wrong settings, a source that cannot work or holds values that are not finite, a store of other
            settings, or a full disk.
        OutsideError: the network failed for too long.
    """
    run = read_run(config, *overrides)
    workers, scheduler = count(workers, "workers"), scheduler_address(scheduler)
    if not dry_run:
        made = [
            preparing.prepare(data, scheduler=scheduler, workers=workers, memory=in_bytes(memory))
            for _, _, data in run.data.parts()
        ]
        return made[0]
    if run.data.mix:
        raise InputError(
            "a dry run is of one store; give those of data.mix one by one (weatherfm.face.stores.runs_of_stores)"
        )
    from weatherfm.data_pipeline.sources import open_source

    return design_store(run.data, open_source(run.data), workers, in_bytes(memory), scheduler)


def runs_of_stores(run: RunConfig) -> list[RunConfig]:
    """The run on each of its stores alone; of one store itself."""
    return [run.model_copy(update={"data": data}) for _, _, data in run.data.parts()]


def append(
    config: RunLike,
    *overrides: Override,
    workers: int | None = None,
    memory: float | None = None,
    scheduler: str | None = None,
) -> Store:
    """Make a finished store longer, and replace preliminary fields (ERA5T) by final ones.

        store = weatherfm.append("my_run.yaml", "data.period=1979/2026")

    What stays the same is not written again, and the store can be read all the while. Interrupted, the same call goes
    on.

    Args:
        config: path of the run's YAML file, a dict, or settings of `weatherfm.read_run`, with the new period (and
            splits, if they change); everything else must be as it was.
        overrides: settings to change, each as "section.key=value" or {"section.key": value}.
        workers: most shards to write at a time; without it, one a CPU core.
        memory: GB that data may take; without it, half of what is available.
        scheduler: address of a dask.distributed scheduler whose workers do the work; without it, threads do it.

    Returns:
        The store as it is now; as it was where the source has nothing new. Of several (`data.mix`) the first.

    Raises:
        InputError: no finished store, a damaged one, other settings, times that the store has and the source or the
            settings lack, or another process that writes the store.
        OutsideError: the network failed for too long.
    """
    run = read_run(config, *overrides)
    workers, scheduler = count(workers, "workers"), scheduler_address(scheduler)
    made = [
        revise.append(data, scheduler=scheduler, workers=workers, memory=in_bytes(memory))
        for _, _, data in run.data.parts()
    ]
    return made[0]


def in_bytes(memory: float | None) -> int | None:
    """Of GB.

    Raises:
        InputError: none or less.
    """
    return None if memory is None else int(positive(memory, "--memory") * 1e9)
