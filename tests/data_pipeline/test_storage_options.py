"""Private stores: keys reach the server, and nothing else; public ones are asked without."""

from __future__ import annotations

import json
import logging
import pickle
import sys
import traceback
import types

import numpy as np
import pytest
import yaml
from cloud_stores import WB2_GRID, serving, values, write_weatherbench2

from weatherfm.data_pipeline.access import PUBLIC, Access
from weatherfm.data_pipeline.formats.files.paths import find_files
from weatherfm.data_pipeline.formats.zarr import filesystems, retries
from weatherfm.data_pipeline.machine.cluster import _Packed
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError, OutsideError
from weatherfm.training.run_config import load_run

SECRET = "s3cr3t-t0k3n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("private")
    write_weatherbench2(folder, days=2, variables=("2m_temperature",))
    return folder


@pytest.fixture
def server(folder, monkeypatch):
    monkeypatch.setattr(retries, "WAITS", (0.01,))
    with serving(folder) as server:
        server.secret = SECRET
        server.address += f"/{next(folder.iterdir()).name}"
        yield server


def settings(address, tmp_path, options, kind="files") -> DataConfig:
    where = {"paths": [address]} if kind == "files" else {"address": address}
    source = {"kind": kind, **where, "storage_options": options}
    return DataConfig(store=str(tmp_path / "s.zarr"), source=source, channels=["t2m"], climatology_window=None)


OPTIONS = {
    "token": {"token": SECRET},
    "headers": {"headers": {"Authorization": f"Basic {SECRET}"}},
    "client headers": {"client_kwargs": {"headers": {"Authorization": f"Bearer {SECRET}"}}},
    "signature": {"sas_token": f"?sv=2024&sig={SECRET}%3D"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("kind", ["files", "weatherbench2"])
def test_keys_reach_the_server(server, tmp_path, options, kind):
    data = open_source(settings(server.address, tmp_path, options, kind))
    state = pickle.loads(pickle.dumps(data.state)).values  # a worker elsewhere has them, too
    hours = data.state["time"].values.astype("datetime64[h]")
    np.testing.assert_array_equal(state[:, 0], values("2m_temperature", hours, WB2_GRID)[:, ::-1])
    assert data.cost(np.arange(2)).compressed > 0  # sizes are asked for with the key


def test_without_a_key_it_is_refused_at_once(server, tmp_path):
    with pytest.raises(
        InputError, match=r"no Zarr store is there \(.*403.*correct the address, or give a key .*storage_options"
    ):
        open_source(settings(server.address, tmp_path, {}))
    with pytest.raises(InputError, match=r"storage_options has tokken, which https:// does not know; it knows .*token"):
        open_source(settings(server.address, tmp_path, {"tokken": SECRET}))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_key_is_written_nowhere(server, tmp_path, options, caplog, capfd):
    config = settings(server.address, tmp_path, options)
    server.faults = {"2m_temperature/0.0.0": ["503"]}
    with caplog.at_level(logging.DEBUG, "weatherfm"):
        prepare(config)
    assert "does not answer" in caplog.text
    server.faults = {"2m_temperature/0.0.0": ["403"]}
    other = config.model_copy(update={"store": str(tmp_path / "t.zarr")})
    with pytest.raises(InputError) as error:
        prepare(other)
    texts = [str(error.value), caplog.text, repr(config), config.model_dump_json(), *capfd.readouterr()]
    texts += [file.read_bytes().decode("latin-1") for file in tmp_path.rglob("*") if file.is_file()]
    assert len(texts) > 20
    assert not [text for text in texts if SECRET in text]
    manifest = json.loads((tmp_path / "s.zarr/manifest.json").read_text())
    assert "storage_options" not in manifest["request"]["source"]


@pytest.mark.parametrize("fault", ["403", "500"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_key_is_in_no_traceback_and_no_log(server, tmp_path, options, fault, caplog):
    """As `--debug` shows them: behind the message stood the package's own error, with the request and its key."""
    server.faults = {"2m_temperature/0.0.0": [fault] * 9}
    with caplog.at_level(logging.DEBUG), pytest.raises((InputError, OutsideError)) as told:
        prepare(settings(server.address, tmp_path, options))
    chain, error = [], told.value
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    texts = [caplog.text, *traceback.format_exception(told.value), *map(str, chain), *map(repr, chain)]
    assert not [text for text in texts if SECRET in text]


def test_what_stands_behind_a_public_failure_is_shown(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(retries, "WAITS", (0.01,))
    with serving(folder) as server:
        server.faults = {"2m_temperature/0.0.0": ["500"] * 9}
        with pytest.raises(OutsideError) as told:
            prepare(settings(f"{server.address}/{next(folder.iterdir()).name}", tmp_path, {}))
    assert "ClientResponseError" in "".join(traceback.format_exception(told.value))


def test_what_a_cluster_is_sent_does_not_show():
    assert SECRET not in repr(_Packed(pickle.dumps(Access.of({"token": SECRET}))))


def test_a_wrong_setting_beside_it_does_not_show_it(tmp_path):
    wrong = (
        {"kind": "file", "paths": ["x"], "storage_options": {"token": SECRET}},
        {"kind": "files", "paths": ["x"], "storage_options": SECRET},
        {"kind": "files", "paths": ["x"], "storage_options": [SECRET]},
    )
    for source in wrong:
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump({"run": "r", "data": {"store": "s", "channels": ["t2m"], "source": source}}))
        with pytest.raises(InputError) as error:
            load_run(path)
        assert SECRET not in str(error.value)


def test_secrets_in_addresses_are_refused_without_showing_them():
    for address in (f"https://h/x.zarr?sig={SECRET}", f"https://me:{SECRET}@h/x.zarr"):
        with pytest.raises(InputError, match=r"https://.*h/x\.zarr.* give it as source\.storage_options") as error:
            find_files([address], ())
        assert SECRET not in str(error.value)
    assert find_files(["abfss://container@account.dfs.core.windows.net/x.zarr"], ())


def test_google_with_an_endpoint(folder, tmp_path):
    with serving(folder.parent) as server:
        server.secret = SECRET
        address = f"gs://{folder.name}/{next(folder.iterdir()).name}"
        options = {"endpoint_url": server.address, "headers": {"Authorization": SECRET}}
        data = open_source(settings(address, tmp_path, options))
        assert np.isfinite(data.state.values).all()


def test_other_clouds_get_the_options_as_they_are(monkeypatch):
    """What each package is told; none of them is needed for it."""
    told = {}

    def from_url(address, storage_options, read_only):
        told[address.partition(":")[0]] = storage_options
        raise ImportError("Install it")

    monkeypatch.setattr(filesystems, "FsspecStore", types.SimpleNamespace(from_url=from_url))
    cases = {
        "s3://b/x": ({}, {"anon": True}),
        "s3a://b/x": ({"endpoint_url": "http://minio"}, {"endpoint_url": "http://minio"}),
        "az://c/x": ({"account_name": "a", "sas_token": "t"}, {"account_name": "a", "sas_token": "t"}),
        "gs://b/x": (
            {"token": "google_default", "requester_pays": "p"},
            {"token": "google_default", "requester_pays": "p"},
        ),
    }
    for address, (given, expected) in cases.items():
        with pytest.raises(InputError, match=r"needs a package that is not installed \(Install it\)"):
            filesystems.open_address(address, Access.of(given))
        assert told[address.partition(":")[0]] == expected
    for given in ({"key": "k", "secret": "s"}, {"profile": "mine"}, {"requester_pays": True}):
        with pytest.raises(InputError, match="s3fs"):
            filesystems.open_address("s3://b/x", Access.of(given))
        assert told["s3"] == given
    with pytest.raises(InputError, match="s3fs"):
        filesystems.open_address("s3://b/x", Access.of({"endpoint_url": "http://minio"}))
    assert told["s3"] == {"anon": True, "endpoint_url": "http://minio"}
    assert "gcsfs" not in sys.modules


def test_what_is_masked():
    access = Access.of(
        {"token": SECRET, "client_kwargs": {"headers": {"X": "key-1234"}}, "endpoint_url": "http://minio"}
    )
    text = f"{SECRET} at http://minio/x?sig=abc&b=c of key-1234"
    assert access.masked(text) == "*** at http://minio/x?*** of ***"
    assert SECRET not in repr(access)
    assert PUBLIC.masked("http://minio/x") == "http://minio/x"
    assert PUBLIC.masked("at http://me:word@minio/x") == "at http://***@minio/x"
    assert hash(access) == hash(pickle.loads(pickle.dumps(access)))
