"""Every chunk of state and climatology carries a checksum: whoever reads a changed bit is told of it by name."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from invented_source import assert_same_tree, data_config, invented_source, times_every
from numcodecs import Blosc

from weatherfm.data_pipeline import prepare as preparing
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append, repair
from weatherfm.data_pipeline.store.read_faults import read_back
from weatherfm.data_pipeline.store.training_store import open_array, open_store
from weatherfm.data_pipeline.verify import verify
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError

GRID, TIMES, OLD = regular_grid((4, 8)), times_every(6, 20), 60


def source(n_times: int = len(TIMES), **settings):
    return invented_source(TIMES[:n_times], GRID, **settings)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "store.zarr"
    prepare(data_config(path), source())
    return path


@pytest.fixture
def store(sound, tmp_path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "store.zarr"))


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("key", "fields", "read"),
    [
        ("state/c/0/0/0/0", "fields of z500, t850", lambda store: store.read(np.arange(len(store.times)))),
        ("state/c/0/1/0/0", "fields of t2m", lambda store: store.read(np.arange(len(store.times)), ["t2m"])),
        ("state/c/0/1/0/0", "fields of t2m", lambda store: store.keep(np.arange(len(store.times)))),
        ("climatology/c/0/2/0/0/0", "climatology of z500, t850", lambda store: store.climatology_at(store.times[:4])),
        ("climatology/c/0/3/1/0/0", "climatology of t2m", lambda store: store.climatology_at(store.times[:4])),
    ],
)
def test_a_flipped_bit_is_told_by_file_and_variable(store, key, fields, read):
    """Of a hundred, 59 made other fields, in silence: compressed values have no redundancy of their own."""
    size = (store / key).stat().st_size
    for at in (0, size // 3, size - 1):  # the last are those of the index
        flip(store / key, at)
        with pytest.raises(InputError, match=rf"{key} \({fields}\) is damaged.*--repair"):
            read(open_store(store))
        flip(store / key, at)
    read(open_store(store))


def test_a_shard_that_is_gone_or_cut_short_is_told_alike(store):
    file = store / "state/c/0/1/0/0"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"state/c/0/1/0/0 \(fields of t2m\) is damaged"):
        open_store(store).read([0])
    file.unlink()
    with pytest.raises(InputError, match=r"state/c/0/1/0/0 \(fields of t2m\) is missing"):
        open_store(store).read([0])


def test_the_checksum_is_that_of_another_package(sound):
    """Decompressed, the first chunk ends with the CRC32C of its values; the shard's index tells where it is."""
    shard = (sound / "state/c/0/0/0/0").read_bytes()
    shape = json.loads((sound / "state/zarr.json").read_text())["chunk_grid"]["configuration"]["chunk_shape"]
    begin, length = struct.unpack_from("<QQ", shard, len(shard) - 4 - 16 * shape[0])
    chunk = Blosc().decode(shard[begin : begin + length])
    assert chunk[:-4] == open_store(sound).read([0], ["z500", "t850"]).tobytes()
    assert struct.unpack("<I", chunk[-4:])[0] == google_crc32c.value(chunk[:-4])


def test_who_makes_a_store_longer_reads_nothing_that_was_changed(store):
    """Changes across shards and climatology are taken from what was written before."""
    flip(store / "state/c/0/0/0/0", 10)
    with pytest.raises(InputError, match=r"state/c/0/0/0/0 is damaged.*start the same command again"):
        read_back(open_array(store, "state")[:5], store)
    np.testing.assert_array_equal(read_back(open_array(store, "state")[:5, 2:], store).shape, (5, 1, 4, 8))


# Stores of before ----------------------------------------------------------------------------------------------------


@pytest.fixture
def before(monkeypatch):
    """As a version wrote stores that knew no checksums of chunks."""
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "was_begun_without", lambda *_: True)
        yield


@pytest.fixture
def plain(before, tmp_path) -> Path:
    path = tmp_path / "plain.zarr"
    prepare(data_config(path), source())
    return path


def names_of_codecs(store: Path, array: str = "state") -> list[str]:
    codecs = json.loads((store / array / "zarr.json").read_text())["codecs"]
    return [codec["name"] for codec in codecs[0]["configuration"]["codecs"]]


def test_a_store_of_before_stays_as_it_is(plain, store, tmp_path, monkeypatch):
    assert names_of_codecs(store) == names_of_codecs(store, "climatology") == ["bytes", "crc32c", "blosc"]
    assert names_of_codecs(plain) == names_of_codecs(plain, "climatology") == ["bytes", "blosc"]
    monkeypatch.undo()
    assert verify(plain).problems == []
    np.testing.assert_array_equal(open_store(plain).read([3]), open_store(store).read([3]))
    flip(plain / "state/c/0/1/0/0", 10)
    assert verify(plain).bad_files() == {"state/c/0/1/0/0"}
    kept = {key: (plain / key).read_bytes() for key in ("manifest.json", "state/c/0/0/0/0")}
    repair(plain, {"state/c/0/1/0/0"}, data_config(plain), source())
    assert verify(plain).problems == []
    assert {key: (plain / key).read_bytes() for key in kept} == kept


def test_a_store_of_before_grows_as_it_was(plain, tmp_path):
    path = tmp_path / "grown.zarr"
    prepare(data_config(path), source(OLD))
    append(data_config(path), source())
    assert_same_tree(path, plain)


def test_a_store_begun_before_is_ended_as_it_was(plain, tmp_path, monkeypatch):
    path = tmp_path / "begun.zarr"

    def failing(number, values):
        if number:
            raise OSError("the source went away")
        return values

    with pytest.raises(OSError, match="went away"):
        prepare(data_config(path), source(spoil=failing))
    monkeypatch.undo()
    prepare(data_config(path), source())
    assert_same_tree(path, plain)
