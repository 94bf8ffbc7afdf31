from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from invented_source import CHANNELS, data_config, fields, invented_source, times_every

from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store.records.manifest import FORMAT_VERSION
from weatherfm.data_pipeline.store.training_store import Store, open_store
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError

TIMES, GRID = times_every(6, 30), regular_grid((4, 8))
VALUES = fields(TIMES, GRID)


def _make(path: Path) -> None:
    config = data_config(path, train="2000-01-01/2000-01-20", static=["lsm"], test="2000-01-25/2000-01-30")
    prepare(config, invented_source(TIMES, GRID, static=("lsm",)))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    path = tmp_path_factory.mktemp("store") / "store.zarr"
    _make(path)
    return open_store(path)


def test_facts(store):
    assert store.channels == CHANNELS
    assert store.grid == GRID
    assert store.step_hours == 6
    assert store.simulated is True
    assert str(store.periods["train"]) == "2000-01-01/2000-01-20"
    assert store.periods["validation"] is None
    assert store.climatology_period == store.periods["train"]
    assert store.climatology_window is None
    assert store.static.shape == (1, 4, 8)
    assert store.times.dtype == "datetime64[s]"
    np.testing.assert_array_equal(store.times, TIMES)
    assert "simulated" in repr(store)


@pytest.mark.parametrize("indices", [[0], [5, 3, 5, 119], [], range(40)], ids=str)
@pytest.mark.parametrize("channels", [None, ["t2m"], ["t2m", "z500"], list(CHANNELS)], ids=str)
def test_read(store, indices, channels):
    columns = [CHANNELS.index(name) for name in channels or CHANNELS]
    found = store.read(indices, channels)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, VALUES[list(indices)][:, columns])


def test_read_into_memory_at_hand(store):
    out = np.full((3, 2, 4, 8), np.nan, np.float32)
    assert store.read([5, 3, 5], ["t850", "t2m"], out) is out
    np.testing.assert_array_equal(out, VALUES[[5, 3, 5], 1:])


def test_neighbouring_channels_are_read_as_a_slice(store):
    assert store._channel_index(["t850", "t2m"]) == slice(1, 3)
    assert store._channel_index(["z500"]) == slice(0, 1)
    assert store._channel_index(None) == store._channel_index(CHANNELS) == slice(0, 3)
    assert store._channel_index(["t2m", "t850"]).tolist() == [2, 1]
    assert store._channel_index(["z500", "t2m"]).tolist() == [0, 2]


def test_index_of(store):
    assert store.index_of(np.array(["2000-01-02T06", "2000-01-01"], "datetime64[h]")).tolist() == [5, 0]
    with pytest.raises(InputError, match=r"times 2000-01-01T03, 1999-12-31T00 are not in the store .*every 6h"):
        store.index_of(np.array(["2000-01-01T03", "2000-01-01T06", "1999-12-31T00"], "datetime64[s]"))
    with pytest.raises(InputError, match="2000-02-01T00"):  # past the end
        store.index_of(np.array(["2000-02-01"], "datetime64[s]"))


def test_climatology_by_hour(store):
    times = np.array(["2010-05-05T18", "2010-07-01T00", "2011-05-05T18"], "datetime64[s]")
    found = store.climatology_at(times, ["t850", "z500"])
    exact = VALUES[:80].astype(np.float64)[:, [1, 0]]
    np.testing.assert_allclose(found, [exact[3::4].mean(0), exact[::4].mean(0), exact[3::4].mean(0)], rtol=1e-7)
    with pytest.raises(InputError, match=r"has no 03 UTC .*its hours are 00, 06, 12, 18"):
        store.climatology_at(np.array(["2010-05-05T03"], "datetime64[s]"))


def test_domain(store):
    domain = store.domain(["t2m", "z500"])
    assert domain.channels == ("t2m", "z500")
    np.testing.assert_array_equal(domain.mean, store.mean[[2, 0]])
    np.testing.assert_array_equal(domain.tendency_std, store.tendency_std[[2, 0]])
    assert domain.static_names == ("lsm",)
    assert store.domain().channels == CHANNELS


def test_unknown_channel(store):
    with pytest.raises(InputError, match=r"no channel q700; it holds z500 t850 t2m"):
        store.read([0], ["z500", "q700"])


def test_missing_shard_is_an_error_not_a_fill(tmp_path):
    _make(tmp_path / "s.zarr")
    (tmp_path / "s.zarr/state/c/0/0/0/0").unlink()
    with pytest.raises(InputError, match=r"is missing, or .*weatherfm verify"):
        open_store(tmp_path / "s.zarr").read([0])


def test_truncated_shard_is_an_error(tmp_path):
    _make(tmp_path / "s.zarr")
    shard = tmp_path / "s.zarr/state/c/0/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(InputError, match="is damaged"):
        open_store(tmp_path / "s.zarr").read([0])


def test_what_is_no_finished_store(tmp_path):
    with pytest.raises(InputError, match="no store at"):
        open_store(tmp_path / "nowhere.zarr")
    with pytest.raises(InputError, match="is not a weatherfm store"):
        open_store(tmp_path)
    (tmp_path / ".progress").mkdir()
    with pytest.raises(InputError, match="is not finished; start the same"):
        open_store(tmp_path)
    for content, message in (("{", "damaged"), ("{}", "does not describe"), ("[1]", "does not describe")):
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(InputError, match=message):
            open_store(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"format": "weatherfm-store", "format_version": 99}))
    with pytest.raises(InputError, match=f"format version 99, this program reads {FORMAT_VERSION}"):
        open_store(tmp_path)


def test_reads_without_the_data_stack(store):
    program = f"""
import sys
for name in ("xarray", "zarr", "dask", "pandas", "netCDF4", "distributed", "wandb", "cartopy"):
    sys.modules[name] = None  # importing it fails
from weatherfm.data_pipeline.store.training_store import open_store
import weatherfm.data_pipeline.loader
store = open_store({str(store.path)!r})
assert store.read([1, 2]).shape == (2, 3, 4, 8)
assert store.climatology_at(store.times[:1]).shape == (1, 3, 4, 8)
assert store.domain().channels == store.channels
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=240)
