"""Stopped after any file operation, by hand: the old store or the new one is there, and the same command ends the work.

Random kills seldom fall between two renames; here every operation is one to stop at.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from invented_source import assert_same_tree, data_config, invented_source, times_every, tree
from places import importable

import weatherfm
from weatherfm.data_pipeline import revise
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append, repair
from weatherfm.data_pipeline.store.records import swap as swapping
from weatherfm.data_pipeline.store.records.exchange import exchange
from weatherfm.data_pipeline.store.records.swap import hold, swap
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError
from weatherfm.file_lock import FileLock, Held

GRID = Grid(np.linspace(60, 30, 48), np.linspace(-20, 27, 48))  # a shard of 1 MiB holds 56 times of 2 channels
TIMES, OLD = times_every(6, 20), 70
OPERATIONS = ("rename", "replace", "link", "unlink", "rmdir", "mkdir", "fsync")


class Killed(BaseException):
    """Ends a run as a kill does: nothing catches it, and nothing is done after it."""


@contextmanager
def stopped_after(operations: int, monkeypatch):
    """Let so many file operations happen, and no more; yields a function that tells how many there were."""
    done = [0]

    def counting(real: Callable):
        def operation(*arguments, **settings):
            if done[0] >= operations:
                raise Killed
            done[0] += 1
            return None if real.__name__ == "fsync" else real(*arguments, **settings)

        return operation

    with monkeypatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, counting(getattr(os, name)))
        patch.setattr(swapping, "exchange", counting(swapping.exchange))
        yield lambda: done[0]


def _runs(work: Callable[[], object], operations: int, monkeypatch) -> bool:
    """True when `work` ends within so many operations."""
    with stopped_after(operations, monkeypatch):
        try:
            work()
        except Killed:
            return False
    return True


# The swap alone ------------------------------------------------------------------------------------------------------


def _place(folder: Path, name: str, content: str) -> Path:
    for key in ("manifest.json", "state/c/0/0", "state/c/1/0"):
        (folder / name / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / name / key).write_text(f"{content} {key}")
    return folder / name


def _holding(work: Callable[[Path], object]) -> Callable[[Path], None]:
    def held(root: Path) -> None:
        with hold(root):
            work(root)

    return held


def _content(root: Path) -> dict[str, bytes]:
    """All but what a change of places notes."""
    return {key: content for key, content in tree(root).items() if not key.startswith(".progress")}


@pytest.fixture(params=["at once", "one after the other"])
def names_change(request, monkeypatch) -> str:
    """As on Linux, and where nobody can exchange two names."""
    if request.param == "one after the other":
        monkeypatch.setattr(swapping, "exchange", lambda one, other: False)
    elif not sys.platform.startswith("linux"):
        pytest.skip("no exchange of names here")
    return str(request.param)


def test_swap_stopped_anywhere_and_ended_by_one_that_is_stopped_anywhere(tmp_path, monkeypatch, names_change):
    old, new = tree(_place(tmp_path / "old", "s", "old")), tree(_place(tmp_path / "new", "s", "new"))
    for first in count():
        for second in count():
            folder = tmp_path / f"{first}-{second}"
            root = _place(folder, "s.zarr", "old")
            _place(folder, ".s.zarr.next", "new")
            ended = _runs(lambda root=root: _holding(swap)(root), first, monkeypatch)
            begun = (folder / ".s.zarr.last").exists() or ended or not (folder / ".s.zarr.next").exists()
            begun |= root.exists() and _content(root) == new
            assert root.exists() or names_change != "at once"
            assert not root.exists() or _content(root) in (old, new)
            again = _runs(lambda root=root: _holding(lambda _: None)(root), second, monkeypatch)
            assert not root.exists() or _content(root) in (old, new)
            _holding(lambda _: None)(root)
            assert tree(root) == (new if begun else old)
            assert not begun or not (folder / ".s.zarr.next").exists()
            assert not (folder / ".s.zarr.last").exists()
            assert not (folder / ".s.zarr.lock").exists()
            shutil.rmtree(folder)
            if again:
                break
        if ended:
            break
    assert first > 8


def test_names_are_exchanged_at_once_and_what_cannot_be_is_told(tmp_path):
    one, other = _place(tmp_path, "one", "one"), _place(tmp_path, "other", "other")
    before = tree(one), tree(other)
    if exchange(one, other):
        assert (tree(other), tree(one)) == before
        with pytest.raises(FileNotFoundError):
            exchange(one, tmp_path / "absent")


def test_a_reader_never_finds_the_place_empty(tmp_path):
    """Between the two renames of an append, who opened the store was told that there is none, or waited."""
    root = _place(tmp_path, "s.zarr", "old")
    if not exchange(root, _place(tmp_path, "probe", "old")):
        pytest.skip("no exchange of names here")
    code = f"""
import os
while not os.path.exists({str(tmp_path / "stop")!r}):
    open({str(root / "manifest.json")!r}).close()
print("always there")
"""
    reader = _start(code)
    for i in range(200):
        _place(tmp_path, ".s.zarr.next", f"number {i}")
        _holding(swap)(root)
    (tmp_path / "stop").touch()
    assert _ended([reader]) == ["always there\n"]


@pytest.mark.parametrize("killed", ["between", "before"])
def test_a_store_behind_a_link(whole, old, tmp_path, monkeypatch, killed, names_change):
    """Who reads through the link is told of an interrupted change as who reads the folder itself; both go on."""
    real, link = tmp_path / "real/store.zarr", tmp_path / "link.zarr"
    shutil.copytree(old, real)
    link.symlink_to(real)
    if killed == "between":
        real.rename(real.with_name(".store.zarr.last"))
        monkeypatch.setattr("weatherfm.data_pipeline.store.records.manifest_reading._SWAP_SECONDS", 0.05)
        with pytest.raises(InputError, match="at its last step; start it again"):
            open_store(link)
    append(data_config(link), invented_source(TIMES, GRID), workers=1)
    assert link.is_symlink()
    assert_same_tree(link, whole)
    assert [path.name for path in real.parent.iterdir()] == ["store.zarr"]


def test_verify_repairs_where_a_repair_was_killed_at_its_last_step(whole, tmp_path, monkeypatch, names_change):
    """`verify --repair` refused to look at what only a repair could end."""
    store = tmp_path / "store.zarr"
    shutil.copytree(whole, store)
    (store / "mean/c/0").unlink()
    source = invented_source(TIMES, GRID)
    monkeypatch.setattr(revise, "open_config", lambda config: source)

    def verify_and_repair() -> bool:
        return weatherfm.verify(store, repair=True).ok

    for stop in (1, 3, 4, 6):
        with monkeypatch.context() as patch:
            patch.setattr(revise, "swap", lambda root, stop=stop: _stop_within_swap(root, stop, monkeypatch))
            with suppress(Killed):
                verify_and_repair()
        assert verify_and_repair()
        assert_same_tree(store, whole)
        assert [path.name for path in tmp_path.iterdir()] == ["store.zarr"], stop
        (store / "mean/c/0").unlink()


def _stop_within_swap(root: Path, operations: int, monkeypatch) -> None:
    with stopped_after(operations, monkeypatch):
        swap(root)
    raise Killed


def test_a_store_whose_successor_was_taken_away_is_put_back(tmp_path, caplog):
    last = _place(tmp_path, ".s.zarr.last", "old")
    old = tree(last)
    with hold(tmp_path / "s.zarr"):
        pass
    assert tree(tmp_path / "s.zarr") == old
    assert "is put back" in caplog.text


def test_reader_waits_for_a_swap_that_is_under_way(tmp_path, monkeypatch):
    path = tmp_path / "store.zarr"
    prepare(data_config(path), invented_source(TIMES[:OLD], GRID))
    path.rename(tmp_path / ".store.zarr.last")
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        (tmp_path / ".store.zarr.last").rename(path)  # as the other process does

    monkeypatch.setattr("weatherfm.data_pipeline.store.records.manifest_reading.time.sleep", nap)
    assert len(open_store(path).times) == OLD
    assert len(naps) == 1


# Append, repair and prepare ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("old") / "store.zarr"
    prepare(data_config(path), invented_source(TIMES[:OLD], GRID))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "store.zarr"
    prepare(data_config(path), invented_source(TIMES, GRID))
    return path


def _append(store: Path) -> None:
    append(data_config(store), invented_source(TIMES, GRID), workers=1)


BAD = {"state/c/0/1/0/0", "mean/c/0", "shards.json"}


def _repair(store: Path) -> None:
    repair(store, {key for key in BAD if not (store / key).exists()}, data_config(store), invented_source(TIMES, GRID))


def _prepare(store: Path) -> None:
    prepare(data_config(store), invented_source(TIMES, GRID), workers=1)


def _before(work, store: Path, old: Path, whole: Path) -> None:
    shutil.rmtree(store, ignore_errors=True)
    if work is not _prepare:
        shutil.copytree(old if work is _append else whole, store)
    if work is _repair:
        for key in BAD:
            (store / key).unlink()


@pytest.mark.parametrize("stride", [61, pytest.param(29, marks=pytest.mark.slow)])
@pytest.mark.parametrize("work", [_append, _repair, _prepare])
def test_stopped_after_any_operation(work, stride, old, whole, tmp_path, monkeypatch):
    store = tmp_path / "s" / "store.zarr"
    store.parent.mkdir()
    with stopped_after(10**9, monkeypatch) as operations:
        _before(work, store, old, whole)
        start = operations()
        work(store)
        total = operations() - start
    assert total > 100
    last = range(max(0, total - 27), total) if stride > 1 else ()  # where the two change places
    for stop in sorted({*range(0, total, stride), *list(last)[::3]}):
        _before(work, store, old, whole)
        before = tree(store) if store.exists() else {}
        if _runs(lambda: work(store), stop, monkeypatch):
            assert stop > total - 20  # threads that make one folder try a little more often or less
        _look(work, store, before, whole)
        work(store)
        assert_same_tree(store, whole)
        assert list(store.parent.iterdir()) == [store], stop


def _look(work, store: Path, before: dict[str, bytes], whole: Path) -> None:
    """What a reader finds where it was stopped."""
    expected = ("not finished", "no store at", "not a weatherfm store") if work is _prepare else ("at its last step",)
    try:
        found = open_store(store)
    except InputError as error:
        told = str(error)
        assert any(text in told for text in expected), told
        return
    now = {key: content for key, content in tree(store).items() if not key.startswith(".progress")}
    assert now in (before, tree(whole))
    assert found.channels


def test_repair_never_writes_a_manifest_in_place(whole, tmp_path, monkeypatch):
    """Stopped in the middle of writing it, the successor had half a manifest, and no command could go on."""
    store = tmp_path / "s" / "store.zarr"
    _before(_repair, store, whole, whole)
    opened: list[str] = []
    real = Path.open

    def noting(self: Path, mode: str = "r", *arguments, **settings):
        if "w" in mode or "+" in mode:
            opened.append(self.parent.name)
        return real(self, mode, *arguments, **settings)

    monkeypatch.setattr(Path, "open", noting)
    monkeypatch.setattr(Path, "write_bytes", lambda *_: pytest.fail("written in place"))
    monkeypatch.setattr(Path, "write_text", lambda *_: pytest.fail("written in place"))
    _repair(store)
    assert opened
    assert set(opened) == {"temporary"}  # and renamed from there


def test_half_a_successor_does_not_stop_a_repair(whole, tmp_path):
    store = tmp_path / "s" / "store.zarr"
    _before(_repair, store, whole, whole)
    shutil.copytree(whole, store.with_name(".store.zarr.next"))
    text = (whole / "manifest.json").read_text()
    (store.with_name(".store.zarr.next") / "manifest.json").write_text(text[: len(text) // 2])
    _repair(store)
    assert_same_tree(store, whole)


def test_repair_that_goes_on_drops_what_was_found_bad_since(whole, tmp_path):
    """The successor of an interrupted repair has links to the store's files, also to one that is damaged now."""
    store = tmp_path / "s" / "store.zarr"
    shutil.copytree(whole, store)
    (store / "mean/c/0").unlink()

    def failing(number, values):
        raise OSError("the source went away")

    bad = {"state/c/1/0/0/0", "mean/c/0"}
    with pytest.raises(OSError, match="went away"):
        repair(store, bad, data_config(store), invented_source(TIMES, GRID, spoil=failing))
    content = bytearray((store / "state/c/0/0/0/0").read_bytes())
    content[1000] ^= 1
    (store / "state/c/0/0/0/0").write_bytes(content)
    bad.add("state/c/0/0/0/0")
    repair(store, bad, data_config(store), invented_source(TIMES, GRID))
    assert_same_tree(store, whole)


@pytest.mark.parametrize("operation", ["fsync", "link", "mkdir"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_or_quota_while_appending_harms_nothing(operation, error, old, whole, tmp_path, monkeypatch):
    store = tmp_path / "s" / "store.zarr"
    _before(_append, store, old, whole)
    real, calls = getattr(os, operation), []

    def full(*arguments, **settings):
        calls.append(arguments)
        if len(calls) > 1:
            raise OSError(error, os.strerror(error))
        return real(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(os, operation, full)
        patch.setattr(shutil, "copy2", full)  # what is tried where a link cannot be made
        with pytest.raises(InputError, match=r"no space left for .*start the same command again"):
            _append(store)
    assert_same_tree(store, old)
    _append(store)
    assert_same_tree(store, whole)
    assert list(store.parent.iterdir()) == [store]


# Two at once ---------------------------------------------------------------------------------------------------------


def _start(code: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(importable(__file__))}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)


def _ended(processes: list[subprocess.Popen]) -> list[str]:
    texts = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), texts
    return texts


def test_many_settle_an_interrupted_swap_at_once(tmp_path):
    code = f"""
import sys, time
from pathlib import Path
from weatherfm.data_pipeline.store.records.swap import hold
from weatherfm.errors import InputError
root = Path({str(tmp_path)!r}) / "s.zarr"
while not (root.parent / "go").exists(): time.sleep(0.001)
for _ in range(50):
    try:
        with hold(root): assert (root / "manifest.json").read_text().startswith("new")
        break
    except InputError as error:
        assert "another process is writing" in str(error), error
        time.sleep(0.01)
else:
    sys.exit(1)
"""
    _place(tmp_path, ".s.zarr.last", "old")
    new = tree(_place(tmp_path, ".s.zarr.next", "new"))
    processes = [_start(code) for _ in range(4)]
    (tmp_path / "go").touch()
    _ended(processes)
    (tmp_path / "go").unlink()
    assert tree(tmp_path / "s.zarr") == new
    assert list(tmp_path.iterdir()) == [tmp_path / "s.zarr"]


def test_a_lock_that_is_removed_lets_one_in_at_a_time(tmp_path):
    """Counting up a number in a file, each time with a lock file that is made and removed again."""
    code = f"""
from pathlib import Path
from weatherfm.file_lock import FileLock, Held
folder = Path({str(tmp_path)!r})
for _ in range(200):
    lock = FileLock(folder / "lock")
    while True:
        try: lock.take(); break
        except Held: pass
    number = int((folder / "number").read_text())
    (folder / "number").write_text(str(number + 1))
    lock.release(remove=True)
"""
    (tmp_path / "number").write_text("0")
    _ended([_start(code) for _ in range(3)])
    assert (tmp_path / "number").read_text() == "600"
    assert not (tmp_path / "lock").exists()


def test_a_lock_removed_while_another_waits_at_it(tmp_path, monkeypatch):
    """The one that opened the file before it was removed must not take it for the lock."""
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    first.take()
    real, opened = os.open, []

    def opening(path, *arguments):
        handle = real(path, *arguments)
        opened.append(path)
        if len(opened) == 1:
            first.release(remove=True)  # between its opening and its locking
        return handle

    monkeypatch.setattr(os, "open", opening)
    second.take()
    monkeypatch.undo()
    assert len(opened) == 2
    with pytest.raises(Held, match="pid"):
        FileLock(tmp_path / "lock").take()
    second.release()


def test_two_appends_and_two_prepares_at_once(old, whole, tmp_path):
    """One does the work, the other says that it is being done, or finds it done."""
    for verb, name in (("append", "a.zarr"), ("prepare", "p.zarr")):
        path = tmp_path / name
        if verb == "append":
            shutil.copytree(old, path)
        code = f"""
import sys, time
from pathlib import Path
import numpy as np
from invented_source import data_config, invented_source, times_every
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append
from weatherfm.errors import InputError
from weatherfm.earth.grid import Grid
source = invented_source(times_every(6, 20), Grid(np.linspace(60, 30, 48), np.linspace(-20, 27, 48)))
path = Path({str(path)!r})
(path.parent / f"ready-{{sys.argv[1:]}}").touch()
try:
    {verb}(data_config(path), source)
    print("done")
except InputError as error:
    print(error)
"""
        texts = _ended([_start(code), _start(code)])
        assert "done\n" in texts
        assert all(text == "done\n" or "another process is writing" in text for text in texts), texts
        assert_same_tree(path, whole)
        for left in tmp_path.glob("ready*"):
            left.unlink()
        assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_prepare_that_comes_when_another_has_just_ended_finds_a_finished_store(old, tmp_path):
    """It had looked before the other was done, and was told that the folder holds something else than a store."""
    path, told = tmp_path / "store.zarr", []
    source = invented_source(TIMES[:OLD], GRID)
    config = data_config(path)

    import weatherfm.data_pipeline.prepare as module

    real = module.hold

    @contextmanager
    def late(root):
        shutil.copytree(old, root)  # the other process ends between this one's first look and its turn
        told.append(root)
        with real(root):
            yield

    module.hold = late
    try:
        store = prepare(config, source)
    finally:
        module.hold = real
    assert told == [path]
    assert len(store.times) == OLD
    assert_same_tree(path, old)


def test_manifest_is_small_and_the_list_of_files_is_beside_it(whole):
    manifest = json.loads((whole / "manifest.json").read_text())
    assert "files" not in manifest
    assert (whole / "manifest.json").stat().st_size < 10_000
