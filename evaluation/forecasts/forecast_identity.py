"""What tells a forecast from another at the same place: an evaluation that goes on must not score two as one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from weatherfm.data_pipeline.formats.files.identity import identity_of
from weatherfm.evaluation.forecasts.reader import ForecastFile


def identity(file: ForecastFile) -> str:
    """Names, sizes and times of change of all files of one in a folder; the checksum of the metadata of one elsewhere.

    Chunks are among the files. A copy that keeps the time of modification (`rsync -t`, `cp -p`) still has another time
    of change.

    Raises:
        OutsideError: the network failed.
    """
    if not isinstance(file.path, Path):
        return identity_of(file.path, file.access)
    digest = hashlib.sha256()
    for line in sorted(_files_below(str(file.path))):
        digest.update(line.encode())
    return digest.hexdigest()


def _files_below(folder: str) -> Iterator[str]:
    for place, _, names in os.walk(folder, followlinks=True):  # round in a circle they are refused when it is opened
        for name in names:
            path = os.path.join(place, name)
            found = os.stat(path) if os.path.exists(path) else os.lstat(path)  # of a link that leads nowhere
            yield f"{os.path.relpath(path, folder)} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}\n"
