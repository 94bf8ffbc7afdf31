"""Headers of GRIB files, kept in a folder beside the store: a second run over 60,000 files does not read them again.

One file for all, of which lines are only ever appended, each with its checksum: what a kill cut short, what another
version wrote and what belongs to a file that has changed since is read again. Nothing but time is lost with the folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import zlib
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from weatherfm.data_pipeline.formats.files.identity import Stamp
from weatherfm.data_pipeline.formats.grib.codes import eccodes
from weatherfm.data_pipeline.formats.grib.grid import Axes
from weatherfm.data_pipeline.formats.grib.headers import Header
from weatherfm.data_pipeline.formats.grib.index import GribIndex, read_grib_index

_log = logging.getLogger(__name__)
_FORMAT = 3
_WORTH = 2000
"""Fields whose headers take about a second to read: fewer are not kept."""

_FOREIGN = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""What content of another form raises."""
_KINDS: dict[str, Any] = {"str": str, "int": int, "float": int | float, "Axes": Axes}


class KeptIndex:
    """Indexes of GRIB files by path, size and time of change; threads may use it side by side.

    Args:
        store: the folder beside which they are kept; None keeps nothing.
    """

    def __init__(self, store: Path | None) -> None:
        self._file = None if store is None else file_beside(store)
        self._lock = threading.Lock()
        self._known: dict[str, tuple[list[int], dict[str, Any]]] = {}
        self._headers: dict[str, Header] = {}
        self._axes: dict[str, Axes] = {}
        self._names: dict[Header, str] = {}
        self._new: list[tuple[str, list[int], GribIndex]] = []
        if self._file is not None and self._file.parent.is_symlink():
            self._file = None  # nothing is kept through a link
        if self._file is not None and self._file.is_file() and not self._file.is_symlink():
            self._load(self._file.read_bytes())

    def grib(self, path: str, stamp: Stamp | None) -> GribIndex:
        """The index of the file with this stamp; read from it where it is not kept, or where the file changed since.

        Raises:
            InputError: as of `read_grib_index`.
        """
        said = list(stamp or ())
        kept = self._known.get(os.path.abspath(path))
        if kept is not None and kept[0] == said and (index := self._restored(kept[1])) is not None:
            return index
        index = read_grib_index(path)
        with self._lock:
            self._new.append((os.path.abspath(path), said, index))
        return index

    def save(self) -> None:
        """Append what was read anew, if that took long enough to be worth it and there is a place for it."""
        if self._file is None or sum(len(index.kind) for _, _, index in self._new) < _WORTH:
            return
        lines: list[bytes] = []
        for path, stamp, index in self._new:
            names = [self._named(header, lines) for header in index.headers]
            columns = [index.kind, index.dates.astype(np.int64), index.offsets, index.lengths, index.numbers]
            record = {"headers": names, "columns": [column.tolist() for column in columns]}
            lines.append(_line({"file": path, "stamp": stamp, "index": record}))
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            with open(handle, "ab") as file:
                file.write(b"\n" + b"".join(lines))  # after what a kill may have cut short
        except OSError as error:
            _log.warning("the index of %d GRIB files is not kept in %s: %s", len(self._new), self._file.parent, error)
        self._new = []

    def _load(self, content: bytes) -> None:
        for line in content.split(b"\n"):
            with suppress(*_FOREIGN):  # a line of another's making: what it would tell is read again
                self._take(_record(line))

    def _take(self, record: dict[str, Any]) -> None:
        if "name" in record and record["name"] != _name_of(record["axes" if "axes" in record else "header"]):
            return
        if "axes" in record:
            self._axes[record["name"]] = _axes(record["axes"])
        elif "header" in record and record["header"]["axes"] in self._axes:
            header = Header(**{**record["header"], "axes": self._axes[record["header"]["axes"]]})
            if any(not isinstance(getattr(header, one.name), _KINDS[str(one.type)]) for one in fields(Header)):
                return
            self._headers[record["name"]], self._names[header] = header, record["name"]
        elif "file" in record:
            self._known[record["file"]] = record["stamp"], dict(record["index"])

    def _restored(self, record: dict[str, Any]) -> GribIndex | None:
        """None where it, or a line with one of its headers, is not what was written."""
        try:
            return GribIndex.of([self._headers[name] for name in record["headers"]], record["columns"])
        except _FOREIGN:
            return None

    def _named(self, header: Header, lines: list[bytes]) -> str:
        """Name under which a header is kept; what is not yet kept is added to `lines`."""
        if header not in self._names:
            axes = next((name for name, one in self._axes.items() if one == header.axes), None)
            if axes is None:
                plain = _plain(header.axes)
                axes = _name_of(plain)
                self._axes[axes] = header.axes
                lines.append(_line({"name": axes, "axes": plain}))
            said = {**vars(header), "axes": axes}
            name = self._names[header] = _name_of(said)
            if name not in self._headers:
                lines.append(_line({"name": name, "header": said}))
                self._headers[name] = header
        return self._names[header]


def file_beside(store: Path) -> Path:
    """`.NAME.headers/...` beside a store; it is of one version of ecCodes, whose tables names come from."""
    return store.with_name(f".{store.name}.headers") / f"grib-{_FORMAT}-{eccodes.codes_get_api_version()}.jsonl"


def _name_of(said: dict[str, Any]) -> str:
    """Equal for equal content alone, whichever process writes it: numbers of processes repeat from host to host."""
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


def _line(record: dict[str, Any]) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _record(line: bytes) -> dict[str, Any]:
    """Of one line; empty where it is not as it was written."""
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return {}
    record = json.loads(text)
    return record if isinstance(record, dict) else {}


def _plain(axes: Axes) -> dict[str, Any]:
    return {
        key: np.frombuffer(value).tolist() if isinstance(value, bytes) else value for key, value in asdict(axes).items()
    }


def _axes(record: dict[str, Any]) -> Axes:
    latitude, longitude = (np.array(record[key], float).tobytes() for key in ("latitude", "longitude"))
    return Axes(latitude, longitude, str(record["refusal"]))
