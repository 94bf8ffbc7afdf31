"""Stores that someone made to do harm, sealed like any other: refused by name, and nothing outside is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from invented_source import data_config, invented_source, times_every, tree

from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append, repair
from weatherfm.data_pipeline.store.records.manifest import SOURCES, entry_of, seal
from weatherfm.data_pipeline.store.records.record_checks import Damaged, check_key, with_checksum
from weatherfm.data_pipeline.store.records.source_files import record_of_sources
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.data_pipeline.verify import verify
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError

TIMES, OLD, GRID = times_every(12, 30), 40, regular_grid((2, 4))
NO_KEYS = [
    "../victim.txt", "/etc/passwd", "", ".", "..", "a/../../b", "a/./b", "a//b", "a/", "/a", "state\\c\\0",
    "..\\victim.txt",
    "C:\\victim.txt", "C:victim", "a\0b", "a\nb", "state/c/0\n", ".progress/request", ".Progress/done", "state/.hidden",
    "~/victim", "a b", "ａ", "..\u2215victim", "x" * 201, "/".join("a" * 13), None, 1, True, ["state/c/0"],
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("made") / "store.zarr"
    prepare(data_config(path), invented_source(TIMES[:OLD], GRID))
    return path


@pytest.fixture
def store(made, tmp_path) -> Path:
    (tmp_path / "victim.txt").write_text("years of work")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "0").write_text("mine")
    return Path(shutil.copytree(made, tmp_path / "store.zarr"))


@pytest.fixture(autouse=True)
def victim(tmp_path):
    yield
    if (tmp_path / "victim.txt").exists() or (tmp_path / "outside").exists():
        assert (tmp_path / "victim.txt").read_text() == "years of work"
        assert tree(tmp_path / "outside") == {"0": b"mine"}


def _works(store: Path):
    """Everything that builds on a store."""
    config = data_config(store)
    yield lambda: append(config, invented_source(TIMES, GRID))
    yield lambda: repair(store, {"mean/c/0"}, config, invented_source(TIMES[:OLD], GRID))


def _seal(store: Path, change=lambda manifest: None) -> None:
    """As the one who made the store would: all sums are right."""
    manifest = json.loads((store / "manifest.json").read_text())
    for name in manifest["records"]:
        manifest["records"][name] = entry_of((store / name).read_bytes())
    change(manifest)
    manifest = seal(manifest)
    (store / "manifest.json").write_text(json.dumps(manifest))
    (store / SOURCES).write_bytes(record_of_sources({}, manifest["checksum"]))


@pytest.mark.parametrize("key", NO_KEYS, ids=ascii)
def test_keys_that_are_no_files_of_a_store(key):
    with pytest.raises(Damaged, match="is no path of a file inside a store"):
        check_key(key)


@pytest.mark.parametrize("key", ["state/c/0/1/0/0", "zarr.json", "static_fields/c/0/0/0", "state/c.0.1.0.0", "a-b_1"])
def test_keys_that_are(key):
    assert check_key(key) == key


@pytest.mark.parametrize(
    "key", ["../victim.txt", "/etc/hosts", "a/../../victim.txt", ".progress/request", "..\\v", "a\0"]
)
def test_lists_that_leave_the_store(store, key):
    """A key of shards.json made `append` delete ../victim.txt."""
    for name in ("shards.json", "files.json"):
        whole = (store / name).read_bytes()
        data = json.loads(whole)
        files = data["state-00000-000"]["files"] if name == "shards.json" else data
        files[key] = entry_of(b"years of work")
        (store / name).write_text(json.dumps(data))
        _seal(store)
        for work in _works(store):
            with pytest.raises(InputError, match=rf"{name} cannot be believed: .* is no path of a file inside a store"):
                work()
        assert any("is no path of a file" in problem.message for problem in verify(store).problems)
        (store / name).write_bytes(whole)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"sha256": "0" * 64}, "is not described by sha256 and bytes"),
        ({"sha256": "0" * 64, "bytes": "12"}, "is no number of bytes"),
        ({"sha256": "0" * 64, "bytes": True}, "is no number of bytes"),
        ({"sha256": "0" * 64, "bytes": -1}, "is no number of bytes"),
        ({"sha256": "0" * 64, "bytes": 10**30}, "is no number of bytes"),
        ({"sha256": "0" * 63 + "/", "bytes": 1}, "sha256 of .* is none"),
        ({"sha256": 7, "bytes": 1}, "sha256 of .* is none"),
        ([], "is not described by"),
    ],
)
def test_wrong_types_in_the_lists(store, entry, told):
    data = json.loads((store / "files.json").read_text())
    data["mean/c/0"] = entry
    (store / "files.json").write_text(json.dumps(data))
    _seal(store)
    for work in _works(store):
        with pytest.raises(InputError, match=told):
            work()


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (3, "other parts than"),
        ({"files": {}, "payload": {}}, "other parts than"),
        ({"files": [], "payload": {}, "inputs": ""}, "is no mapping"),
        ({"files": {}, "payload": [1], "inputs": ""}, "wrong type"),
        ({"files": {}, "payload": {}, "inputs": 1}, "wrong type"),
        ({"files": {"time/c/0": entry_of(b"")}, "payload": {}, "inputs": ""}, "a task does not write time/c/0"),
    ],
)  # fmt: skip
def test_wrong_types_in_the_records_of_shards(store, record, told):
    data = json.loads((store / "shards.json").read_text())
    data["state-00000-000"] = record
    (store / "shards.json").write_text(json.dumps(data))
    _seal(store)
    with pytest.raises(InputError, match=told):
        append(data_config(store), invented_source(TIMES, GRID))


def _nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"count": 40', '"count": 1000000000000'),
        ('"count": 40', '"count": "40"'),
        ('"count": 40', '"count": 40.5'),
        ('"count": 40', '"count": true'),
        ('"count": 40', '"count": -40'),
        ('"count": 40', '"count": NaN'),
        ('"count": 40', '"count": Infinity'),
        ('"count": 40', '"count": 1e999'),
        ('"count": 40', '"count": ' + "9" * 5000),
        ('"count": 40', '"count": null'),
        ('"count": 40', '"count": ' + _nested(100_000)),
        ('"step_hours": 12', '"step_hours": 0'),
        ('"step_hours": 12', '"step_hours": 1000000000000'),
        ('"times": {"start": "2000', '"times": {"start": "9000'),
        ('"times": {"start": "2000', '"times": {"start": "yesterday 2000'),
        ('"missing": []', '"missing": [1]'),
        ('"missing": []', '"missing": {"a": 1}'),
        ('"simulated": true', '"simulated": "false"'),
        ('"window_days": null', '"window_days": 100000000000'),
        ('"channels": [{', '"channels": [7, {'),
        ('"static": [], "grid"', '"static": [{}], "grid"'),
        ('"request": {"source"', '"request": "none", "requested": {"source"'),
        ('"latitude": [', '"latitude": [null, '),
        ('"latitude": [', '"latitude": ["north", '),
        ('"latitude": [', '"latitude": [' + "0, " * 100_000),
        ('"periods": {', '"periods": {"extra": {"start": "2000-13-01", "end": "x"}, '),
        ('"records": {', '"records": {"../victim.txt": {"sha256": "' + "0" * 64 + '", "bytes": 1}, '),
        ('"records": {', '"records": {"more.json": {"sha256": "' + "0" * 64 + '", "bytes": 1}, '),
    ],
)  # fmt: skip
def test_manifests_that_say_what_none_can(store, old, new):
    text = json.dumps(json.loads((store / "manifest.json").read_text()))
    assert text.count(old) == 1
    text = text.replace(old, new)
    (store / "manifest.json").write_text(text)
    for work in (open_store, verify, lambda path: next(_works(path))()):
        with pytest.raises(InputError, match=r"manifest\.json is damaged") as told:
            work(store)
        assert len(str(told.value)) < 1000


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"\xff\xfe{}", b"[" * 1_000_000, b'"text"', b"null", b"17", b"{}"]
)
def test_files_that_are_no_manifest(store, content):
    (store / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match=r"manifest\.json (is damaged|does not describe)"):
        open_store(store)


def test_a_manifest_without_end_is_not_read(store):
    with (store / "manifest.json").open("r+b") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(InputError, match="no manifest has more than"):
        open_store(store)


@pytest.mark.parametrize(
    "ranges",
    [
        [["2000-01-01", "9999-12-31"]], [["1000-01-01", "2000-01-02"]], [["2000-01-05", "2000-01-04"]],
        [["now", "today"]], [["2000-01-02"]], [["2000-01-02"] * 3], [["2000-01-03"] * 2, ["2000-01-03"] * 2],
        [["NaT", "NaT"]],
    ],
)  # fmt: skip
def test_ranges_of_times_that_are_out_of_place(store, ranges):
    _seal(store, lambda manifest: manifest["times"].__setitem__("preliminary", ranges))
    with pytest.raises(InputError, match=r"the manifest( has .* for a range|'s times .* out of place)"):
        append(data_config(store), invented_source(TIMES, GRID))
    assert any("the manifest" in problem.message for problem in verify(store).problems)


def test_a_time_axis_without_end_takes_no_memory(store):
    """In a process that may have 4 GB; the array says 10^12 times."""
    file = store / "time/zarr.json"
    metadata = json.loads(file.read_text())
    metadata["shape"] = [10**12]
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [10**12]
    file.write_text(json.dumps(metadata))
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.errors import InputError
try:
    open_store({str(store)!r}).times
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert "weatherfm verify" in done.stdout, done.stderr
    with pytest.raises(InputError, match=r"time/zarr\.json has .*--repair"):
        append(data_config(store), invented_source(TIMES, GRID))


@pytest.mark.parametrize("unit", ["[]", "{}", "null", '"attributes"', '{"attributes": 1}', '{"attributes": {}}', "{"])
def test_time_metadata_that_is_none(store, unit):
    (store / "time/zarr.json").write_text(unit)
    with pytest.raises(InputError, match=r"time/zarr\.json is missing or damaged"):
        _ = open_store(store).times


@pytest.mark.parametrize("inside", ["state", "state/c", "state/c/0", "mean", "mean/c"])
def test_folders_that_are_links(store, tmp_path, inside):
    """To a folder outside, with the right files in it."""
    shutil.move(store / inside, tmp_path / "elsewhere")
    (store / inside).symlink_to(tmp_path / "elsewhere")
    before = tree(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"{inside} is a link"):
        append(data_config(store), invented_source(TIMES, GRID))
    report = verify(store)
    assert not report.ok
    assert any(problem.kind == "link" for problem in report.problems)
    repair(store, report.bad_files(), data_config(store), invented_source(TIMES[:OLD], GRID))
    assert verify(store).ok
    assert tree(tmp_path / "elsewhere") == before


def test_a_shard_that_is_a_link(store, tmp_path):
    shard = store / "state/c/0/1/0/0"
    shard.rename(tmp_path / "shard")
    shard.symlink_to(tmp_path / "shard")
    with pytest.raises(InputError, match="state/c/0/1/0/0 is a link"):
        append(data_config(store), invented_source(TIMES, GRID))
    assert verify(store).bad_files() == {"state/c/0/1/0/0"}


@pytest.mark.parametrize("name", [".progress", ".progress/temporary", ".progress/done", ".progress/sources"])
def test_a_journal_that_is_a_link(tmp_path, name):
    """Its temporary folder is emptied: through a link that would be someone else's."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "0").write_text("mine")
    (tmp_path / "victim.txt").write_text("years of work")
    path = tmp_path / "store.zarr"
    (path / name).parent.mkdir(parents=True)
    (path / name).symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="is a link"):
        prepare(data_config(path), invented_source(TIMES, GRID))


def test_a_journal_that_leaves_the_store(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "0").write_text("mine")
    (tmp_path / "victim.txt").write_text("years of work")

    def failing(number, values):
        if number >= 1:
            raise OSError("the source went away")
        return values

    path = tmp_path / "store.zarr"
    with pytest.raises(OSError, match="went away"):
        prepare(data_config(path), invented_source(TIMES, GRID, spoil=failing))
    record = {"files": {"../victim.txt": entry_of(b"years of work")}, "payload": None, "inputs": ""}
    for name in ("state-00000-000", "tendency-00000-000", "anything", ".hidden"):
        (path / ".progress/done").mkdir(exist_ok=True)
        (path / ".progress/done" / name).write_bytes(with_checksum(record))
    prepare(data_config(path), invented_source(TIMES, GRID))
    assert verify(path).ok


@pytest.mark.parametrize("name", [".store.zarr.next", ".store.zarr.last", ".store.zarr.lock"])
def test_places_beside_the_store_that_are_links(store, tmp_path, name):
    (tmp_path / name).symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match=r"is a link; stores are not written|cannot be written"):
        append(data_config(store), invented_source(TIMES, GRID))


def test_a_store_reached_by_a_link_is_changed_where_it_is(store, tmp_path):
    (tmp_path / "link.zarr").symlink_to(store)
    append(data_config(tmp_path / "link.zarr"), invented_source(TIMES, GRID))
    assert (tmp_path / "link.zarr").is_symlink()
    assert not store.is_symlink()
    assert len(open_store(store).times) == len(TIMES)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_request_that_is_none(store):
    _seal(store, lambda manifest: manifest["request"].__setitem__("source", {"kind": "../victim"}))
    with pytest.raises(InputError, match=r"request in the manifest of .* is none of this version"):
        repair(store, {"mean/c/0"}, None, invented_source(TIMES[:OLD], GRID))


def test_statistics_of_the_wrong_kind(store):
    data = json.loads((store / "shards.json").read_text())
    data["state-00000-000"]["payload"] = {"state": {"float64": "many"}}
    (store / "shards.json").write_text(json.dumps(data))
    _seal(store)
    with pytest.raises(InputError, match=r"the records .* hold statistics that are none"):
        repair(store, {"mean/c/0"}, data_config(store), invented_source(TIMES[:OLD], GRID))
