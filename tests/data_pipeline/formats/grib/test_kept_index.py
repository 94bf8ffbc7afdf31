"""Kept GRIB headers are those of their files, whoever wrote them and whatever was lost: containers number alike."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest
from synthetic_files import grib_message

from weatherfm.data_pipeline.formats.files.identity import stamp_of
from weatherfm.data_pipeline.formats.grib import kept_index
from weatherfm.data_pipeline.formats.grib.kept_index import KeptIndex, file_beside

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


def _line(record: object) -> bytes:
    text = json.dumps(record).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


FOREIGN = [
    [1],
    {"axes": 7, "name": "x"},
    {"header": {"axes": "x"}, "name": "x"},
    {"name": "x"},
    {"name": ["x"], "header": []},
    {"file": ["x"], "stamp": 1, "index": 2},
    {"file": "z.grib"},
    {"file": "z.grib", "stamp": None, "index": {"headers": 3}},
]


@pytest.mark.parametrize("record", FOREIGN, ids=range(len(FOREIGN)))
def test_a_line_of_another_making_is_passed_over(tmp_path, files, record):
    """Its checksum is right; it ended in a traceback."""
    store = tmp_path / "store"
    keep(store, *files.values()).save()
    file = file_beside(store)
    file.write_bytes(_line(record) + file.read_bytes())
    assert told(store, files) == NAMES


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.update(columns=[]),
        lambda index: index.update(columns=[[0], [0], [0], [0]]),
        lambda index: index.update(columns=[[0], [0], [0], [0, 1], [0]]),
        lambda index: index.update(columns=[[5], [0], [0], [0], [0]]),
        lambda index: index.update(columns=[[0], [0], [-9], [0], [0]]),
        lambda index: index.update(columns=[[], [], [], [], []]),
        lambda index: index.update(columns=[["x"], [0], [0], [0], [0]]),
        lambda index: index.update(headers=["nobody"]),
        lambda index: index.clear(),
    ],
    ids=range(9),
)
def test_an_index_of_another_form_is_read_again(tmp_path, files, change):
    store = tmp_path / "store"
    keep(store, *files.values()).save()
    lines = file_beside(store).read_bytes().split(b"\n")
    records = [json.loads(line.partition(b" ")[2] or b"{}") for line in lines]
    for record in records:
        if "file" in record:
            change(record["index"])
    file_beside(store).write_bytes(b"".join(map(_line, records)))
    assert told(store, files) == NAMES


def test_a_header_that_was_changed_is_read_again(tmp_path, files):
    """Its line's checksum was made right again: its name is that of what it says."""
    store = tmp_path / "store"
    keep(store, files["z"]).save()
    lines = file_beside(store).read_bytes().split(b"\n")
    records = [json.loads(line.partition(b" ")[2] or b"{}") for line in lines]
    for record in records:
        if "header" in record:
            record["header"]["name"] = "t"
    file_beside(store).write_bytes(b"".join(map(_line, records)))
    assert told(store, {"z": files["z"]}) == {"z": "z"}


def test_nothing_is_kept_through_a_link(tmp_path, files):
    """It was written to whatever file a link beside the store led to."""
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    for store, link in ((tmp_path / "one", "file"), (tmp_path / "two", "folder")):
        file = file_beside(store)
        (file if link == "file" else file.parent).parent.mkdir(exist_ok=True)
        if link == "file":
            file.symlink_to(victim)
        else:
            (tmp_path / "elsewhere").mkdir()
            file.parent.symlink_to(tmp_path / "elsewhere")
        keep(store, *files.values()).save()
    assert victim.read_text() == "mine"
    assert not list((tmp_path / "elsewhere").iterdir())
