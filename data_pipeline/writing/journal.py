"""What is done of an unfinished store, so that an interrupted `prepare` goes on where it stopped.

Every file reaches its place by an atomic rename, and only then a record with its checksum is written. A file
without a record is written again (with the same bytes); a record whose file is not there in its size, or that was
itself changed, is forgotten. What is to be read again is compared by its checksum too.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from weatherfm.data_pipeline.store.records.manifest import PROGRESS, canonical_json, entry_of, file_checksum
from weatherfm.data_pipeline.store.records.record_checks import (
    Damaged,
    check_record,
    check_records,
    differences_between,
    path_inside,
    read_with_checksum,
    with_checksum,
)
from weatherfm.data_pipeline.store.records.source_files import changes_between, check_sources
from weatherfm.errors import InputError
from weatherfm.file_errors import naming

_log = logging.getLogger(__name__)
Record = dict[str, Any]
"""`files`: path in the store -> {sha256, bytes}; `payload`: what else the task found out; `inputs`: fingerprint of what
it worked from."""
_REQUEST, _SOURCES, _ADOPTED = f"{PROGRESS}/request", f"{PROGRESS}/sources", f"{PROGRESS}/adopted"
_EMPTY = f"{PROGRESS}/empty"


def write_file(root: Path, key: str, content: bytes) -> dict[str, Any]:
    """Put `content` at `root/key` so that the file is there whole or not at all; returns its checksum and size.

    Raises:
        InputError: the disk is full, or a link is on the way.
    """
    temporary = path_inside(root, f"{PROGRESS}/temporary/{uuid.uuid4().hex}")
    target = path_inside(root, key)
    with disk_errors(target, len(content)):
        temporary.parent.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    return entry_of(content)


@contextmanager
def disk_errors(target: Path, n_bytes: int) -> Iterator[None]:
    """Around writing `n_bytes` to `target`.

    Raises:
        InputError: the disk or a quota is full, or no file may be so large.
    """
    try:
        with naming(target):
            yield
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise InputError(
                f"{target} has {n_bytes} bytes, and the file system or a limit (ulimit -f) lets no file be that large; "
                "lift the limit, or choose another place"
            ) from error
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"no space left for {target} ({n_bytes} bytes); free some and start the same command again: "
            "what is written is kept"
        ) from error


def write_record(root: Path, task: str, files: Mapping[str, Mapping[str, Any]], payload: Any, inputs: str) -> None:
    """Say that a task is done; call it last."""
    record = {"files": files, "payload": payload, "inputs": inputs}
    write_file(root, f"{PROGRESS}/done/{task}", with_checksum(record))


class Journal:
    """The journal of one store, which the caller holds (`swap.hold`).

    Args:
        root: folder of the store, made if need be.
        identity: what must be the same for the work to go on.
        sources: name -> identity of each file of the source; they must be the same too.

    Raises:
        InputError: the folder holds something else, or an unfinished store of other settings or other files.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any], sources: Mapping[str, str]) -> None:
        self.root = root
        self.folder = path_inside(root, PROGRESS)
        if root.exists() and not root.is_dir():
            raise InputError(f"{root} is a file; choose another store or remove it")
        if not self.folder.exists() and root.exists() and any(root.iterdir()):
            raise InputError(f"{root} holds something else than a store; choose another folder or empty it")
        with disk_errors(self.folder, 0):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._check_sources(sources)
        self._check_identity(json.loads(canonical_json(identity)))
        shutil.rmtree(path_inside(root, f"{PROGRESS}/temporary"), ignore_errors=True)

    def adopt(self, records: Mapping[str, Record]) -> None:
        """Take over at once the records of tasks whose files another store wrote, in place of those adopted before."""
        write_file(self.root, _ADOPTED, with_checksum(records))

    def records(self, own: bool = False) -> dict[str, Record]:
        """All records by the name of their task; those that were changed are forgotten.

        Args:
            own: only those of tasks that were done for this store.
        """
        records: dict[str, Record] = {}
        if not own:
            records |= self._read(path_inside(self.root, _ADOPTED), check_records) or {}
        folder = path_inside(self.root, f"{PROGRESS}/done")
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if (record := self._read(path, check_record)) is not None:
                records[path.name] = record
        return records

    def sound_records(self, to_read: Callable[[Mapping[str, Record]], Iterable[str]]) -> dict[str, Record]:
        """The records whose files are still there; others are forgotten, and their tasks done again.

        Args:
            to_read: of the records that are there, the names of those whose files will be read: these files are judged
                by their checksums, all others by their sizes.
        """
        records = self._judged(self.records(), self._has_size)
        chosen = {name: records[name] for name in to_read(records)}
        sound = self._judged(chosen, self._has_checksum)
        return {name: record for name, record in records.items() if name not in chosen or name in sound}

    def empty_times(self) -> np.ndarray:
        """[n] datetime64[s], ascending: times that were found to have no values."""
        if not (self.root / _EMPTY).exists():
            return np.zeros(0, "datetime64[s]")
        return np.array(self._note(_EMPTY), "datetime64[s]")

    def note_empty(self, times: np.ndarray) -> None:
        """Add to them: the store is to be written without these times, also when this run is interrupted."""
        known = np.union1d(self.empty_times(), times.astype("datetime64[s]"))
        write_file(self.root, _EMPTY, with_checksum(known.astype(str).tolist()))

    def forget_others(self, inputs: Mapping[str, str]) -> None:
        """Drop the records, and the files, of all tasks but these: name -> fingerprint of what each works from.

        After a time was left out all later ones have moved, and with them what their shards hold.
        """
        for name, record in self.records(own=True).items():
            if inputs.get(name) != record["inputs"]:
                (self.folder / "done" / name).unlink()
                for key in record["files"]:
                    path_inside(self.root, key).unlink(missing_ok=True)

    def _judged(self, records: dict[str, Record], fits: Callable[[Path, Mapping[str, Any]], bool]) -> dict[str, Record]:
        plain: set[str] = set()

        def is_sound(record: Record) -> bool:
            return all(self._fits(key, entry, fits, plain) for key, entry in record["files"].items())

        with ThreadPoolExecutor() as pool:
            sound = dict(zip(records, pool.map(is_sound, records.values()), strict=True))
        for name in [name for name, fine in sound.items() if not fine]:
            (self.folder / "done" / name).unlink(missing_ok=True)
        return {name: record for name, record in records.items() if sound[name]}

    def _fits(
        self, key: str, entry: Mapping[str, Any], fits: Callable[[Path, Mapping[str, Any]], bool], plain: set[str]
    ) -> bool:
        file = path_inside(self.root, key, plain)
        try:
            if fits(file, entry):
                return True
        except FileNotFoundError:
            pass  # as a file that was changed
        _log.warning("%s changed since it was written; writing it again", file)
        return False

    @staticmethod
    def _has_size(file: Path, entry: Mapping[str, Any]) -> bool:
        found = file.lstat()
        return stat.S_ISREG(found.st_mode) and found.st_size == entry["bytes"]

    @staticmethod
    def _has_checksum(file: Path, entry: Mapping[str, Any]) -> bool:
        return file_checksum(file) == entry["sha256"]

    def _read(self, path: Path, check: Callable[[object], Any]) -> Any:
        """A record of this journal; None where there is none, or one that was changed, which is removed."""
        try:
            return check(read_with_checksum(path))
        except FileNotFoundError:
            return None
        except Damaged as error:
            _log.warning("%s was changed since it was written (%s); doing its work again", path, error)
            path.unlink()
            return None

    def _check_sources(self, sources: Mapping[str, str]) -> None:
        if not (self.root / _REQUEST).exists():
            write_file(self.root, _SOURCES, with_checksum(sources))
        elif changes := changes_between(check_sources(self._note(_SOURCES)), sources):
            raise InputError(
                f"files of the source are not those that the store {self.root} was begun with: {changes}. What is "
                "written came from the files as they were: restore them, or delete this unfinished store and prepare "
                "anew"
            )

    def _check_identity(self, identity: Any) -> None:
        if not (self.root / _REQUEST).exists():
            write_file(self.root, _REQUEST, with_checksum(identity))
        else:
            refuse_other_settings(self.root, self._note(_REQUEST), identity, "was begun")

    def _note(self, key: str) -> Any:
        try:
            return read_with_checksum(path_inside(self.root, key))
        except (OSError, Damaged) as error:
            raise InputError(
                f"{self.root / key} is damaged ({error}), so that nobody knows what the unfinished store is of; delete "
                f"{self.root} and prepare anew"
            ) from None


def is_begun_for(root: Path, identity: Mapping[str, Any], sources: Mapping[str, str]) -> bool:
    """True when the unfinished store `root` was begun for this, so that a `Journal` of it goes on."""
    wanted = {_REQUEST: json.loads(canonical_json(identity)), _SOURCES: dict(sources)}
    try:
        return all(read_with_checksum(path_inside(root, key)) == value for key, value in wanted.items())
    except (OSError, Damaged):
        return False


def was_begun_without(root: Path, key: str) -> bool:
    """True when an older version has begun the unfinished store `root`, whose identity did not have this key yet."""
    try:
        held = read_with_checksum(path_inside(root, _REQUEST))
    except (OSError, Damaged):  # not begun, or told when the journal is opened
        return False
    return isinstance(held, dict) and key not in held


def remove_journal(root: Path) -> None:
    """Drop the journal of a finished store, also one left by a kill right after the manifest."""
    if (folder := path_inside(root, PROGRESS)).exists():
        shutil.rmtree(folder)


def refuse_other_settings(
    root: Path, held: Mapping[str, Any], wanted: Mapping[str, Any], how: str, remedy: str | None = None
) -> None:
    """Nothing when both are equal.

    Raises:
        InputError: names each setting that differs.
    """
    differences = [
        f"{key} {_short(before)}, now {_short(now)}"
        for key, before, now in differences_between(held, json.loads(canonical_json(wanted)))
    ]
    if differences:
        raise InputError(
            f"the store {root} {how} with other settings: {'; '.join(differences)}. "
            f"{f'{remedy}; else c' if remedy else 'C'}hoose another store, delete this one, or restore the settings"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
