"""Kept GRIB headers are those of their files, whoever wrote them and whatever was lost: containers number alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_files import grib_message

from weatherfm.data_pipeline.formats import kept_index
from weatherfm.data_pipeline.formats.identity import stamp_of
from weatherfm.data_pipeline.formats.kept_index import KeptIndex, file_beside

NAMES = {"z": "z", "t": "t", "u": "u", "v": "v"}


@pytest.fixture
def files(tmp_path, monkeypatch) -> dict[str, Path]:
    """One file a parameter; headers are kept at once, and every process has number 1, as the first of a container."""
    monkeypatch.setattr(kept_index, "_WORTH", 1)
    monkeypatch.setattr(kept_index.os, "getpid", lambda: 1)
    made = {name: tmp_path / f"{name}.grib" for name in NAMES}
    for name, path in made.items():
        path.write_bytes(grib_message(name, 500))
    return made


def keep(store: Path, *paths: Path) -> KeptIndex:
    kept = KeptIndex(store)
    for path in paths:
        kept.grib(str(path), stamp_of(str(path)))
    return kept


def told(store: Path, files: dict[str, Path]) -> dict[str, str]:
    kept = KeptIndex(store)
    return {name: kept.grib(str(path), stamp_of(str(path))).headers[0].name for name, path in files.items()}


def test_two_processes_of_one_number(tmp_path, files):
    both = [keep(tmp_path / "store", files["z"]), keep(tmp_path / "store", files["t"])]
    for one in both:
        one.save()
    assert told(tmp_path / "store", files) == NAMES


@pytest.mark.parametrize("lost", range(5))
def test_a_line_that_was_lost(tmp_path, files, lost):
    store = tmp_path / "store"
    keep(store, files["z"], files["t"]).save()
    lines = file_beside(store).read_bytes().split(b"\n")
    lines[1 + lost] = lines[1 + lost][:-3]
    file_beside(store).write_bytes(b"\n".join(lines))
    keep(store, files["u"], files["v"]).save()
    assert told(store, files) == NAMES
    keep(store, *files.values()).save()
    assert told(store, files) == NAMES
