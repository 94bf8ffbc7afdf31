"""Changing a finished store: `append` makes it longer, `repair` redoes what is damaged.

Both write a successor beside the store, made of links to the shards that stay and new ones for the rest, exactly as
`prepare` goes on after an interruption, and put it in the store's place when it is finished. Until then the store is
untouched. The successor has the bytes of a store that was prepared at once.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weatherfm.data_pipeline import manifest as manifests
from weatherfm.data_pipeline.config import DataConfig
from weatherfm.data_pipeline.describe import request_of, with_defaults
from weatherfm.data_pipeline.journal import (
    Journal,
    Record,
    differences_between,
    refuse_in_use,
    remove_journal,
    write_record,
)
from weatherfm.data_pipeline.plan import StorePlan, plan_store
from weatherfm.data_pipeline.prepare import identity_of, open_config, static_fields, warner
from weatherfm.data_pipeline.probe import probe
from weatherfm.data_pipeline.store import Store, open_store
from weatherfm.data_pipeline.swap import place_of_next, settle, swap
from weatherfm.data_pipeline.time_axis import name_times
from weatherfm.data_pipeline.writing import Writing
from weatherfm.errors import InputError

if TYPE_CHECKING:
    from weatherfm.data_pipeline.sources import SourceData

_log = logging.getLogger(__name__)
_MAY_CHANGE = (
    "period", "train", "validation", "test", "allow_gaps",
    "source.paths", "source.exclude", "source.static_paths", "source.preliminary", "source.address",
)  # fmt: skip


def append(
    config: DataConfig,
    source: SourceData | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    memory: int | None = None,
) -> Store:
    """Bring a finished store up to what `config` and its source say: later times, final fields for preliminary ones.

    Shards that stay as they are, are kept. Statistics are merged from those of each shard, so they are what a store
    prepared at once has, to the last bit. Interrupted, the same call goes on.

    Args:
        config: of the store; only its period, splits, gaps and file names may differ from what the store was made with.
        source: where to read from; without it, what `config.source` names.
        scheduler: address of a dask.distributed scheduler; without it, threads of this process write.
        workers: most shards to write at a time; without it, one a CPU core.
        memory: bytes that data may take; without it, half of what is available to the process.

    Raises:
        InputError: no finished store, other settings, or times that the store has and the source or the config lacks.
    """
    root = Path(config.store).expanduser()
    settle(root)
    store = open_store(root)
    _refuse_other_settings(store, config)
    source = source or open_config(config)
    plan = plan_store(config, source, workers, memory)
    _refuse_loss(store, plan)
    remove_journal(root)
    if _is_up_to_date(store, plan):
        _log.info("the store %s has everything already; nothing to do", root)
        return store
    added = int((~np.isin(plan.axis.times, store.times)).sum())
    _log.info("%d times to add to %d", added, len(store.times))
    probe(plan, source, place_of_next(root), ~np.isin(plan.axis.times, store.times))
    _write_successor(store, plan, source, _shard_records(store), scheduler)
    swap(root)
    return open_store(root)


def repair(
    path: Path,
    bad_files: set[str],
    config: DataConfig | None = None,
    source: SourceData | None = None,
    scheduler: str | None = None,
) -> Store:
    """Redo the damaged files of a store from its source; nothing else is written.

    Args:
        path: folder of the store.
        bad_files: keys, as `verify` names them.
        config: how to reach the source; without it, as the store's manifest says.
        source: where to read from; without it, what the config names.
        scheduler: address of a dask.distributed scheduler; without it, threads of this process write.

    Raises:
        InputError: the manifest is damaged, the source is not to be reached, or it gives other values than the store
            was made from (then the store is left as it is).
    """
    root = path.expanduser()
    settle(root)
    store = open_store(root)
    if not manifests.is_sealed(store.manifest):
        raise InputError(f"{root / manifests.NAME} itself was changed: nothing to go by; prepare the store anew")
    config = config or DataConfig.model_validate({**store.manifest["request"], "store": str(root)})
    if differences := differences_between(with_defaults(store.manifest["request"]), request_of(config)):
        raise InputError(f"the store {root} was made with another {differences[0][0]}; give its own configuration")
    if not bad_files:
        return store
    source = source or open_config(config)
    plan = plan_store(config, source)
    records = {} if manifests.SHARDS in bad_files else _shard_records(store)
    sound = {name: record for name, record in records.items() if not bad_files & record["files"].keys()}
    _write_successor(store, plan, source, sound, scheduler)
    successor = place_of_next(root)
    _refuse_other_values(store, successor)
    (successor / manifests.NAME).write_bytes((root / manifests.NAME).read_bytes())  # of the version that wrote it
    swap(root)
    return open_store(root)


def _write_successor(
    store: Store, plan: StorePlan, source: SourceData, records: Mapping[str, Record], scheduler: str | None
) -> None:
    """A finished store beside `store`; goes on with one that was interrupted."""
    successor, identity = place_of_next(store.path), identity_of(plan, source)
    if (successor / manifests.NAME).is_file():
        if _is_up_to_date(open_store(successor), plan):
            remove_journal(successor)
            return  # killed just before it took its place
        shutil.rmtree(successor)
    elif _is_of_another(successor, identity):
        refuse_in_use(successor)
        shutil.rmtree(successor)  # begun for other settings; the store has all of it that matters
    static = static_fields(plan.config, source)
    with Journal(successor, identity) as journal:
        writing = Writing(successor, plan, source, static, journal, scheduler)
        begun = journal.records()
        for task in writing.tasks.all():
            record = records.get(task.name)
            if task.name not in begun and record is not None and record["inputs"] == task.inputs:
                _adopt(store.path, successor, task.name, record)
        writing.run(warner(plan))


def _adopt(root: Path, successor: Path, task: str, record: Record) -> None:
    """Make a task of the old store one of its successor; the journal compares the checksums before it believes it."""
    for key in record["files"]:
        target = successor / key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(root / key, target)
        except FileNotFoundError:
            return
        except OSError:  # a file system without links
            shutil.copyfile(root / key, target)
    write_record(successor, task, record["files"], record["payload"], record["inputs"])


def _is_of_another(successor: Path, identity: Mapping[str, Any]) -> bool:
    file = successor / manifests.PROGRESS / "request.json"
    return file.is_file() and file.read_text() != manifests.canonical_json(identity)


def _shard_records(store: Store) -> dict[str, Record]:
    """What each task of the finished store wrote and found out."""
    file = store.path / manifests.SHARDS
    try:
        records: dict[str, Record] = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file} is missing or damaged ({error}); `weatherfm verify --repair` mends the store"
        ) from None
    return records


def _refuse_other_settings(store: Store, config: DataConfig) -> None:
    found = differences_between(with_defaults(store.manifest["request"]), request_of(config))
    other = [key for key, *_ in found if not key.startswith(_MAY_CHANGE)]
    if other:
        raise InputError(
            f"the store {store.path} was prepared with another {', '.join(other)}; append changes no more than period, "
            "splits and the names of files: restore the setting, or prepare another store"
        )


def _refuse_loss(store: Store, plan: StorePlan) -> None:
    lost = np.setdiff1d(store.times, plan.axis.times)
    if len(lost):
        raise InputError(
            f"the store {store.path} has {len(lost)} times that the source or data.period no longer has: "
            f"{name_times(lost)}; append only adds: give the whole period, from {name_times(store.times[:1])} on"
        )
    if plan.axis.step_hours != store.step_hours:
        raise InputError(f"the store has times every {store.step_hours}h, the source {plan.axis.step_hours}h; set step")
    if plan.grid != store.grid:
        raise InputError(f"the store is on the grid {store.grid}, the source on {plan.grid}; regrid to the store's")


def _is_up_to_date(store: Store, plan: StorePlan) -> bool:
    held = store.manifest
    return (
        np.array_equal(store.times, plan.axis.times)
        and held["times"]["preliminary"] == [str(time) for time in plan.axis.times[plan.preliminary]]
        and with_defaults(held["request"]) == request_of(plan.config)
    )


def _refuse_other_values(store: Store, successor: Path) -> None:
    """A repaired store must have the bytes it was made with."""
    expected = store.manifest["files"]
    written = json.loads((successor / manifests.NAME).read_bytes())["files"]
    differing = {key for key in expected.keys() | written.keys() if expected.get(key) != written.get(key)}
    other = sorted(differing, key=lambda key: (not key.startswith(("state/", "climatology/")), key))
    if other:
        shutil.rmtree(successor)
        raise InputError(
            f"the source gives other values today than when the store {store.path} was made: {', '.join(other[:5])} "
            f"would differ ({len(other)} files); the store is left as it is: prepare it anew, or restore the source"
        )
