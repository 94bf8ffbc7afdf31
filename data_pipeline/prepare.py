"""Source -> store, or what is missing of one that was interrupted."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weatherfm.data_pipeline.design.probe import probe
from weatherfm.data_pipeline.design.store_design import StoreDesign, design_store
from weatherfm.data_pipeline.fields.masks import Masks, find_masks
from weatherfm.data_pipeline.fields.spread import doubts_about_spread, doubts_about_values
from weatherfm.data_pipeline.machine.disk import check_download
from weatherfm.data_pipeline.store.records import manifest as manifests
from weatherfm.data_pipeline.store.records.swap import hold, place_of, place_of_last, remove_left_lock
from weatherfm.data_pipeline.store.statistics import ChannelStatistics
from weatherfm.data_pipeline.store.training_store import Store, open_store
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.data_pipeline.writing.journal import Journal, refuse_other_settings, remove_journal, was_begun_without
from weatherfm.data_pipeline.writing.new_manifest import content_settings, with_defaults
from weatherfm.data_pipeline.writing.without_empty_times import NO_TIMES, write_without_empty_times
from weatherfm.data_pipeline.writing.writer import Writing
from weatherfm.errors import InputError

if TYPE_CHECKING:
    from weatherfm.data_pipeline.fields.source_data import SourceData

_log = logging.getLogger(__name__)


def prepare(
    config: DataConfig,
    source: SourceData | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    memory: int | None = None,
) -> Store:
    """Write the store that `config` describes, or go on with one that was interrupted.

    An interrupted run that is started again ends with the same bytes as one that was not. A finished store is
    left alone.

    Args:
        config: what to read, keep and call training days.
        source: where to read from; without it, what `config.source` names.
        scheduler: address of a dask.distributed scheduler; without it, threads of this process write.
        workers: most shards to write at a time; without it, one a CPU core.
        memory: bytes that data may take; without it, half of what is available to the process.

    Raises:
        InputError: the source or the config cannot work, a value is not finite, the store holds something else
            or is of other settings, or the disk is full.
    """
    root = place_of(config.store)
    if _is_finished(root) and not (root / manifests.PROGRESS).exists() and not place_of_last(root).exists():
        remove_left_lock(root)
        return _finished(root, config)  # without a lock: many processes may ask at once, and it may be read-only
    with hold(root):
        if _is_finished(root):  # by another process, while this one waited
            store = _finished(root, config)
            remove_journal(root)
            return store
        source = source or open_config(config)
        design = design_store(config, source, workers, memory, scheduler)
        static = static_fields(config, source)
        probe(design, source, root)
        design = replace(with_masks(design, source), checked=not was_begun_without(root, "chunk_checksums"))
        journal = Journal(root, identity_of(design, source), source.identity)

        def without(empty: np.ndarray) -> StoreDesign:
            wanted = design_store(config, source, workers, memory, scheduler, empty) if len(empty) else design
            return replace(wanted, masks=design.masks, checked=design.checked)

        def write(wanted: StoreDesign) -> None:
            Writing(root, wanted, source, static, journal, scheduler).run(warner(wanted))

        write_without_empty_times(journal, NO_TIMES, without, write)
        return open_store(root)


def _is_finished(root: Path) -> bool:
    return (root / manifests.NAME).is_file()


def _finished(root: Path, config: DataConfig) -> Store:
    store = open_store(root)
    held = with_defaults(store.manifest["request"])
    refuse_other_settings(root, held, content_settings(config), "was prepared", "`weatherfm append` makes it longer")
    _log.info("the store %s is finished; nothing to do", root)
    return store


def open_config(config: DataConfig) -> SourceData:
    """What `config.source` names, brought to this machine; each source brings its own readers, imported now."""
    from weatherfm.data_pipeline.sources import open_source

    source = open_source(config)
    if source.fetch is None:
        return source
    design = design_store(config, source)  # refuses what cannot work before anything is moved
    if source.download_folder is not None:
        root = Path(config.located().store)
        check_download(Path(source.download_folder), source.download_bytes, root, design.bytes_before_compression)
    source.fetch()
    return open_source(config)  # it can tell more now, as which fields are preliminary


def with_masks(design: StoreDesign, source: SourceData) -> StoreDesign:
    """The design with the masks that the source's first time shows.

    Raises:
        InputError: a channel without any value, or other masks where another source goes on.
    """
    indices, channels = design.axis.indices, design.config.channels
    masks = find_masks(channels, source, int(indices[0]))
    for begin in source.begins:
        behind = int(np.searchsorted(indices, begin))
        if 0 < behind < len(indices):
            later = find_masks(channels, source, int(indices[behind]))
            _refuse_other_masks(masks, later, design.axis.times[behind])
    return replace(design, masks=masks)


def _refuse_other_masks(masks: Masks, later: Masks, time: np.datetime64) -> None:
    for name in {**masks, **later}:
        one, two = masks.get(name), later.get(name)
        if one is None or two is None or not np.array_equal(one, two):
            count = [0 if mask is None else int(mask.sum()) for mask in (one, two)]
            raise InputError(
                f"{name} lacks {count[0]} points at the first time and {count[1]}, not all the same, from {time} on, "
                "where the next part of the source begins: a channel has one mask; leave it out, or that part"
            )


def identity_of(design: StoreDesign, source: SourceData) -> dict[str, Any]:
    """What must be the same for an interrupted run to go on."""
    times = design.axis.times.astype(np.int64)
    return {
        "format_version": manifests.FORMAT_VERSION,
        "request": content_settings(design.config),
        "source": {"simulated": source.simulated, "attributes": source.attributes},
        **({"chunk_checksums": manifests.CHUNK_CHECKSUMS} if design.checked else {}),
        "grid": design.grid.to_dict(),
        "times": {"count": len(times), "first": int(times[0]), "checksum": manifests.checksum(times.tobytes())},
        "preliminary": manifests.checksum(design.preliminary.tobytes()),
        **(
            {"masks": {name: manifests.checksum(np.packbits(m).tobytes()) for name, m in design.masks.items()}}
            if design.masks
            else {}
        ),
    }


def static_fields(config: DataConfig, source: SourceData) -> np.ndarray | None:
    """[static, lat, lon] in the config's order.

    Raises:
        InputError: a value is not finite.
    """
    if not config.static:
        return None
    assert source.static is not None  # design_store has looked
    fields = source.static.sel(static=list(config.static)).transpose("static", "latitude", "longitude")
    values = np.asarray(fields.values, np.float32)
    if bad := [name for name, field in zip(config.static, values, strict=True) if not np.isfinite(field).all()]:
        raise InputError(
            f"static fields {', '.join(bad)} hold values that are not finite; mend the source or leave them out"
        )
    return values


def warner(design: StoreDesign) -> Any:
    """A function of the statistics of state and tendency that warns of channels no model can train on, or should."""

    def warn(state: ChannelStatistics, tendency: ChannelStatistics) -> None:
        texts = doubts_about_spread(
            design.config.channels, state.std, tendency.std, state.minimum, state.maximum, design.tendency_lead,
            design.config.log_scales,
        )  # fmt: skip
        for text in (*texts, *doubts_about_values(design.config.channels, state.minimum, state.maximum)):
            _log.warning("%s", text)
        if not tendency.count.any():
            _log.warning(
                "no two training times are %dh apart: tendency_std is NaN, and no model can train on this store",
                design.tendency_lead,
            )

    return warn
