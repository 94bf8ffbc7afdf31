"""Going on and appending read what they change: no shard that stays is read, and nothing is hashed but what is read."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from distributed import LocalCluster
from invented_source import assert_same_tree, data_config, invented_source, times_every, tree

import weatherfm.data_pipeline.writing.journal as journal_module
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append
from weatherfm.data_pipeline.store.training_store import Store, open_store
from weatherfm.data_pipeline.verify import verify
from weatherfm.data_pipeline.writing.shards import StateTask
from weatherfm.earth.grid import Grid

GRID = Grid(np.linspace(60, 30, 48), np.linspace(-20, 27, 48))  # a shard of 1 MiB holds 56 times of 2 channels
TIMES, OLD = times_every(6, 60), 200  # 5 shards in time x 2 in channels; the old ones end in the fourth
SPLITS = {"train": "2000-01-01/2000-01-25", "test": "2000-01-26/2000-02-29"}


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("old") / "store.zarr"
    prepare(data_config(path, **SPLITS), invented_source(TIMES[:OLD], GRID))
    return path


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """Keys of the files that are hashed as they lie."""
    found: list[str] = []
    real = journal_module.file_checksum

    def noting(path: Path) -> str:
        found.append("/".join(path.parts[-6:]))
        return real(path)

    monkeypatch.setattr(journal_module, "file_checksum", noting)
    return found


def _forbid_reading(monkeypatch) -> None:
    for owner, name in ((StateTask, "read_back"), (Store, "read")):
        monkeypatch.setattr(owner, name, lambda *_: pytest.fail("an old shard was read"))


def test_append_behind_the_training_days_reads_no_old_shard(old, tmp_path, hashed, monkeypatch):
    store = Path(shutil.copytree(old, tmp_path / "store.zarr"))
    _forbid_reading(monkeypatch)
    append(data_config(store, **SPLITS), invented_source(TIMES, GRID))
    assert hashed == []
    monkeypatch.undo()
    prepare(data_config(tmp_path / "whole.zarr", **SPLITS), invented_source(TIMES, GRID))
    assert_same_tree(store, tmp_path / "whole.zarr")


def test_append_twice_as_much_reads_no_old_shard_either(tmp_path, hashed, monkeypatch):
    """It gathered the climatology's sums again, though none of them changes."""
    store = tmp_path / "store.zarr"
    few = {"train": "2000-01-01/2000-01-10", "test": "2000-01-15/2000-02-29"}
    prepare(data_config(store, **few), invented_source(TIMES[:64], GRID))
    _forbid_reading(monkeypatch)
    append(data_config(store, **few), invented_source(TIMES, GRID))
    assert hashed == []


def test_more_training_days_read_and_compare_each_old_shard_once(old, tmp_path, hashed):
    store = Path(shutil.copytree(old, tmp_path / "store.zarr"))
    append(data_config(store, **SPLITS | {"train": "2000-01-01/2000-02-08", "test": "2000-02-09/2000-02-29"}),
           invented_source(TIMES, GRID))  # fmt: skip
    assert sorted(hashed) == sorted(set(hashed))
    assert {key.split("state/c/")[1].split("/")[0] for key in hashed} == {"0"}  # training ended in the second: redone


def test_going_on_hashes_nothing_where_nothing_is_read(old, tmp_path, hashed):
    """All shards were written and the climatology too: only the statistics and the manifest are missing."""
    path, real = tmp_path / "store.zarr", journal_module.write_file

    class Killed(BaseException):
        pass

    def until_statistics(root, key, content):
        if key.startswith("mean/c"):
            raise Killed
        return real(root, key, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("weatherfm.data_pipeline.writing.writer.write_file", until_statistics)
        with pytest.raises(Killed):
            prepare(data_config(path, **SPLITS), invented_source(TIMES[:OLD], GRID))
    prepare(data_config(path, **SPLITS), invented_source(TIMES[:OLD], GRID, spoil=lambda *_: pytest.fail("read")))
    assert hashed == []
    assert_same_tree(path, old)


def test_opening_a_store_reads_the_manifest_alone(old, tmp_path):
    path = Path(shutil.copytree(old, tmp_path / "store.zarr"))
    for name in ("files.json", "shards.json", "sources.json"):
        (path / name).unlink()
    store = open_store(path)
    assert len(store.times) == OLD
    assert store.read([0, 199]).shape == (2, 3, 48, 48)


def test_long_lists_of_times_are_ranges(tmp_path):
    times = np.delete(times_every(6, 120), slice(100, 300))
    store = prepare(data_config(tmp_path / "s.zarr", allow_gaps=True), invented_source(times, Grid([1, 0], [0, 1])))
    assert store.manifest["times"]["missing"] == [["2000-01-26T00:00:00", "2000-03-15T18:00:00"]]
    assert verify(tmp_path / "s.zarr").coverage["missing"][0]["count"] == 200


def _harm(path: Path) -> set[str]:
    (path / "state/c/2/1/0/0").write_bytes(b"short")
    content = bytearray((path / "state/c/1/0/0/0").read_bytes())
    content[len(content) // 2] ^= 1
    (path / "state/c/1/0/0/0").write_bytes(content)
    (path / "climatology/c/0/1/0/0/0").unlink()
    return {"state/c/2/1/0/0", "state/c/1/0/0/0", "climatology/c/0/1/0/0/0"}


def test_verify_hashes_on_threads_and_on_a_cluster(old, tmp_path, monkeypatch):
    monkeypatch.setattr("weatherfm.data_pipeline.verification.files._TASK_FILES", 5)  # many tasks
    path = Path(shutil.copytree(old, tmp_path / "store.zarr"))
    bad = _harm(path)
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        reports = [verify(path), verify(path, workers=1), verify(path, scheduler=cluster.scheduler_address)]
    assert [report.bad_files() for report in reports] == [bad] * 3
    assert reports[0].to_dict() == reports[1].to_dict() == reports[2].to_dict()
    assert reports[0].files["count"] == len(tree(old)) - 4  # the manifest and the records


def test_verify_tells_of_progress(old, monkeypatch, capfd):
    monkeypatch.setattr("weatherfm.data_pipeline.verification.files.tqdm", _Loud)
    verify(old)
    assert _Loud.told == sum(p.stat().st_size for p in old.rglob("*") if p.is_file() and p.suffix != ".json") + sum(
        p.stat().st_size for p in old.rglob("zarr.json")
    )


class _Loud:
    """A progress bar that adds up."""

    told = 0

    def __init__(self, total: int, **_) -> None:
        type(self).told = 0

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass

    def update(self, n: int) -> None:
        type(self).told += n
