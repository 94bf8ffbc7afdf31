"""Zarr stores by address: what fails for a moment is waited out, what is missing is never filled in."""

from __future__ import annotations

import errno
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from cloud_stores import ARCO_GRID, WB2_GRID, serving, values, write_arco, write_weatherbench2

from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.formats.files.paths import find_files, recognise
from weatherfm.data_pipeline.formats.zarr import filesystems, retries
from weatherfm.data_pipeline.formats.zarr.opening import chunk_place, is_address
from weatherfm.data_pipeline.formats.zarr.retries import is_passing
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.data_pipeline.verify import verify
from weatherfm.errors import InputError, OutsideError

NAME = "1959-2023_01_10-6h-64x32_equiangular_conservative.zarr"
ARCO = "full_37-1h-0p25deg-chunk-1.zarr-v3"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(retries, "WAITS", (0.01, 0.02))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cloud")
    write_weatherbench2(folder)
    write_arco(folder, ("2020-01-01", "2020-01-04"), ("geopotential", "2m_temperature"), valid_time_stop="2020-01-03")
    return folder


@pytest.fixture
def server(folder):
    """A new port a test: stores are kept open by their address."""
    with serving(folder) as server:
        yield server


def opened(kind, address, channels=("z500", "z850", "t2m"), **settings) -> SourceData:
    source = {"kind": kind, "paths": [address]} if kind == "files" else {"kind": kind, "address": address}
    return open_source(DataConfig(store="unused", source=source, channels=list(channels), **settings))


# --- both sources, and files, over HTTP ---


@pytest.mark.parametrize("kind", ["weatherbench2", "files"])
def test_weatherbench2_over_http(server, kind):
    data = opened(kind, f"{server.address}/{NAME}/", static=["lsm"])
    hours = data.state["time"].values.astype("datetime64[h]")
    state = pickle.loads(pickle.dumps(data.state)).values  # as dask.distributed sends it to another process
    np.testing.assert_array_equal(state[:, :2], values("geopotential", hours, WB2_GRID, [500, 850])[:, :, ::-1])
    np.testing.assert_array_equal(state[:, 2], values("2m_temperature", hours, WB2_GRID)[:, ::-1])
    assert len(server.chunks()) == len(set(server.chunks())) == 4 * 2 == data.cost(np.arange(32)).requests
    assert data.attributes["first_file"] == NAME


def test_arco_over_http(server):
    data = opened("arco", f"{server.address}/{ARCO}", period="2020-01-02/2020-01-03")
    assert len(server.asked) < 20
    hours = data.state["time"].values.astype("datetime64[h]")
    np.testing.assert_array_equal(data.state.values[:, 0], values("geopotential", hours, ARCO_GRID, [500])[:, 0])
    assert len(server.chunks()) == len(set(server.chunks())) == 2 * 48


def test_google_addresses(folder, tmp_path, monkeypatch):
    """The real addresses of both sources, with a local server in place of Google's."""
    buckets = (
        ("weatherbench2/datasets/era5", NAME),
        ("gcp-public-data-arco-era5/ar", "full_37-1h-0p25deg-chunk-1.zarr-v3"),
    )
    for bucket, name in buckets:
        (tmp_path / bucket).mkdir(parents=True)
        (tmp_path / bucket / name).symlink_to(folder / name)
    with serving(tmp_path) as server:
        monkeypatch.setattr(filesystems, "GOOGLE", server.address)
        for kind in ("weatherbench2", "arco"):
            data = open_source(
                DataConfig(store="unused", source={"kind": kind}, channels=["t2m"], period="2020-01-02/2020-01-03")
            )
            assert np.isfinite(data.state.values).all()
            server.faults = {"2m_temperature": ["404"]}
            with pytest.raises(InputError, match=r"gs://.*zarr.*: 2m_temperature at 2020-01-0.* is not there"):
                data.state.values  # noqa: B018


def test_sizes_are_asked_for_not_downloaded(server, folder):
    data = opened("weatherbench2", f"{server.address}/{NAME}")
    before = len(server.chunks())
    cost = data.cost(np.arange(32))
    assert len(server.chunks()) == before
    on_disk = sum(
        f.stat().st_size for name in ("geopotential", "2m_temperature") for f in (folder / NAME / name).glob("[0-9]*")
    )
    assert cost.compressed == pytest.approx(on_disk, rel=0.05)  # three of four chunks were looked at


# --- failures that pass ---


@pytest.mark.parametrize("fault", ["503", "500", "429", "reset", "short"])
def test_a_failure_that_passes_is_not_noticed(server, fault):
    data = opened("weatherbench2", f"{server.address}/{NAME}")
    server.faults = {"geopotential/1.0": [fault, fault], "2m_temperature/0.0.0": [fault]}
    state = data.state.values
    hours = data.state["time"].values.astype("datetime64[h]")
    np.testing.assert_array_equal(state[:, 2], values("2m_temperature", hours, WB2_GRID)[:, ::-1])
    asked = [path for path in server.chunks() if path.endswith("geopotential/1.0.0.0")]
    assert len(asked) == 3


def test_a_failure_while_opening_is_waited_out(server):
    server.faults = {".zmetadata": ["503"], "latitude/0": ["reset"]}
    assert len(opened("weatherbench2", f"{server.address}/{NAME}").state["time"]) == 32


def test_silence_is_a_failure(server, monkeypatch):
    monkeypatch.setattr(filesystems, "SILENCE", 0.1)
    data = opened("weatherbench2", f"{server.address}/{NAME}", ["t2m"])
    server.faults = {"2m_temperature/1.0.0": ["slow"]}
    data.state.values  # noqa: B018
    assert sum(path.endswith("2m_temperature/1.0.0") for path in server.chunks()) == 2


def test_a_failure_that_stays_is_one_message(server):
    data = opened("weatherbench2", f"{server.address}/{NAME}")
    server.faults = {"geopotential/1.0.0.0": ["503"] * 9}
    message = (
        rf"network: {server.address}/{NAME}/geopotential/1\.0\.0\.0 could not be read in 3 tries \(.*503.*\); what is "
        "written is kept: start the same command again"
    )
    with pytest.raises(OutsideError, match=message):
        data.state.values  # noqa: B018


def test_nobody_answers(folder):
    with serving(folder) as server:
        address = f"{server.address}/{NAME}"
    with pytest.raises(OutsideError, match=r"network: http://127\.0\.0\.1.* could not be read in 3 tries \(ClientConn"):
        opened("weatherbench2", address)


# --- what is missing or refused ---


def test_a_missing_chunk_is_an_error_not_fill_values(folder, tmp_path):
    shutil.copytree(folder / NAME, tmp_path / NAME)
    (tmp_path / NAME / "geopotential" / "2.0.0.0").unlink()
    with serving(tmp_path) as server:
        for address in (f"{server.address}/{NAME}", str(tmp_path / NAME)):
            data = opened("weatherbench2", address)
            message = f"{address}: geopotential at 2020-01-05T00:00: chunk geopotential/2.0.0.0 is not there; nothing"
            with pytest.raises(InputError) as error:
                data.state.values  # noqa: B018
            assert message in str(error.value)
            assert np.isfinite(data.state.isel(time=slice(0, 16)).values).all()  # the rest is sound
        assert sum(path.endswith("2.0.0.0") for path in server.asked) == 1  # a 404 is an answer: no further tries


@pytest.mark.parametrize("v3", [False, True])
def test_a_missing_chunk_of_a_local_store_of_either_version(tmp_path, v3):
    import xarray as xr
    from synthetic_files import field

    field().to_zarr(tmp_path / "x.zarr", zarr_format=3 if v3 else 2, encoding={"t2m": {"chunks": (1, 4, 8)}})
    (tmp_path / "x.zarr" / "t2m" / ("c/2/0/0" if v3 else "2.0.0")).unlink()
    assert np.isnan(xr.open_zarr(tmp_path / "x.zarr")["t2m"][2]).all() or not v3  # what others make of it
    data = opened("files", str(tmp_path / "x.zarr"), ["t2m"])
    with pytest.raises(InputError, match=r"t2m at 2020-01-02T00:00: chunk t2m/.*2.0.0 is not there"):
        data.state.values  # noqa: B018


def test_a_refused_chunk_names_variable_and_time(server):
    data = opened("weatherbench2", f"{server.address}/{NAME}", ["t2m"])
    server.faults = {"2m_temperature/3.0.0": ["403"] * 5}
    with pytest.raises(InputError, match=r"2m_temperature at 2020-01-07T00:00: chunk .*3\.0\.0 is refused \(.*403"):
        data.state.values  # noqa: B018


def test_a_damaged_chunk_names_variable_and_time(folder, tmp_path):
    shutil.copytree(folder / NAME, tmp_path / NAME)
    chunk = tmp_path / NAME / "2m_temperature" / "1.0.0"
    chunk.write_bytes(chunk.read_bytes()[:100])
    with pytest.raises(
        InputError,
        match=r"conservative\.zarr: 2m_temperature at 2020-01-03T00:00: chunk 2m_temperature/1\.0\.0 is damaged",
    ):
        opened("weatherbench2", str(tmp_path / NAME), ["t2m"]).state.values  # noqa: B018


def test_a_wrong_address(server):
    with pytest.raises(InputError, match=r"/nowhere\.zarr: no Zarr store is there; correct the address"):
        opened("weatherbench2", f"{server.address}/nowhere.zarr")
    server.faults = {
        ".zmetadata": ["403"] * 9,
        "zarr.json": ["403"] * 9,
        ".zgroup": ["403"] * 9,
        ".zattrs": ["403"] * 9,
    }
    with pytest.raises(InputError, match=r"no Zarr store is there \(\.?z.* is refused \(.*403.*correct the address"):
        opened("weatherbench2", f"{server.address}/{NAME}")


def test_clouds_that_refuse_what_is_not_there(server):
    """Buckets that may not be listed answer 403 for a missing key; here for all that a Zarr v2 store has not."""
    server.faults = {"zarr.json": ["403"] * 9}
    assert len(opened("weatherbench2", f"{server.address}/{NAME}").state["time"]) == 32


def test_an_unknown_kind_of_address():
    with pytest.raises(InputError, match=r"such an address is not understood .*write gs://, s3://, az:// or https://"):
        opened("files", "gopher://host/x.zarr")


@pytest.mark.parametrize(
    ("address", "package"), [("gs://b/x.zarr", "aiohttp"), ("https://h/x.zarr", "aiohttp"), ("s3://b/x.zarr", "s3fs")]
)
def test_a_missing_package_is_named_with_its_cure(monkeypatch, address, package):

    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(sys.modules["fsspec.registry"], "_registry", {})
    with pytest.raises(InputError, match=rf"{package}.*pip install 'weatherfm\[cloud\]'"):
        opened("weatherbench2", address)


# --- parts ---


def test_addresses_and_paths(tmp_path):
    assert all(map(is_address, ["gs://b/x", "s3://b/x", "https://h/x", "HTTP://h/x"]))
    assert not any(map(is_address, ["/data/x.zarr", "data/x:y.nc", "~/x.nc", "C:/x.nc"]))
    assert find_files(["gs://b/x.zarr/", "gs://b/x.zarr"], ()) == ["gs://b/x.zarr"]
    assert find_files(["gs://b/x.zarr", "gs://b/y.zarr"], ["y.zarr"]) == ["gs://b/x.zarr"]
    assert recognise("gs://b/x.zarr") == "zarr"
    (tmp_path / "a b.nc").touch()
    assert find_files([f"file://{tmp_path}/a%20b.nc"], ()) == [f"{tmp_path}/a b.nc"]


def test_keys_of_chunks():
    assert chunk_place("t/0.12.3") == chunk_place("t/c/0/12/3") == chunk_place("group/t/0/12/3") == (0, 12, 3)
    assert chunk_place("time/0") == (0,)
    assert chunk_place("t/.zarray") == chunk_place("zarr.json") == chunk_place(".zmetadata") == ()


class Status(Exception):
    def __init__(self, status):
        self.status = status


@pytest.mark.parametrize("error", [Status(503), Status(429), Status(408), TimeoutError(), ConnectionResetError(),
                                   OSError(errno.ENETUNREACH, "x")])  # fmt: skip
def test_failures_worth_another_try(error):
    assert is_passing(error)


@pytest.mark.parametrize("error", [Status(403), Status(404), Status(400), PermissionError(), OSError("Forbidden"),
                                   ValueError(), OSError(errno.ENOSPC, "x")])  # fmt: skip
def test_failures_that_stay(error):
    assert not is_passing(error)


# --- end to end ---


def settings(address: str, store: Path) -> DataConfig:
    return DataConfig(
        store=str(store),
        source={"kind": "weatherbench2", "address": address},
        channels=["z500", "z850", "t850", "t2m"],
        static=["orography"],
        climatology_window=None,
        channel_block=1,
        shard_mib=1,
    )


def contents(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


def test_prepare_reads_each_chunk_once(server, tmp_path):
    """With a channel a shard, as at 0.25 degrees: the levels of a variable are written from one read."""
    config = settings(f"{server.address}/{NAME}", tmp_path / "s.zarr")
    prepare(config, workers=2)
    fields = [path for path in server.chunks() if "surface" not in path]
    assert len(set(fields)) == 4 * 3  # z, t and t2m in four chunks along time
    looked_at = [path for path in set(fields) if fields.count(path) == 2]  # once before, by the probe
    assert len(looked_at) == 3
    assert all(path.endswith(("/0.0.0", "/0.0.0.0")) for path in looked_at)
    assert len(fields) == 4 * 3 + 3


def test_prepare_survives_the_death_of_the_server(folder, tmp_path):
    """A store in two shards a channel; the server goes away after a few chunks, and comes back."""
    path = write_weatherbench2(tmp_path, days=33)
    with serving(tmp_path) as server:
        address = f"{server.address}/{path.name}"
        prepare(settings(address, tmp_path / "quiet.zarr"), workers=1)
        server.down_after = len(server.asked) + 50
        with pytest.raises(OutsideError, match=r"network: .* start the same command again"):
            prepare(settings(address, tmp_path / "cut.zarr"), workers=1)
        written = contents(tmp_path / "cut.zarr")
        assert any(name.startswith("state/c/") for name in written)
        server.down_after = None
        prepare(settings(address, tmp_path / "cut.zarr"), workers=1)
        assert contents(tmp_path / "cut.zarr") == contents(tmp_path / "quiet.zarr")
    assert verify(tmp_path / "cut.zarr").ok
