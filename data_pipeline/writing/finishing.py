"""The last step of a store: its records, and then the manifest that says that it is finished."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weatherfm.data_pipeline.design.store_design import StoreDesign
from weatherfm.data_pipeline.store.records.manifest import (
    FILES,
    NAME,
    RECORDS,
    SHARDS,
    SOURCES,
    canonical_json,
    entry_of,
    to_bytes,
)
from weatherfm.data_pipeline.store.records.source_files import record_of_sources
from weatherfm.data_pipeline.writing.journal import Record, remove_journal, write_file
from weatherfm.data_pipeline.writing.new_manifest import build_manifest
from weatherfm.errors import InputError

if TYPE_CHECKING:
    from weatherfm.data_pipeline.fields.source_data import SourceData


class OtherValues(InputError):
    """A source gave other values than those that a store was made from."""


@dataclass(frozen=True)
class Original:
    """A store to be made again with the same bytes."""

    path: Path
    manifest: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]] | None
    """None where the list of its files is damaged."""
    damaged: frozenset[str]
    """Keys of the files for which it is made again."""


def finish(
    root: Path,
    design: StoreDesign,
    source: SourceData,
    files: Mapping[str, Mapping[str, Any]],
    records: Mapping[str, Record],
    original: Original | None,
) -> None:
    """Write the records and the manifest of a store whose arrays are written, and drop the journal.

    Args:
        root: folder of the store.
        design: of it.
        source: where its fields came from.
        files: key -> {`sha256`, `bytes`} of all that is written.
        records: of all tasks.
        original: what the store must agree with, byte by byte; it then has the manifest of that one.

    Raises:
        OtherValues: it does not.
    """
    listed = dict(files)
    for record in records.values():
        listed |= record["files"]
    contents = {
        FILES: canonical_json(dict(sorted(listed.items()))).encode(),
        SHARDS: canonical_json(dict(sorted(records.items()))).encode(),
    }
    entries = {name: entry_of(contents[name]) for name in RECORDS}
    if original is None:
        manifest: Mapping[str, Any] = build_manifest(
            design, source, entries, {key: files[key] for key in sorted(files)}
        )
        content = to_bytes(manifest)
    else:
        _refuse_other_values(original, listed, entries)
        manifest, content = original.manifest, (original.path / NAME).read_bytes()
    for name, record_content in contents.items():
        write_file(root, name, record_content)
    write_file(root, SOURCES, record_of_sources(source.identity, manifest["checksum"]))
    write_file(root, NAME, content)
    remove_journal(root)


def _refuse_other_values(
    original: Original, files: Mapping[str, Mapping[str, Any]], records: Mapping[str, Mapping[str, Any]]
) -> None:
    if records == original.manifest["records"]:
        return
    held = original.files if original.files is not None else files
    differing = {key for key in held.keys() | files.keys() if held.get(key) != files.get(key)}
    differing |= {name for name in RECORDS if records[name] != original.manifest["records"][name]}
    other = sorted(differing, key=lambda key: (not key.startswith(("state/", "climatology/")), key in RECORDS, key))
    raise OtherValues(
        f"the source gives other values today than when the store {original.path} was made: {', '.join(other[:5])} "
        f"would differ ({len(other)} files); the store is left as it is: prepare it anew, or restore the source"
    )
