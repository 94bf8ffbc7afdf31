"""`append` and `repair`: what they end with is what `prepare` at once would have written."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from invented_source import assert_same_tree, data_config, invented_source, times_every, tree

from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append, repair
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.data_pipeline.verify import verify
from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError

GRID = Grid(np.linspace(60, 30, 48), np.linspace(-20, 27, 48))  # a shard of 1 MiB holds 56 times of 2 channels
TIMES = times_every(6, 60)  # 240 times, 5 shards in time x 2 in channels
OLD = 160
"""Times of the store before it grows: two whole shards in time and a part of a third."""


def source(n_times: int = len(TIMES), preliminary_from: int | None = None, **settings):
    """The first `n_times`; from a position on preliminary, and then a little off."""
    spoil = settings.pop("spoil", None)
    if preliminary_from is not None:

        def spoil(number, values):
            return values + np.where(np.arange(number * 24, number * 24 + len(values)) >= preliminary_from, 1, 0)[
                :, None, None, None
            ].astype(np.float32)

    given = invented_source(TIMES[:n_times], GRID, spoil=spoil, **settings)
    if preliminary_from is None:
        return given
    return dataclasses.replace(given, preliminary=np.arange(n_times) >= preliminary_from)


def config(store: Path, **settings):
    return data_config(store, **settings)


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("old") / "store.zarr"
    prepare(config(path), source(OLD))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Prepared at once: the statistics are of all days."""
    path = tmp_path_factory.mktemp("whole") / "store.zarr"
    prepare(config(path), source())
    return path


@pytest.fixture
def store(old, tmp_path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(old, tmp_path / "store.zarr"))


def _inodes(path: Path) -> dict[str, int]:
    return {str(p.relative_to(path)): p.stat().st_ino for p in path.rglob("c/*/*/0/0") if p.is_file()}


def test_append_ends_with_the_bytes_of_a_store_prepared_at_once(store, whole):
    before, read = _inodes(store), []

    def note(number, values):
        read.append(number)
        return values

    appended = append(config(store), source(spoil=note))
    assert len(appended.times) == len(TIMES)
    assert_same_tree(store, whole)
    assert min(read) == 112 // 24  # from the first shard that was not full: the rest is neither read ...
    after = _inodes(store)
    full = [f"state/c/{row}/{column}/0/0" for row in (0, 1) for column in (0, 1)]
    assert [after[key] for key in full] == [before[key] for key in full]  # ... nor written again
    assert list(store.parent.iterdir()) == [store]
    assert verify(store).ok


def test_append_keeps_the_climatology_where_training_days_stay(tmp_path):
    splits = {"train": "2000-01-01/2000-01-25", "test": "2000-01-26/2000-02-09"}
    path = tmp_path / "store.zarr"
    prepare(config(path, **splits), source(OLD))
    mtime = {p: p.stat().st_mtime_ns for p in (path / "climatology/c").rglob("*") if p.is_file()}
    append(config(path, **splits), source())
    assert {p: p.stat().st_mtime_ns for p in (path / "climatology/c").rglob("*") if p.is_file()} == mtime
    prepare(config(tmp_path / "whole.zarr", **splits), source())
    assert_same_tree(path, tmp_path / "whole.zarr")


@pytest.mark.parametrize("key", ["notes.txt", "state/c/0/mine/figure.png"])
def test_what_is_not_the_stores_is_never_swapped_away(store, key):
    mine = store / key
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("a year's work")
    with pytest.raises(InputError, match=f"{key} in .* is no part of the store, .* move that elsewhere"):
        append(config(store), source())
    damaged = "state/c/0/0/0/0"
    (store / damaged).write_bytes(b"")
    with pytest.raises(InputError, match=f"{key} in .* is no part of the store"):
        repair(store, {damaged}, config(store), source(OLD))
    assert mine.read_text() == "a year's work"
    mine.unlink()
    repair(store, {damaged}, config(store), source(OLD))
    assert verify(store).ok


def test_append_again_changes_nothing(store, caplog):
    append(config(store), source())
    before = _inodes(store)
    with caplog.at_level(logging.INFO):
        append(config(store), source())
    assert "has everything already" in caplog.text
    assert _inodes(store) == before


def test_final_fields_replace_preliminary_ones(tmp_path, whole):
    path = tmp_path / "store.zarr"
    prepare(config(path), source(200, preliminary_from=150))
    stored = open_store(path)
    assert stored.manifest["times"]["preliminary"] == [["2000-02-07T12:00:00", "2000-02-19T18:00:00"]]  # 50 times
    before = _inodes(path)
    append(config(path), source())
    assert_same_tree(path, whole)
    kept = [key for key, inode in _inodes(path).items() if before.get(key) == inode and key.startswith("state")]
    assert sorted(kept) == [f"state/c/{row}/{column}/0/0" for row in (0, 1) for column in (0, 1)]


class _Killed(BaseException):
    """Ends a run as a kill does: nothing catches it."""


def test_append_killed_at_every_rename_leaves_the_old_store_or_the_new(store, old, whole, monkeypatch):
    real = {name: getattr(Path, name) for name in ("replace", "rename")}
    calls: list[Path] = []
    stop = 0

    def interrupting(name):
        def move(self: Path, target: Path) -> Path:
            calls.append(target)
            if len(calls) > stop:
                raise _Killed
            return real[name](self, target)

        return move

    for name in real:
        monkeypatch.setattr(Path, name, interrupting(name))
    while True:
        calls.clear()
        try:
            append(config(store), source())
            break
        except _Killed:
            if store.exists():  # else between the two last renames
                shutil.copytree(store, store.parent / "now")
                assert tree(store.parent / "now") == tree(old)
                shutil.rmtree(store.parent / "now")
            else:
                with pytest.raises(InputError, match="interrupted at its last step; start it again"):
                    open_store(store)
        stop += 3  # each attempt gets a little further than the one before
    assert stop > 10
    assert_same_tree(store, whole)
    assert list(store.parent.iterdir()) == [store]


def test_append_after_a_source_error_goes_on(store, old, whole):
    def failing(number, values):
        if number >= 8:
            raise OSError("the source went away")
        return values

    with pytest.raises(OSError, match="went away"):
        append(config(store), source(spoil=failing))
    assert_same_tree(store, old)
    append(config(store), source())
    assert_same_tree(store, whole)


def test_append_begun_for_other_days_starts_anew(store, whole):
    def failing(number, values):
        if number >= 7:
            raise OSError("the source went away")
        return values

    with pytest.raises(OSError, match="went away"):
        append(config(store), source(200, spoil=failing))
    append(config(store), source())
    assert_same_tree(store, whole)


@pytest.mark.parametrize(
    ("settings", "n_times", "message"),
    [
        ({"channel_block": 1}, 240, "prepared with another channel_block; append changes no more than period"),
        ({"climatology_window": 61}, 240, "another climatology_window"),
        ({}, 100, "has 60 times that the source or data.period no longer has: 2000-01-26T00"),
        ({"period": "2000-01-10/2000-02-20"}, 240, "append only adds: give the whole period, from 2000-01-01T00 on"),
        ({"step": "12h"}, 240, "another step"),
    ],
)  # fmt: skip
def test_append_refuses_what_it_cannot_do(store, old, settings, n_times, message):
    with pytest.raises(InputError, match=message):
        append(config(store, **settings), source(n_times))
    assert_same_tree(store, old)


def test_append_needs_a_finished_store(tmp_path):
    with pytest.raises(InputError, match="no store at"):
        append(config(tmp_path / "none.zarr"), source())


def test_prepare_of_a_longer_period_points_to_append(store):
    with pytest.raises(InputError, match="`weatherfm append` makes it longer"):
        prepare(config(store, period="2000-01-01/2000-02-20"), source())


def _harm(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


HARMED = ["state/c/1/0/0/0", "climatology/c/0/1/0/0/0", "time/c/0", "zarr.json", "mean/c/0", "shards.json"]


@pytest.mark.parametrize("key", HARMED)
def test_repair_restores_every_byte(store, old, key):
    _harm(store / key)
    bad = {key}
    repair(store, bad, config(store), source(OLD))
    assert_same_tree(store, old)
    assert list(store.parent.iterdir()) == [store]


def test_repair_reads_no_more_than_it_must(store, old):
    read: list[int] = []

    def note(number, values):
        read.append(number)
        return values

    (store / "state/c/1/0/0/0").unlink()
    repair(store, {"state/c/1/0/0/0"}, config(store), source(OLD, spoil=note))
    assert set(read) == {2, 3, 4}  # times 56 .. 111 in pieces of 24
    assert_same_tree(store, old)


def test_repair_from_a_source_that_changed_leaves_the_store(store):
    (store / "state/c/1/0/0/0").unlink()
    before = tree(store)
    with pytest.raises(InputError, match=r"gives other values today .* made: state/c/1/0/0/0, mean/c/0"):
        repair(store, {"state/c/1/0/0/0"}, config(store), source(OLD, seed=1))
    assert tree(store) == before
    assert list(store.parent.iterdir()) == [store]


def test_repair_of_a_changed_manifest_is_refused(store):
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["code_version"] = "9"
    (store / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="itself was changed since prepare wrote it: nothing to go by"):
        repair(store, {"zarr.json"}, config(store), source(OLD))


def test_repair_with_another_configuration_is_refused(store):
    with pytest.raises(InputError, match="made with another channel_block"):
        repair(store, {"zarr.json"}, config(store, channel_block=1), source(OLD))


def test_sound_store_needs_no_repair(store, old):
    repair(store, set(), config(store))
    assert_same_tree(store, old)
