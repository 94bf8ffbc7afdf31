"""The folder of what was downloaded: one GRIB file a request, kept as it came, and beside it a note of what it holds.

A file is put there only after it was read and holds everything that was asked; the note is written last. So a file with
a note is whole, whatever interrupted the rest.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np

from weatherfm.data_pipeline.cds.requests import Request
from weatherfm.data_pipeline.formats.grib import index_grib
from weatherfm.data_pipeline.formats.names import NameRules
from weatherfm.data_pipeline.formats.paths import recognise
from weatherfm.data_pipeline.source_config import FilesSource
from weatherfm.data_pipeline.time_axis import name_times
from weatherfm.errors import InputError

FINAL_AFTER = np.timedelta64(92, "D")
"""ECMWF replaces ERA5T by final ERA5 two to three months after its day."""

_ARRIVING = "arriving-"
_log = logging.getLogger(__name__)


class Spoilt(Exception):
    """What came is no whole GRIB file: asking again may help."""


@dataclass(frozen=True, eq=False)
class _Note:
    """What is kept beside a file."""

    downloaded: np.datetime64
    """Day, UTC."""
    preliminary: np.ndarray
    """[time] datetime64[s] of the fields that are ERA5T."""


@dataclass(frozen=True)
class Downloads:
    """The downloads in `folder`; several processes may read them, one at a time may add to them."""

    folder: Path

    def path(self, request: Request) -> Path:
        """Where the answer to a request is or will be."""
        return self.folder / request.name

    def holds(self, request: Request, today: date | None = None) -> bool:
        """True when the answer is here and final ERA5 cannot have come since.

        Args:
            request: asked for.
            today: UTC, for tests.
        """
        note = self._note(request)
        if note is None or not len(note.preliminary):
            return note is not None
        final = note.preliminary.max().astype("datetime64[D]") + FINAL_AFTER
        return bool(not note.downloaded < final <= np.datetime64(today or datetime.now(UTC).date()))

    def preliminary(self, request: Request) -> np.ndarray:
        """[time] datetime64[s] of the fields that are ERA5T; empty also where nothing is here yet."""
        note = self._note(request)
        return np.array([], "datetime64[s]") if note is None else note.preliminary

    def take(self, request: Request, came: str) -> None:
        """Check what came and keep it as the answer to `request`; it is removed where it is not.

        Raises:
            Spoilt: it is no whole GRIB file.
            InputError: it is one, but lacks what was asked.
        """
        try:
            preliminary = _check(request, came)
        except (Spoilt, InputError):
            os.unlink(came)
            raise
        os.replace(came, self.path(request))
        note = {
            "dataset": request.dataset,
            "request": request.body,
            "downloaded": str(datetime.now(UTC).date()),
            "bytes": self.path(request).stat().st_size,
            "preliminary": [str(time) for time in preliminary],
        }
        part = self._note_path(request).with_suffix(".part")
        part.write_text(json.dumps(note, indent=1), encoding="utf-8")
        os.replace(part, self._note_path(request))

    def adopt(self, request: Request) -> bool:
        """True when a file without a note, as a kill may leave it, turns out to be the answer."""
        path = self.path(request)
        if self._note_path(request).exists() or not path.exists():
            return False
        try:
            self.take(request, str(path))
        except (Spoilt, InputError):
            return False
        return True

    @contextmanager
    def arriving(self) -> Iterator[str]:
        """A folder inside for downloads under way, gone afterwards; what a killed process left goes too.

        Raises:
            InputError: another process is downloading into these, or they cannot be written to.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR)
        except OSError as error:
            raise InputError(f"downloads cannot be kept in {self.folder} ({error}); choose source.cache") from error
        try:
            self._take_lock(lock)
            for left in self.folder.glob(f"{_ARRIVING}*"):
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=_ARRIVING, ignore_cleanup_errors=True) as folder:
                yield folder
        finally:
            os.close(lock)

    def _take_lock(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another process is downloading into {self.folder}; wait for it or choose another source.cache"
            ) from None
        except OSError as error:  # some network file systems have no locks
            _log.warning("cannot lock %s (%s): do not start a second download into it", self.folder, error)

    def _note_path(self, request: Request) -> Path:
        return self.folder / f"{request.name}.json"

    def _note(self, request: Request) -> _Note | None:
        """The note of a file that is here whole."""
        try:
            told = json.loads(self._note_path(request).read_bytes())
            if self.path(request).stat().st_size != told["bytes"]:
                return None
            return _Note(np.datetime64(told["downloaded"], "D"), np.array(told["preliminary"], "datetime64[s]"))
        except (OSError, ValueError, KeyError):
            return None


def _check(request: Request, path: str) -> np.ndarray:
    """[time] datetime64[s] of the fields in a file that are preliminary; the file holds all that was asked."""
    rules = NameRules(FilesSource(kind="files", paths=[path]))
    try:
        if (format := recognise(path)) != "grib":
            raise Spoilt(f"{request.label}: a {format} file came instead of GRIB")
        contents = index_grib(path, rules, request.channels)
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
