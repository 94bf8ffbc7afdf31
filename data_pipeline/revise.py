"""Changing a finished store: `append` makes it longer, `repair` redoes what is damaged.

Both write a successor beside the store, made of links to the shards that stay and new ones for the rest, exactly as
`prepare` goes on after an interruption, and put it in the store's place when it is finished. Until then the store is
untouched. The successor has the bytes of a store that was prepared at once.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from weatherfm.data_pipeline.design.probe import probe
from weatherfm.data_pipeline.design.store_design import StoreDesign, design_store
from weatherfm.data_pipeline.fields.time_axis import name_times
from weatherfm.data_pipeline.fields.time_ranges import from_ranges, to_ranges
from weatherfm.data_pipeline.prepare import identity_of, open_config, static_fields, warner, with_masks
from weatherfm.data_pipeline.store.records import manifest as manifests
from weatherfm.data_pipeline.store.records.record_checks import Damaged, differences_between, path_inside
from weatherfm.data_pipeline.store.records.source_files import changes_between, read_sources
from weatherfm.data_pipeline.store.records.store_files import (
    fault_of,
    foreign_files,
    read_files,
    read_shards,
    require_small_files,
)
from weatherfm.data_pipeline.store.records.swap import hold, place_of, place_of_next, refuse_fixed, swap
from weatherfm.data_pipeline.store.training_store import Store, open_store
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.data_pipeline.writing.finishing import Original, OtherValues
from weatherfm.data_pipeline.writing.journal import Journal, Record, is_begun_for, remove_journal
from weatherfm.data_pipeline.writing.links import Links
from weatherfm.data_pipeline.writing.new_manifest import content_settings, with_defaults
from weatherfm.data_pipeline.writing.without_empty_times import write_without_empty_times
from weatherfm.data_pipeline.writing.writer import Writing
from weatherfm.errors import InputError, some_of

if TYPE_CHECKING:
    from weatherfm.data_pipeline.fields.source_data import SourceData

_log = logging.getLogger(__name__)
_MAY_CHANGE = (
    "period", "train", "validation", "test", "allow_gaps", "exclude",
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

    Shards that stay as they are, are kept, and only those that a changed one needs are read. Statistics are merged from
    those of each shard, so they are what a store prepared at once has, to the last bit. Interrupted, the same call goes
    on.

    Args:
        config: of the store; only its period, splits, gaps and file names may differ from what the store was made with.
        source: where to read from; without it, what `config.source` names.
        scheduler: address of a dask.distributed scheduler; without it, threads of this process write.
        workers: most shards to write at a time; without it, one a CPU core.
        memory: bytes that data may take; without it, half of what is available to the process.

    Raises:
        InputError: no finished store, a damaged one, other settings, times that the store has and the source or the
            config lacks, or another process that writes the store.
    """
    root = place_of(config.store)
    with hold(root):
        store = open_store(root)
        refuse_fixed(root)
        require_small_files(root, store.manifest)
        _refuse_foreign(root, read_files(root, store.manifest))
        _refuse_other_settings(store, config)
        source = source or open_config(config)
        _refuse_numbered(root, source)

        def design_without(empty: np.ndarray) -> StoreDesign:
            design = design_store(config, source, workers, memory, scheduler, empty)
            return dataclasses.replace(design, masks=store.masks, checked=_is_checked(store))

        design = design_without(_known_empty(store))
        _refuse_loss(store, design)
        remove_journal(root)
        _tell_source_changes(store, source)
        if _is_up_to_date(store, design):
            _log.info("the store %s has everything already; nothing to do", root)
            return store
        _tell_work(store, design)
        probe(design, source, place_of_next(root), ~np.isin(design.axis.times, store.times))
        _write_successor(store, design_without, source, read_shards(root, store.manifest), scheduler)
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
            was made from (then the store is left as it is), or another process writes the store.
    """
    root = place_of(path)
    with hold(root):
        store = open_store(root)
        config = config or _config_of(store)
        if differences := differences_between(with_defaults(store.manifest["request"]), content_settings(config)):
            raise InputError(f"the store {root} was made with another {differences[0][0]}; give its own configuration")
        if not bad_files:
            return store
        refuse_fixed(root)
        source = source or open_config(config)

        def design_without(empty: np.ndarray) -> StoreDesign:
            design = with_masks(design_store(config, source, scheduler=scheduler, empty=empty), source)
            return dataclasses.replace(design, checked=_is_checked(store))

        _tell_source_changes(store, source)
        files = None if manifests.FILES in bad_files else read_files(root, store.manifest)
        records = {} if manifests.SHARDS in bad_files else read_shards(root, store.manifest)
        sound = {name: record for name, record in records.items() if not bad_files & record["files"].keys()}
        try:
            original = Original(root, store.manifest, files, frozenset(bad_files))
            _write_successor(store, design_without, source, sound, scheduler, original)
        except OtherValues:
            shutil.rmtree(place_of_next(root))
            raise
        successor = open_store(place_of_next(root))
        _refuse_foreign(root, read_files(successor.path, successor.manifest))
        swap(root)
        return open_store(root)


def _refuse_numbered(root: Path, source: SourceData) -> None:
    """Fields that are numbered anew where files come or go would stand at times of others."""
    if source.periods is not None:
        raise InputError(
            f"crops of pictures are counted through all files, and {root} has others at the same times: append cannot "
            "make it longer; prepare another store"
        )


def _refuse_foreign(root: Path, files: Mapping[str, Any]) -> None:
    """The whole folder of the store goes once its successor is there: nothing else may lie in it.

    A link in place of a folder of the store goes too, and what it leads to stays.
    """
    folders = {str(folder) for key in files for folder in Path(key).parents}
    found = [key for key in foreign_files(root, files) if not (key in folders and (root / key).is_symlink())]
    if foreign := [key for key in found if not Path(key).name.startswith(".")]:
        raise InputError(
            f"{some_of(foreign, 3)} in {root} {'are' if foreign[1:] else 'is'} no part of the store, and the "
            "folder is about to be replaced as a whole: move that elsewhere and start the same command again"
        )


def _write_successor(
    store: Store,
    design_without: Callable[[np.ndarray], StoreDesign],
    source: SourceData,
    records: Mapping[str, Record],
    scheduler: str | None,
    original: Original | None = None,
) -> None:
    """A finished store beside `store`; goes on with one that was interrupted."""
    known = _known_empty(store)
    design = design_without(known)
    successor, identity = place_of_next(store.path), identity_of(design, source)
    if _is_whole(successor, design, source, original):
        remove_journal(successor)
        return  # killed just before it took its place
    if successor.exists() and not is_begun_for(successor, identity, source.identity):
        shutil.rmtree(successor)  # for other settings or files, or what a kill left; the store has all that matters
    static = static_fields(design.config, source)
    journal = Journal(successor, identity, source.identity)

    def write(wanted: StoreDesign) -> None:
        writing = Writing(successor, wanted, source, static, journal, scheduler, original)
        begun, links = journal.records(own=True), Links(store.path, successor)
        fitting = ((task, records[task.name]) for task in writing.tasks.all() if task.name in records)
        journal.adopt(
            {
                task.name: record
                for task, record in fitting
                if task.name not in begun and record["inputs"] == task.inputs and links.make(record["files"])
            }
        )
        writing.run(warner(wanted))

    write_without_empty_times(journal, known, design_without, write)


def _is_checked(store: Store) -> bool:
    """Whether its chunks carry checksums, and those to come must too."""
    return "chunk_checksums" in store.manifest


def _known_empty(store: Store) -> np.ndarray:
    """[n] datetime64[s]: times that the source had no values of."""
    times = store.manifest["times"]
    return from_ranges(times.get("empty", []), times)


def _is_whole(successor: Path, design: StoreDesign, source: SourceData, original: Original | None) -> bool:
    """True when the successor is finished and sound, the one that is wanted, and of the files as they are."""
    if not (successor / manifests.NAME).is_file():
        return False
    try:
        store = open_store(successor)
        require_small_files(successor, store.manifest)
        same = original is None or (original.manifest == store.manifest and not _faults_among(store, original.damaged))
        return same and _is_up_to_date(store, design) and read_sources(successor, store.manifest) == source.identity
    except (InputError, Damaged):  # one that cannot be read is made anew
        return False


def _faults_among(store: Store, keys: Collection[str]) -> bool:
    """True when one of these files of a store is not as it was written: what was linked may have been damaged since."""
    listed = {key: entry for key, entry in store.files().items() if key in keys}
    return any(fault_of(path_inside(store.path, key), entry) for key, entry in listed.items())


def _config_of(store: Store) -> DataConfig:
    try:
        return DataConfig.model_validate({**store.manifest["request"], "store": str(store.path)})
    except ValidationError as error:
        raise InputError(
            f"the request in the manifest of {store.path} is none of this version ({error.errors()[0]['msg']}); give "
            "the run's YAML file"
        ) from None


def _tell_source_changes(store: Store, source: SourceData) -> None:
    """Warn of files of the source that were used before and are others now."""
    try:
        before = read_sources(store.path, store.manifest)
    except Damaged as error:
        _log.warning("it cannot be told whether files of the source changed since %s was made: %s", store.path, error)
        return
    changes = dataclasses.replace(changes_between(before, source.identity), new=())
    if changes:
        _log.warning(
            "files of the source changed since the store %s was made: %s. What the store keeps was read from them as "
            "they were; where their values were corrected, prepare it anew",
            store.path,
            changes,
        )


def _tell_work(store: Store, design: StoreDesign) -> None:
    before, times = store.manifest["times"], design.axis.times
    added = int((~np.isin(times, store.times)).sum())
    replaced = np.setdiff1d(from_ranges(before["preliminary"], before), times[design.preliminary])
    finals = f", {len(replaced)} preliminary ones to replace: {name_times(replaced)}" if len(replaced) else ""
    _log.info("%d times to add to %d%s", added, len(store.times), finals)


def _refuse_other_settings(store: Store, config: DataConfig) -> None:
    found = differences_between(with_defaults(store.manifest["request"]), content_settings(config))
    other = [
        key for key, _, now in found if not _of_sources(key).startswith(_MAY_CHANGE) and not _follows(key, now, store)
    ]
    if other:
        raise InputError(
            f"the store {store.path} was prepared with another {', '.join(other)}; append changes no more than period, "
            "splits, the names of files, and further parts of a chain that start after the store ends: restore the "
            "setting, or prepare another store"
        )


def _of_sources(key: str) -> str:
    """The setting of a source among several as if it were alone."""
    return re.sub(r"^(source\.parts\.\d+\.)+(?=source\.)", "", key)


def _follows(key: str, part: Any, store: Store) -> bool:
    """A source that begins after all that the store has (`kind: chain`)."""
    if not re.fullmatch(r"source\.(parts\.\d+\.source\.)*parts\.\d+", key) or not (
        isinstance(part, Mapping) and part.get("start")
    ):
        return False
    return bool(np.datetime64(part["start"]) > store.times[-1])


def _refuse_loss(store: Store, design: StoreDesign) -> None:
    lost = np.setdiff1d(store.times, design.axis.times)
    if len(lost):
        raise InputError(
            f"the store {store.path} has {len(lost)} times that the source or data.period no longer has: "
            f"{name_times(lost)}; append only adds: give the whole period, from {name_times(store.times[:1])} on"
        )
    if design.axis.step_hours != store.step_hours:
        raise InputError(
            f"the store has times every {store.step_hours}h, the source {design.axis.step_hours}h; set step"
        )
    if design.grid != store.grid:
        raise InputError(f"the store is on the grid {store.grid}, the source on {design.grid}; regrid to the store's")


def _is_up_to_date(store: Store, design: StoreDesign) -> bool:
    held = store.manifest
    return (
        np.array_equal(store.times, design.axis.times)
        and held["times"]["preliminary"] == to_ranges(design.axis.times[design.preliminary], design.axis.step_hours)
        and with_defaults(held["request"]) == content_settings(design.config)
    )
