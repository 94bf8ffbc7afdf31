"""What `append`, `repair`, `prepare` that goes on, and `evaluate` build on is what was written: else they say so."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from invented_source import assert_same_tree, data_config, fields, invented_source, times_every, tree

from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append, repair
from weatherfm.data_pipeline.store.records.manifest import entry_of, seal, to_bytes
from weatherfm.data_pipeline.store.statistics import ChannelStatistics
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.data_pipeline.verify import verify
from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError
from weatherfm.evaluation.metrics.case_sums import AggregationState
from weatherfm.evaluation.scoring.kept_parts import KeptParts
from weatherfm.evaluation.scoring.sums_and_series import ScoredCases

GRID = Grid(np.linspace(60, 30, 48), np.linspace(-20, 27, 48))  # a shard of 1 MiB holds 56 times of 2 channels
TIMES = times_every(6, 32)  # 128 times, 3 shards in time x 2 in channels
OLD = 100
"""Times of the store before it grows: one whole shard and a part of a second."""
FILES = {"a.nc": "10 bytes, changed 1", "b.nc": "10 bytes, changed 2"}


def source(n_times: int = len(TIMES), identity: dict[str, str] = FILES, **settings):
    return dataclasses.replace(invented_source(TIMES[:n_times], GRID, **settings), identity=identity)


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("old") / "store.zarr"
    prepare(data_config(path), source(OLD))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "store.zarr"
    prepare(data_config(path), source())
    return path


@pytest.fixture
def store(old, tmp_path) -> Path:
    return Path(shutil.copytree(old, tmp_path / "store.zarr"))


@pytest.fixture
def half(tmp_path) -> Path:
    """Interrupted behind the first row of shards."""
    path = tmp_path / "store.zarr"

    def failing(number, values):
        if number >= 3:
            raise OSError("the source went away")
        return values

    with pytest.raises(OSError, match="went away"):
        prepare(data_config(path), source(OLD, spoil=failing), workers=1)
    assert sorted(tree(path / ".progress" / "done")) == ["state-00000-000", "state-00000-001"]
    return path


def _edit(path: Path, change) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def _shift_mean(records) -> None:
    payload = records["state-00000-001"]["payload"]
    noted = ChannelStatistics.from_dict(payload["state"])
    noted.mean[0] += 253.0
    payload["state"] = noted.to_dict()


def test_append_believes_no_changed_statistics(store):
    """It took the mean from 280 to 533 K and sealed it."""
    _edit(store / "shards.json", _shift_mean)
    before = tree(store)
    with pytest.raises(InputError, match=r"shards\.json has .*: `weatherfm verify .* --repair` mends the store"):
        append(data_config(store), source())
    assert tree(store) == before


def test_mended_store_is_appended_to_with_right_statistics(store, whole):
    _edit(store / "shards.json", _shift_mean)
    bad = verify(store).bad_files()
    assert bad == {"shards.json"}
    repair(store, bad, data_config(store), source(OLD))
    append(data_config(store), source())
    assert_same_tree(store, whole)
    exact = fields(TIMES, GRID).astype(np.float64).mean((0, 2, 3))
    np.testing.assert_allclose(open_store(store).mean, exact, rtol=1e-12)


@pytest.mark.parametrize("key", ["time/c/0", "mean/c/0", "state/zarr.json", "zarr.json", "files.json"])
def test_append_reads_no_changed_small_file(store, key):
    content = bytearray((store / key).read_bytes())
    content[len(content) // 2] ^= 1
    (store / key).write_bytes(content)
    with pytest.raises(InputError, match=f"{key} has a wrong checksum.*verify .* --repair"):
        append(data_config(store), source())
    repair(store, verify(store).bad_files(), data_config(store), source(OLD))
    assert verify(store).ok


@pytest.mark.parametrize(
    "work", [append, lambda config, given: repair(Path(config.store), {"zarr.json"}, config, given)]
)
def test_nothing_is_built_on_a_changed_manifest(store, work):
    _edit(store / "manifest.json", lambda m: m["times"].__setitem__("step_hours", 12))
    with pytest.raises(InputError, match=r"manifest\.json itself was changed since prepare wrote it"):
        work(data_config(store), source())


def test_old_shard_that_a_change_is_measured_from_is_compared_first(store, whole, caplog):
    """The change over 24 h across the end of a kept shard is read from it; a wrong value there would be sealed."""
    shard = store / "state/c/0/0/0/0"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    append(data_config(store), source())
    assert "c/0/0/0/0 changed since it was written; writing it again" in caplog.text
    assert_same_tree(store, whole)


def test_damaged_note_of_the_journal_is_forgotten_and_its_work_done_again(half, old, caplog):
    note = half / ".progress/done/state-00000-001"
    text = note.read_text()
    assert '"state":{"float64":"A' in text
    note.write_text(text.replace('"state":{"float64":"A', '"state":{"float64":"B'))
    read: list[int] = []

    def count(number, values):
        read.append(number)
        return values

    prepare(data_config(half), source(OLD, spoil=count))
    assert "state-00000-001 was changed since it was written (its checksum" in caplog.text
    assert min(read) == 0
    assert_same_tree(half, old)


@pytest.mark.parametrize("content", [b"", b"\n", b"{}", b"\xff\xfe", b"0" * 64 + b"\n[1]"])
def test_torn_notes_of_the_journal(half, old, content):
    (half / ".progress/done/state-00000-000").write_bytes(content)
    prepare(data_config(half), source(OLD))
    assert_same_tree(half, old)


def test_unfinished_store_with_a_damaged_request_is_told(half):
    (half / ".progress/request").write_bytes(b"{}")
    with pytest.raises(InputError, match=r"request is damaged .*; delete .* and prepare anew"):
        prepare(data_config(half), source(OLD))


def _reseal(store: Path, change) -> None:
    """Change the record of shards as a program with a fault would have written it: sealed."""
    _edit(store / "shards.json", change)
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["records"]["shards.json"] = entry_of((store / "shards.json").read_bytes())
    (store / "manifest.json").write_bytes(to_bytes(seal(manifest)))
    sources = json.loads((store / "sources.json").read_text())
    sealed = seal(manifest)["checksum"]
    (store / "sources.json").write_text(json.dumps(seal(sources | {"store": sealed})))


def _change_noted(name: str, statistic: str, by: float):
    def change(records) -> None:
        payload = records[name]["payload"]
        noted = ChannelStatistics.from_dict(payload["tendency"] if name.startswith("state") else payload)
        getattr(noted, statistic)[-1] += by
        if name.startswith("state"):
            payload["tendency"] = noted.to_dict()
        else:
            records[name]["payload"] = noted.to_dict()

    return change


@pytest.mark.parametrize("statistic", ["count", "mean", "m2", "minimum", "maximum"])
@pytest.mark.parametrize("name", ["state-00000-000", "tendency-00000-001"])
def test_verify_compares_the_changes_noted_with_shards(store, name, statistic):
    """From which `append` merges tendency_std."""
    assert verify(store).ok
    _reseal(store, _change_noted(name, statistic, {"minimum": -1e6}.get(statistic, 1e6)))
    findings = verify(store)
    assert [problem.kind for problem in findings.problems if problem.severity == "error"] == ["shard statistics"]
    (problem,) = findings.problems
    assert "of the change of " in problem.message
    assert problem.channel == {"state-00000-000": "t850", "tendency-00000-001": "t2m"}[name]


@pytest.mark.parametrize("payload", [None, 5, {"float64": "A"}, {"float64": ""}])
def test_verify_tells_of_changes_that_are_none(store, payload):
    _reseal(store, lambda records: records["tendency-00000-001"].update(payload=payload))
    findings = verify(store)
    assert not findings.ok


# The files of the source ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (FILES | {"a.nc": "9 bytes, changed 9"}, r"1 changed: a\.nc \(was 10 bytes, changed 1, is 9 bytes, changed 9"),
        ({"a.nc": FILES["a.nc"]}, r"1 gone: b\.nc"),
        (FILES | {"c.nc": "1"}, r"1 new: c\.nc"),
        ({f"{i}.nc": "1" for i in range(60_000)}, r"2 gone: a.nc, b.nc; 60000 new: .{30,60} and 59995 more\. What"),
    ],
)  # fmt: skip
def test_other_files_are_refused_when_an_interrupted_run_goes_on(half, old, now, told):
    """A file replaced by one of the same size gave a store of both that verified."""
    before = tree(half)
    with pytest.raises(InputError, match=f"not those that the store .* was begun with: {told}"):
        prepare(data_config(half), source(OLD, now))
    assert tree(half) == before
    prepare(data_config(half), source(OLD))
    assert_same_tree(half, old)


def test_append_tells_of_changed_and_vanished_files_and_goes_on(store, caplog):
    append(data_config(store), source(identity={"a.nc": "other", "c.nc": "3"}))
    assert "1 changed: a.nc (was 10 bytes, changed 1, is other); 1 gone: b.nc. What the store keeps" in caplog.text
    assert "c.nc" not in caplog.text
    caplog.clear()
    append(data_config(store), source(identity={"a.nc": "other", "c.nc": "4"}))  # it knows those of the last append
    assert "1 changed: c.nc (was 3, is 4). What" in caplog.text


def test_append_that_was_interrupted_begins_anew_with_other_files(store, whole):
    def failing(number, values):
        if number >= 5:
            raise OSError("the source went away")
        return values + 1

    changed = FILES | {"b.nc": "before"}
    with pytest.raises(OSError, match="went away"):
        append(data_config(store), source(identity=changed, spoil=failing), workers=1)
    append(data_config(store), source())
    assert_same_tree(store, whole)


def test_repair_tells_and_gives_the_same_bytes(store, old, caplog):
    (store / "state/c/0/1/0/0").unlink()
    repair(store, {"state/c/0/1/0/0"}, data_config(store), source(OLD, FILES | {"b.nc": "touched"}))
    assert "1 changed: b.nc" in caplog.text
    left = tree(store)
    assert json.loads(left.pop("sources.json"))["files"]["b.nc"] == "touched"
    assert left == {key: content for key, content in tree(old).items() if key != "sources.json"}


def test_names_of_files_do_not_change_the_manifest(old, tmp_path):
    """Copies of the same files have other times of change, and give the same store."""
    path = tmp_path / "copy.zarr"
    prepare(data_config(path), source(OLD, {"a.nc": "copied"}))
    a, b = tree(old), tree(path)
    assert {key for key in a | b if a.get(key) != b.get(key)} == {"sources.json"}


def _of_another(path: Path) -> None:
    record = json.loads(path.read_text())
    path.write_text(json.dumps(seal(record | {"store": "0" * 64})))


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda path: path.write_text(path.read_text().replace("changed 1", "changed 7")), "was changed since"),
        (_of_another, "is of another store"),
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_text("[" * 100_000), "recursion"),
    ],
)
def test_record_of_files_is_not_believed_unchecked(store, old, harm, told, caplog):
    harm(store / "sources.json")
    assert verify(store).bad_files() == {"sources.json"}
    with caplog.at_level(logging.WARNING):
        repair(store, {"sources.json"}, data_config(store), source(OLD))
    assert told in caplog.text
    assert_same_tree(store, old)


# Parts of an evaluation ----------------------------------------------------------------------------------------------


def _part(value: float) -> dict[str, ScoredCases]:
    times = np.array(["2000-01-01"], "datetime64[s]")
    scored = ScoredCases(AggregationState(12, 1), times, {"squared_error": np.full((1, 1, 1, 1), value)})
    return {"model": scored}


def _value(part) -> float:
    return float(part["model"].series["squared_error"].item())


def test_part_of_an_evaluation_is_taken_only_for_itself(tmp_path, caplog):
    kept = KeptParts(tmp_path, "this work")
    for i in range(3):
        kept.keep(f"000-00{i}", _part(i))
    assert _value(kept.find("000-001")) == 1
    shutil.copy(tmp_path / "000-002.part", tmp_path / "000-001.part")
    assert kept.find("000-001") is None
    assert "000-001.part is damaged (its checksum" in caplog.text
    other = KeptParts(tmp_path / "other", "other work")
    other.keep("000-000", _part(9))
    shutil.copy(tmp_path / "other" / "000-000.part", tmp_path / "000-000.part")
    assert kept.find("000-000") is None


def test_a_number_changed_in_a_part_is_noticed(tmp_path):
    """Also where the archive's own sums are made right again."""
    kept = KeptParts(tmp_path, "this work")
    kept.keep("000-000", _part(1.0))
    mine = (tmp_path / "000-000.part").read_bytes()
    kept.keep("000-001", _part(533.0))
    (tmp_path / "000-000.part").write_bytes((tmp_path / "000-001.part").read_bytes()[:-32] + mine[-32:])
    assert kept.find("000-000") is None


def test_records_agree_with_the_manifest(old):
    manifest = json.loads((old / "manifest.json").read_text())
    for name, entry in manifest["records"].items():
        assert entry == entry_of((old / name).read_bytes())
