"""What is done of an unfinished store, so that an interrupted `prepare` goes on where it stopped.

Every file reaches its place by an atomic rename, and only then a record with its checksum is written. A file
without a record is written again (with the same bytes); a record whose file does not match it is forgotten.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from weatherfm.data_pipeline.manifest import NAME, PROGRESS, canonical_json, checksum, file_checksum
from weatherfm.errors import InputError
from weatherfm.file_lock import FileLock, Held

_log = logging.getLogger(__name__)
Record = dict[str, Any]
"""`files`: path in the store -> {sha256, bytes}; `payload`: what else the task found out; `inputs`: fingerprint of what
it worked from."""


def write_file(root: Path, key: str, content: bytes) -> dict[str, Any]:
    """Put `content` at `root/key` so that the file is there whole or not at all; returns its checksum and size.

    Raises:
        InputError: the disk is full.
    """
    temporary = root / PROGRESS / "temporary" / uuid.uuid4().hex
    target = root / key
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"no space left for {target} ({len(content)} bytes); free some and start the same prepare again: "
            "what is written is kept"
        ) from error
    return {"sha256": checksum(content), "bytes": len(content)}


def write_record(root: Path, task: str, files: Mapping[str, Mapping[str, Any]], payload: Any, inputs: str) -> None:
    """Say that a task is done; call it last."""
    record = {"files": files, "payload": payload, "inputs": inputs}
    write_file(root, f"{PROGRESS}/done/{task}.json", canonical_json(record).encode())


class Journal:
    """The journal of one store; a context manager that keeps a second `prepare` out.

    Raises:
        InputError: the folder holds something else, an unfinished store of another request, or is in use.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any]) -> None:
        self.root = root
        self.folder = root / PROGRESS
        self._identity = json.loads(canonical_json(identity))
        self._lock = FileLock(self.folder / "lock")

    def __enter__(self) -> Journal:
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"{self.root} is a file; choose another store or remove it")
        if not self.folder.exists() and self.root.exists() and any(self.root.iterdir()):
            raise InputError(f"{self.root} holds something else than a store; choose another folder or empty it")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            self._check_identity()
        except BaseException:
            self._lock.release()
            raise
        shutil.rmtree(self.folder / "temporary", ignore_errors=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def records(self) -> dict[str, Record]:
        """All records by the name of their task."""
        return {path.stem: json.loads(path.read_bytes()) for path in sorted((self.folder / "done").glob("*.json"))}

    def sound_records(self) -> dict[str, Record]:
        """The records whose files are still as written, judged by their checksums; others are forgotten."""
        records = self.records()
        with ThreadPoolExecutor() as pool:
            sound = dict(zip(records, pool.map(self._is_sound, records.values()), strict=True))
        for name in [name for name, fine in sound.items() if not fine]:
            (self.folder / "done" / f"{name}.json").unlink()
            del records[name]
        return records

    def _is_sound(self, record: Record) -> bool:
        for key, expected in record["files"].items():
            file = self.root / key
            if not file.is_file() or file_checksum(file) != expected["sha256"]:
                _log.warning("%s changed since it was written; writing it again", file)
                return False
        return True

    def finish(self, manifest: bytes) -> None:
        """Write the manifest, which makes the store a finished one, and drop the journal."""
        write_file(self.root, NAME, manifest)
        remove_journal(self.root)

    def _check_identity(self) -> None:
        file = self.folder / "request.json"
        if not file.exists():
            write_file(self.root, f"{PROGRESS}/request.json", canonical_json(self._identity).encode())
            return
        refuse_other_request(self.root, json.loads(file.read_bytes()), self._identity, "was begun")

    def _take_lock(self) -> None:
        try:
            self._lock.take()
        except Held:
            raise InputError(f"another prepare is writing {self.root}; wait for it or choose another store") from None
        except OSError as error:  # some network file systems have no locks
            _log.warning("cannot lock %s (%s): do not start a second prepare on it", self.root, error)


def refuse_in_use(root: Path) -> None:
    """Nothing when no process is writing the unfinished store `root`.

    Raises:
        InputError: one is.
    """
    journal = Journal(root, {})
    journal._take_lock()
    journal._lock.release()


def remove_journal(root: Path) -> None:
    """Drop the journal of a finished store, also one left by a kill right after the manifest."""
    if (root / PROGRESS).exists():
        shutil.rmtree(root / PROGRESS)


def refuse_other_request(
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


def differences_between(held: Any, wanted: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, before, now) of everything that differs between two nested dicts."""
    if not (isinstance(held, dict) and isinstance(wanted, dict)):
        return [] if held == wanted else [(prefix.rstrip("."), held, wanted)]
    keys = sorted(held.keys() | wanted.keys())
    return [found for key in keys for found in differences_between(held.get(key), wanted.get(key), f"{prefix}{key}.")]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
