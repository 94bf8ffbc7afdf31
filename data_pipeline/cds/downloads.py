"""The folder of what was downloaded: one GRIB file a request, kept as it came, and beside it a note of what it holds.

A file is put there only after it was read and holds everything that was asked. Its note is written first, with its
size: a note without its whole file counts for nothing, so whatever interrupts this, no part of a file is believed.
A file is never written over: where ERA5T is replaced by final ERA5, that comes into a new file beside the old one, and
a run that reads the old one goes on reading it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np

from weatherfm.data_pipeline.cds.held import Held, read_note, read_notes
from weatherfm.data_pipeline.cds.requests import Request
from weatherfm.data_pipeline.fields.time_axis import name_times
from weatherfm.data_pipeline.formats.files.paths import recognise
from weatherfm.data_pipeline.formats.grib.reader import index_grib
from weatherfm.data_pipeline.formats.meaning.names import NameRules
from weatherfm.data_pipeline.formats.pieces import Contents
from weatherfm.data_pipeline.machine.cache_folder import unwritable
from weatherfm.data_pipeline.source_config import FilesSource
from weatherfm.data_pipeline.store.records.manifest import seal
from weatherfm.errors import InputError
from weatherfm.file_errors import naming
from weatherfm.file_lock import FileLock
from weatherfm.file_lock import Held as LockHeld

REPLACED_KEPT = np.timedelta64(7, "D")
"""How long a file stays after another holds all of it as final ERA5: a run that began before may still read it."""

_ARRIVING = "arriving-"
_log = logging.getLogger(__name__)


class Spoilt(Exception):
    """What came is no whole GRIB file: asking again may help."""


@dataclass(frozen=True)
class Downloads:
    """The downloads in `folder`; several processes may read them, one at a time may add to them."""

    folder: Path

    def held(self, until: int | None = None) -> list[Held]:
        """Whole files, the newest first; with `until` (ns since 1970) only those that had arrived by then."""
        return read_notes(self.folder, until)

    def take(self, request: Request, came: str) -> Path:
        """Check what came and keep it as an answer to `request`; it is removed where it is not.

        Raises:
            Spoilt: it is no whole GRIB file.
            InputError: it is one, but lacks what was asked.
        """
        try:
            preliminary = _check(request, came)
        except (Spoilt, InputError):
            os.unlink(came)
            raise
        path = self._new_path(request)
        note = {
            "dataset": request.dataset,
            "request": request.body,
            "downloaded": str(datetime.now(UTC).date()),
            "arrived": time.time_ns(),
            "bytes": os.path.getsize(came),
            "preliminary": [str(one) for one in preliminary],
        }
        part = path.with_suffix(".part")
        with naming(part):
            part.write_text(json.dumps(seal(note), indent=1), encoding="utf-8")
        os.replace(part, f"{path}.json")
        os.replace(came, path)
        return path

    def _new_path(self, request: Request) -> Path:
        """A name that no whole file has."""
        number = 1
        while read_note(path := self.folder / f"{request.name}{f'-{number}' if number > 1 else ''}.grib") is not None:
            number += 1
        return path

    @contextmanager
    def arriving(self) -> Iterator[str]:
        """A folder inside for downloads under way, gone afterwards; what a killed process left goes too.

        Raises:
            InputError: another process is downloading into these, or they cannot be written to.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.folder, "downloads", error) from error
        lock = FileLock(self.folder / "lock")
        alone = self._take(lock)
        try:
            for left in self.folder.glob(f"{_ARRIVING}*") if alone else ():
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=_ARRIVING, ignore_cleanup_errors=True) as folder:
                yield folder
        finally:
            lock.release()

    def _take(self, lock: FileLock) -> bool:
        """True when this process has the folder for itself; False where its file system cannot tell."""

        def busy(holder: LockHeld) -> str:
            return (
                f"another process is downloading into {self.folder} ({holder}); wait for it, what it brings is not "
                "asked again, or choose another source.cache"
            )

        try:
            return lock.take_for(self.folder, busy, "start a second download into it")
        except OSError as error:
            raise unwritable(self.folder, "downloads", error) from error

    def remove_replaced(self, today: date) -> None:
        """Delete files all of whose fields have been here as final ERA5 for some time."""
        files = self.held()
        for number, old in enumerate(files):
            if len(old.preliminary) == len(old.times) and _is_replaced(old, files[:number], today):
                Path(f"{old.path}.json").unlink()
                old.path.unlink()
                _log.info("%s is replaced by final ERA5 and deleted", old.path)


def _is_replaced(old: Held, newer: Sequence[Held], today: date) -> bool:
    """True when newer files of some age hold all of it, as final fields."""
    before = np.datetime64(today, "ns") - REPLACED_KEPT
    aged = [one for one in newer if one.place == old.place and np.datetime64(one.arrived, "ns") <= before]
    for channel in old.channels:
        final = [np.setdiff1d(one.times, one.preliminary) for one in aged if channel in one.channels]
        if not final or len(np.setdiff1d(old.times, np.concatenate(final))):
            return False
    return True


def index_download(path: str, channels: Sequence[str]) -> Contents:
    """What a GRIB file of the store's holds of these channels.

    Raises:
        InputError: truncated or damaged (without the file's name).
    """
    return index_grib(path, NameRules(FilesSource(kind="files", paths=[path])), channels)


def _check(request: Request, path: str) -> np.ndarray:
    """[time] datetime64[s] of the fields in a file that are preliminary; the file holds all that was asked."""
    try:
        if (format := recognise(path)) != "grib":
            raise Spoilt(f"{request.label}: a {format} file came instead of GRIB")
        contents = index_download(path, request.channels)
    except InputError as error:
        raise Spoilt(f"{request.label}: what came is no whole GRIB file: {error}") from error
    preliminary: list[np.datetime64] = []
    for channel in request.channels:
        slots = [piece.slots for piece in contents.pieces if piece.channel == channel]
        grids = [piece.orientation.grid for piece in contents.pieces if piece.channel == channel]
        if not slots:
            others = ", ".join(contents.others[:5]) or "nothing known"
            raise InputError(f"{request.label}: asked was {channel}, what came holds {others}; report this")
        if any(grid != request.box.grid for grid in grids):
            raise InputError(f"{request.label}: asked was a grid of {request.box.grid}, what came is on {grids[0]}")
        _check_times(request, channel, np.concatenate([slot.times for slot in slots]))
        preliminary += [time for slot in slots for time in slot.times[slot.preliminary]]
    return np.unique(np.array(preliminary, "datetime64[s]"))


def _check_times(request: Request, channel: str, times: np.ndarray) -> None:
    lacking = np.setdiff1d(request.times, times)
    if not len(lacking):
        return
    before: Sequence[np.datetime64] = request.times[request.times < lacking[0]]
    end = f"; end data.period on {before[-1].astype('datetime64[D]')} or before" if len(before) else ""
    raise InputError(
        f"{request.label}: the Climate Data Store has no {channel} yet for {len(lacking)} of {len(request.times)} "
        f"times ({name_times(lacking)}): ERA5 comes five days behind the present{end}"
    )
