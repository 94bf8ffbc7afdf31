"""A Climate Data Store on this machine that answers any request, a key for it, and a home without files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import pytest
from cds_server import KEY, CdsServer
from era5_grib import answer

from weatherfm.data_pipeline.cds import queue
from weatherfm.data_pipeline.cds.engines import Patience
from weatherfm.data_pipeline.store.manifest import seal


@contextmanager
def answering(patch: pytest.MonkeyPatch, folder: Path, attempts: int) -> Iterator[CdsServer]:
    """The server; climetlab by itself would ask for a key."""
    patch.setattr(queue, "PATIENCE", Patience(attempts=attempts, pause=0.01, tries=2, interval=0.01))
    (folder / "home").mkdir()
    patch.setenv("HOME", str(folder / "home"))
    with CdsServer(answer) as one:
        patch.setenv("CDSAPI_URL", one.url)
        patch.setenv("CDSAPI_KEY", KEY)
        yield one


def a_day_later(cache: Path) -> None:
    """As if all downloads had come the day before."""
    for note in cache.glob("*.json"):
        told = json.loads(note.read_bytes())
        told["downloaded"] = str(date.fromisoformat(told["downloaded"]) - timedelta(days=1))
        note.write_text(json.dumps(seal(told)))
