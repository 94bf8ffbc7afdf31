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
from weatherfm.data_pipeline.revise import append
from weatherfm.data_pipeline.store import open_store
from weatherfm.errors import InputError
from weatherfm.grid import regular_grid

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
