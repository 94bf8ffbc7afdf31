"""A store that is opened, to train or to take the place of another, is what its manifest says."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from invented_source import assert_same_tree, data_config, invented_source, times_every

from weatherfm.data_pipeline import revise
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append, repair
from weatherfm.data_pipeline.store.records.swap import hold
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.data_pipeline.verify import verify
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError

GRID, TIMES, OLD = regular_grid((4, 8)), times_every(6, 40), 100


def source(n_times: int = len(TIMES), identity: str = "10 bytes, changed 1", **settings):
    made = invented_source(TIMES[:n_times], GRID, static=("lsm",), **settings)
    return dataclasses.replace(made, identity={"a.nc": identity})


def config(path: Path):
    return data_config(path, static=["lsm"])


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("old") / "store.zarr"
    prepare(config(path), source(OLD))
    return path


@pytest.fixture
def store(old, tmp_path) -> Path:
    return Path(shutil.copytree(old, tmp_path / "store.zarr"))


@pytest.mark.parametrize(
    ("key", "read"),
    [
        ("mean/c/0", lambda store: store.domain()),
        ("std/c/0", lambda store: store.domain()),
        ("tendency_std/c/0", lambda store: store.tendency_std),
        ("static_fields/c/0/0/0", lambda store: store.static),
        ("time/c/0", lambda store: store.times),
        ("hour/c/0", lambda store: store.climatology_at(TIMES[:1])),
        ("state/zarr.json", lambda store: store.read([0])),
        ("climatology/zarr.json", lambda store: store.climatology_at(TIMES[:1])),
    ],
)
def test_training_reads_nothing_that_was_changed(store, key, read):
    """One digit of a mean or a deviation made a model of other numbers, in silence."""
    content = bytearray((store / key).read_bytes())
    content[-2] ^= 1
    (store / key).write_bytes(content)
    with pytest.raises(InputError, match=rf"{key} is missing or damaged \(it has a wrong checksum\).*--repair"):
        read(open_store(store))
    (store / key).unlink()
    with pytest.raises(InputError, match=rf"{key} is missing or damaged \(it is missing\)"):
        read(open_store(store))


def test_who_opened_the_store_before_is_told_that_it_grew(store):
    """Statistics of one and channels of the other are no store."""
    opened = open_store(store)
    mean = opened.mean
    append(config(store), source())
    for read in (lambda: opened.std, lambda: opened.times, opened.files):
        with pytest.raises(InputError, match="was replaced by its successor"):
            read()
    assert not np.array_equal(open_store(store).mean, mean)


def finished_successor(store: Path, monkeypatch, **settings) -> None:
    """Killed between its last file and its change of place."""

    def killed(root):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(revise, "swap", killed)
        with pytest.raises(KeyboardInterrupt):
            append(config(store), source(**settings))
    assert (store.with_name(".store.zarr.next") / "manifest.json").exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "store.zarr"
    prepare(config(path), source())
    return path


def test_a_finished_successor_of_other_files_does_not_take_the_place(store, whole, monkeypatch):
    """The file was corrected in between: what it held before was put in place unseen."""
    wrong = {"identity": "10 bytes, changed 0", "spoil": lambda number, values: values + 1}
    finished_successor(store, monkeypatch, **wrong)
    append(config(store), source())
    assert_same_tree(store, whole)


@pytest.mark.parametrize("key", ["mean/c/0", "files.json", "sources.json", "state/zarr.json"])
def test_a_finished_successor_that_is_damaged_is_made_anew(store, whole, monkeypatch, key):
    finished_successor(store, monkeypatch)
    file = store.with_name(".store.zarr.next") / key
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    append(config(store), source())
    assert_same_tree(store, whole)


def test_a_finished_successor_takes_the_place_without_reading(store, whole, monkeypatch):
    finished_successor(store, monkeypatch)
    append(config(store), source(spoil=lambda number, values: pytest.fail("read") if number > 20 else values))
    assert_same_tree(store, whole)


TRAINING = {"train": "2000-01-01/2000-01-20"}
LATE = np.arange(OLD) >= 90


def grown(path: Path, preliminary: bool, settings: dict, seed: int = 1):
    """A store that was opened and read, and then appended to by another process."""
    first = dataclasses.replace(source(OLD, seed=seed), preliminary=LATE if preliminary else None)
    prepare(config(path).model_copy(update=settings), first)
    opened = open_store(path)
    before = opened.read([0, 95]), opened.climatology_at(opened.times[:1])
    append(config(path).model_copy(update=settings), source(seed=0))
    return opened, before


def training_days(path: Path) -> dict:
    return {"train": config(path).model_validate(config(path).model_dump() | TRAINING).train}


def test_who_reads_goes_on_where_times_were_only_added(tmp_path):
    path = tmp_path / "store.zarr"
    opened, (fields, climatology) = grown(path, False, training_days(path), seed=0)
    assert len(open_store(path).times) > len(opened.times)
    np.testing.assert_array_equal(opened.read([0, 95]), fields)
    np.testing.assert_array_equal(opened.climatology_at(opened.times[:1]), climatology)


def test_who_reads_is_told_that_preliminary_fields_were_replaced(tmp_path):
    """A half of a training or of its scores saw other fields than the other, in silence."""
    path = tmp_path / "store.zarr"
    opened, _ = grown(path, True, training_days(path))
    for read in (lambda: opened.read([0]), lambda: opened.climatology_at(opened.times[:1])):
        with pytest.raises(InputError, match="was replaced by its successor"):
            read()


def test_who_reads_is_told_that_training_days_were_added(tmp_path):
    path = tmp_path / "store.zarr"
    opened, _ = grown(path, False, {}, seed=0)
    with pytest.raises(InputError, match="was replaced by its successor"):
        opened.read([0])


def test_a_repaired_store_is_read_on(store):
    opened = open_store(store)
    before = opened.read([0])
    (store / "state/c/0/1/0/0").unlink()
    repair(store, {"state/c/0/1/0/0"}, config(store), source(OLD))
    np.testing.assert_array_equal(opened.read([0]), before)


@pytest.mark.parametrize("how", ["in place", "anew"])
def test_a_file_damaged_between_a_killed_repair_and_the_next_is_mended(store, old, monkeypatch, how):
    """The finished successor of the first took the place, with the new damage in it."""

    def killed(root):
        raise KeyboardInterrupt

    (store / "state/c/0/1/0/0").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(revise, "swap", killed)
        with pytest.raises(KeyboardInterrupt):
            repair(store, verify(store).bad_files(), config(store), source(OLD))
    shard = store / "state/c/0/0/0/0"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    if how == "anew":
        shard.unlink()
    shard.write_bytes(content)
    bad = verify(store).bad_files()
    assert bad == {"state/c/0/0/0/0", "state/c/0/1/0/0"}
    repair(store, bad, config(store), source(OLD))
    assert verify(store).bad_files() == set()
    assert_same_tree(store, old)


def test_a_lock_that_a_killed_process_left_goes(store):
    """Killed as it let go of a store that was finished: nobody took that lock again."""
    left = store.with_name(".store.zarr.lock")
    left.write_text("pid 1, host elsewhere\n")
    prepare(config(store), source(OLD))
    assert not left.exists()


def test_a_finished_store_is_asked_for_while_another_holds_it(store):
    with hold(store):
        assert len(prepare(config(store), source(OLD)).times) == OLD
        assert store.with_name(".store.zarr.lock").exists()
