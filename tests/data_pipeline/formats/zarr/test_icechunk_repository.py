"""Icechunk repositories: one snapshot is read to the end of a run; which one is known again."""

from __future__ import annotations

import pickle
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from s3_server import serving_s3
from synthetic_files import TIMES, field, open_files, wave

from weatherfm.data_pipeline.formats.files.paths import find_files, recognise
from weatherfm.data_pipeline.formats.zarr import icechunk_repository, retries
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append
from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.sources.file_states import open_file_states
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.data_pipeline.verify import verify
from weatherfm.errors import InputError, OutsideError


@pytest.fixture
def icechunk():
    return pytest.importorskip("icechunk", reason="icechunk is not installed: pip install 'weatherfm[icechunk]'")


def commit(icechunk, path: Path, base=280.0, times=TIMES, message="x") -> str:
    """Another snapshot of branch main, which holds `field(base=base)`, one time a chunk; its id."""
    repository = icechunk.Repository.open_or_create(icechunk.local_filesystem_storage(str(path)))
    session = repository.writable_session("main")
    field(base=base, times=times).to_zarr(
        session.store, mode="w", consolidated=False, encoding={"t2m": {"chunks": (1, 4, 8)}}
    )
    return session.commit(message)


def read(path, **settings) -> np.ndarray:
    return open_files([str(path)], ["t2m"], **settings).state.values[:, 0]


def layout(path: Path) -> Path:
    """Folders of a repository, without a package that writes them."""
    for name in ("snapshots", "manifests", "refs"):
        (path / name).mkdir(parents=True)
    return path


def test_told_by_its_layout_or_name(tmp_path):
    assert recognise(str(layout(tmp_path / "ice"))) == "zarr"
    assert find_files([str(tmp_path / "**")], ()) == [str(tmp_path / "ice")]
    (tmp_path / "no" / "snapshots").mkdir(parents=True)
    yes = ("s3://b/v0.1.0.icechunk", "s3://b/icechunkV2/", "s3://b/a/icechunkV2/single/spatial")
    no = ("s3://icechunk/x.zarr", "https://h/x.icechunk", "s3://b/icechunk-copies/x.zarr", "nowhere/at/all", "gone")
    assert [icechunk_repository.is_repository(name) for name in (*yes, *no)] == [True] * 3 + [False] * 5
    assert not icechunk_repository.is_repository(str(tmp_path / "no"))


@pytest.mark.parametrize("path", ["", "s3://bucket/x.icechunk"])
def test_a_missing_package_is_named_with_its_cure(tmp_path, monkeypatch, path):
    monkeypatch.setitem(sys.modules, "icechunk", None)
    with pytest.raises(
        InputError, match=r"Icechunk repository, and .* not installed .*pip install 'weatherfm\[icechunk"
    ):
        read(path or layout(tmp_path / "ice"))


def test_an_old_package_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "icechunk", types.SimpleNamespace(__version__="0.2.18"))
    with pytest.raises(InputError, match=r"icechunk 0\.2\.18 is too old"):
        read(layout(tmp_path / "ice"))


def test_the_newest_snapshot_of_main_or_the_one_that_is_named(tmp_path, icechunk):
    path = tmp_path / "ice"
    first, second = commit(icechunk, path), commit(icechunk, path, base=270.0)
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(path)))
    repository.create_tag("v1", snapshot_id=first)
    repository.create_branch("old", snapshot_id=first)
    data = open_files(path, ["t2m"])
    np.testing.assert_array_equal(data.state[:, 0], wave(base=270.0).astype(np.float32))
    assert data.identity == {"ice": f"snapshot {second}"}
    for name in (first, "v1", "old"):
        np.testing.assert_array_equal(read(path, snapshot=name), wave().astype(np.float32))
        assert open_files(path, ["t2m"], snapshot=name).identity == {"ice": f"snapshot {first}"}
    with pytest.raises(InputError, match=r"no branch and no tag 'v2'; give one, or the id of a snapshot"):
        read(path, snapshot="v2")
    with pytest.raises(InputError, match=r"no snapshot 0{20}; correct source\.snapshot"):
        read(path, snapshot="0" * 20)


def test_what_is_committed_meanwhile_is_not_read(tmp_path, icechunk):
    path = tmp_path / "ice"
    commit(icechunk, path)
    data, states = open_files(path, ["t2m"]), open_file_states([str(path)], ["t2m"])
    fields = pickle.loads(pickle.dumps(data.fields))
    commit(icechunk, path, base=270.0)
    all_times, channel = np.arange(len(TIMES)), np.array([0])
    for values in (data.state.values, fields.read(all_times, channel), states.read(states.times, ["t2m"])[:, 0]):
        np.testing.assert_array_equal(values[:, 0], wave().astype(np.float32))
    assert data.cost(all_times).compressed > 0


def test_a_group_is_a_store_of_its_own(tmp_path, icechunk):
    path = tmp_path / "bucket" / "era5.icechunk"
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(path)))
    session = repository.writable_session("main")
    field().to_zarr(session.store, group="single/spatial", consolidated=False)
    snapshot = session.commit("x")
    with pytest.raises(InputError, match=r"its fields in groups .*: .*era5\.icechunk/single/spatial"):
        read(path)
    data = open_files([f"{path}/single/spatial"], ["t2m"])
    np.testing.assert_array_equal(data.state[:, 0], wave().astype(np.float32))
    assert data.identity == {"spatial": f"snapshot {snapshot}"}
    assert data.cost(np.arange(1)).compressed > 0
    with pytest.raises(InputError, match="no Zarr store is there"):
        read(f"{path}/single/temporal")
    with serving_s3(tmp_path) as server:
        values = read("s3://bucket/era5.icechunk/single/spatial", storage_options={"endpoint_url": server.endpoint})
    np.testing.assert_array_equal(values, wave().astype(np.float32))


def settings(store: Path, path: Path, **source) -> DataConfig:
    source = {"kind": "files", "paths": [str(path)], **source}
    return DataConfig(store=str(store), source=source, channels=["t2m"], climatology_window=None, allow_gaps=True)


def test_an_interrupted_prepare_knows_its_snapshot(tmp_path, icechunk, monkeypatch):
    path, store = tmp_path / "ice", tmp_path / "s.zarr"
    first = commit(icechunk, path)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("weatherfm.data_pipeline.prepare.write_without_empty_times", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(settings(store, path))
    monkeypatch.undo()
    second = commit(icechunk, path, base=270.0)
    with pytest.raises(InputError, match=rf"1 changed: ice \(was snapshot {first}, is snapshot {second}\)"):
        prepare(settings(store, path))
    prepare(settings(store, path, snapshot=first))
    np.testing.assert_array_equal(xr.open_zarr(store)["state"][:, 0], wave().astype(np.float32))


def test_append_and_verify(tmp_path, icechunk, caplog):
    path, store = tmp_path / "ice", tmp_path / "s.zarr"
    first = commit(icechunk, path)
    prepare(settings(store, path))
    later = np.append(TIMES, TIMES[-1] + np.timedelta64(12, "h"))
    commit(icechunk, path, times=later)
    append(settings(store, path))
    assert f"was snapshot {first}" in caplog.text
    np.testing.assert_array_equal(xr.open_zarr(store)["state"][:, 0], wave(later).astype(np.float32))
    assert verify(store).ok


def test_a_missing_chunk_and_damage_are_told(tmp_path, icechunk):
    path = tmp_path / "ice"
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(path)))
    session = repository.writable_session("main")
    field().isel(time=[0]).to_zarr(session.store, consolidated=False, encoding={"t2m": {"chunks": (1, 4, 8)}})
    group = zarr.open_group(session.store)
    for name in ("t2m", "time"):
        group[name].resize((2, *group[name].shape[1:]))
    group["time"][:] = [0, 1]
    session.commit("one of two")
    with pytest.raises(InputError, match=r"ice: t2m at 2020-01-02T00:00: chunk t2m/c/1/0/0 is not there"):
        read(path)
    for place, says in (
        ("manifests", r"is damaged \(IcechunkFault: invalid magic"),
        ("refs/branch.main", "cannot be opened"),
    ):
        other = shutil.copytree(path, tmp_path / place.partition("/")[0])
        for file in (other / place).iterdir():
            file.write_bytes(b"junk" * 100)
        with pytest.raises(InputError, match=says):
            read(other)


def test_on_s3(tmp_path, icechunk, monkeypatch):
    monkeypatch.setattr(retries, "WAITS", (0.01,))
    commit(icechunk, tmp_path / "bucket" / "era5.icechunk")
    address = "s3://bucket/era5.icechunk"
    with serving_s3(tmp_path) as server:
        options = {"endpoint_url": server.endpoint}
        np.testing.assert_array_equal(read(address, storage_options=options), wave().astype(np.float32))
        server.key = "mykey"
        own = {**options, "key": "mykey", "secret": "s3cr3t-0123"}
        np.testing.assert_array_equal(read(address, storage_options=own), wave().astype(np.float32))
        with pytest.raises((InputError, OutsideError), match=r"give a key|or give a key that may read it"):
            read(address, storage_options=options)
        with pytest.raises(
            InputError, match=r"storage_options has profile, which .* s3:// does not know; it knows key"
        ):
            read(address, storage_options={"profile": "x"})
        server.key = ""
        with pytest.raises(InputError, match="no Icechunk repository is there; correct the address"):
            read("s3://bucket/other.icechunk", storage_options=options)


def test_a_snapshot_of_nothing_is_warned_of(tmp_path, caplog):
    field().to_zarr(tmp_path / "x.zarr")
    open_source(settings(tmp_path / "s", tmp_path / "x.zarr", snapshot="v1"))
    assert "source.snapshot changes nothing" in caplog.text
