"""Datasets behind OPeNDAP addresses: values, what a server's texts mean, and what befalls requests."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xarray as xr
from opendap_server import serving_dap
from synthetic_files import TIMES, field, open_files, wave

from weatherfm.data_pipeline.formats.datasets import reader
from weatherfm.data_pipeline.formats.files.paths import recognise
from weatherfm.data_pipeline.formats.opendap.addresses import is_opendap, web_address
from weatherfm.data_pipeline.formats.opendap.descriptions import read_attributes, read_structure
from weatherfm.data_pipeline.formats.opendap.opening import _values, open_opendap
from weatherfm.data_pipeline.formats.zarr import retries
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append
from weatherfm.data_pipeline.sources.file_states import open_file_states
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.data_pipeline.verify import verify
from weatherfm.errors import InputError, OutsideError


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(retries, "WAITS", (0.01, 0.01))


@pytest.fixture
def server():
    with serving_dap(served()) as server:
        yield server


def served(times=TIMES) -> xr.Dataset:
    dataset = field(times=times).astype("f4")
    dataset["t2m"].attrs = {"units": "K"}
    dataset["t2m"].encoding = {"_FillValue": np.float32(-999)}
    return dataset


WAVE = wave().astype(np.float32)


def test_values_are_those_that_are_served(server):
    assert recognise(server.address) == "opendap"
    data = open_files([server.address], ["t2m"])
    np.testing.assert_array_equal(data.state[:, 0], WAVE)
    np.testing.assert_array_equal(data.state["time"], TIMES)
    states = open_file_states([server.address], ["t2m"])
    np.testing.assert_array_equal(states.read(states.times, ["t2m"])[:, 0, 0], WAVE)


@pytest.mark.parametrize("grids", [False, True])
def test_libnetcdf_reads_the_same(grids):
    """An independent reader of the server that stands for all others here; it works where nothing fails."""
    with serving_dap(served(), grids=grids) as server:
        ours = open_opendap(server.address)
        with xr.open_dataset(server.address, engine="netcdf4", cache=False) as theirs:
            xr.testing.assert_equal(ours.load(), theirs.load())
            assert ours["t2m"].attrs == theirs["t2m"].attrs
        assert ("t2m.t2m" in "".join(server.asked)) == grids


def test_only_what_is_read_is_asked_for(server):
    data = open_files([server.address], ["t2m"], step="24h")
    assert not [path for path in server.asked if "dods?t2m" in path]
    cost = data.cost(np.arange(2))
    assert (cost.wanted, cost.moved, cost.requests) == (2 * WAVE[0].nbytes, 2 * WAVE[0].nbytes, 2)
    server.asked.clear()
    np.testing.assert_array_equal(data.state[:, 0], WAVE[::2])
    assert server.asked == ["/thredds/dodsC/era5/x.nc.dods?t2m%5B0:2:2%5D%5B0:1:3%5D%5B0:1:7%5D"]


@pytest.mark.parametrize("key", [np.s_[1], np.s_[::-1], np.s_[3:0:-2, :, ::2], np.s_[[2, 0], [1, 3]], np.s_[:0]])
def test_any_part_as_numpy_has_it(server, key):
    keys = key if isinstance(key, tuple) else (key,)
    variable = open_opendap(server.address).variables["t2m"]
    expected = xr.Variable(("time", "latitude", "longitude"), WAVE)
    np.testing.assert_array_equal(variable[keys], expected[keys])


def test_packed_and_missing_values_are_decoded():
    dataset = served()
    dataset["t2m"][0, 0, 0] = np.nan
    dataset["t2m"].encoding = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": np.int16(-1)}
    with serving_dap(dataset) as server:
        values = open_opendap(server.address)["t2m"].values
    assert np.isnan(values[0, 0, 0])
    np.testing.assert_allclose(values[1:], WAVE[1:], atol=0.0051)


def test_threads_and_other_processes(server):
    fields = pickle.loads(pickle.dumps(open_files([server.address], ["t2m"]).fields))
    with ThreadPoolExecutor(4) as threads:
        read = list(threads.map(lambda i: fields.read(np.array([i]), np.array([0])), list(range(len(TIMES))) * 4))
    for i, one in enumerate(read):
        np.testing.assert_array_equal(one[0, 0], WAVE[i % len(TIMES)])


@pytest.mark.parametrize("fault", ["500", "503", "429", "short"])
def test_a_failure_that_passes_is_waited_out(server, fault):
    data = open_files([server.address], ["t2m"])
    server.faults = [fault]
    np.testing.assert_array_equal(data.state[:, 0], WAVE)
    server.faults = [fault]
    np.testing.assert_array_equal(open_files([server.address], ["t2m"]).state[:, 0], WAVE)


@pytest.mark.parametrize("fault", ["500", "short"])
def test_a_failure_that_stays_is_one_message(server, fault):
    """libnetcdf reads zeros where an answer is cut short."""
    data = open_files([server.address], ["t2m"])
    server.faults = [fault] * 9
    with pytest.raises(OutsideError, match=r"network: http://.*x\.nc/dods\?.* could not be read in 3 tries"):
        data.state.values  # noqa: B018


def test_silence_is_a_failure(server, monkeypatch):
    monkeypatch.setattr("weatherfm.data_pipeline.formats.zarr.filesystems.SILENCE", 0.2)
    server.faults = ["slow"] * 9
    with pytest.raises(OutsideError, match="could not be read in 3 tries"):
        open_opendap(server.address)


@pytest.mark.parametrize(
    ("fault", "says"),
    [("404", "no such dataset .*correct the address"), ("403", "refuses .*403.*give a key .*storage_options"),
     ("400", "refuses .*400.*correct the address")],
)  # fmt: skip
def test_what_a_server_refuses(server, fault, says):
    """libnetcdf ends the process where an error page comes in place of a structure."""
    data = open_files([server.address], ["t2m"])
    server.faults = [fault]
    with pytest.raises(InputError, match=says):
        data.state.values  # noqa: B018
    server.faults = [fault]
    with pytest.raises(InputError, match=says):
        open_files([server.address], ["t2m"])


def test_an_error_of_dap_and_a_page(server, monkeypatch):
    for text, says in (
        ('Error { code = 500; message = "no disk"; };', 'its server says of dds: Error .*"no disk"'),
        ("<html>Welcome</html>", r"no DDS of OPeNDAP .*it starts with '<html>Welcome"),
        ("Dataset { Float32 x[time = ", "no DDS of OPeNDAP"),
    ):
        monkeypatch.setattr(server, "dds", lambda _, text=text: text)
        with pytest.raises(InputError, match=says):
            open_opendap(server.address)


def test_keys_are_sent_and_written_nowhere(server, tmp_path):
    prepare(settings(server.address, tmp_path / "s.zarr", storage_options={"token": "s3cr3t-t0k3n"}))
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer s3cr3t-t0k3n"}
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and b"s3cr3t" in file.read_bytes()]


def settings(address, store, **source) -> DataConfig:
    return DataConfig(
        store=str(store), source={"kind": "files", "paths": [address], **source}, channels=["t2m"],
        climatology_window=None,
    )  # fmt: skip


def test_prepare_append_and_verify(server, tmp_path, caplog):
    store = tmp_path / "s.zarr"
    prepare(settings(server.address, store))
    later = np.append(TIMES, TIMES[-1] + np.timedelta64(12, "h"))
    server.serve(served(later))
    reader._open.cache_clear()  # as in another process: what is opened by address is kept open in one
    append(settings(server.address, store))
    assert "1 changed: x.nc (was metadata" in caplog.text
    np.testing.assert_array_equal(xr.open_zarr(store)["state"][:, 0], wave(later).astype(np.float32))
    assert verify(store).ok


def test_which_addresses_are_opendap():
    yes = (
        "https://h/thredds/dodsC/era5/x.nc", "dap2://h/x", "https://h/opendap/x.nc", "http://h:80/dods/gfs/gfs_00z",
        "https://h/erddap/griddap/ID",
    )  # fmt: skip
    no = ("https://h/x.nc", "https://h/opendap.zarr", "s3://b/dodsC/x.nc", "https://h/x.zarr")
    assert [is_opendap(one) for one in (*yes, *no)] == [True] * len(yes) + [False] * len(no)
    assert web_address("dap2://h/x.nc") == "https://h/x.nc"
    with pytest.raises(InputError, match=r"DAP4 is not spoken here; .* write it as dap2://h/x"):
        open_opendap("dap4://h/x")


@pytest.mark.parametrize("name", ["x.nc", "x.grib2", "X.GRB"])
def test_files_at_addresses_are_refused_by_name(name):
    with pytest.raises(InputError, match=r"a file at an address, .*fetch it .*OPeNDAP, write dap2://"):
        open_files([f"https://host/data/{name}"], ["t2m"])


DDS = """Dataset {
    Float64 time[time = 2];
    Grid {
     Array:
        Float32 t2m[time = 2][lat = 3];
     Maps:
        Float64 time[time = 2];
        Float32 lat[lat = 3];
    } t2m;
    Structure { Int32 a; Grid { Array: Byte b[c = 1]; Maps: Byte c[c = 1]; } b; } odd[4];
    String station[name = 2];
    Int16 my%20name[3];
} x%2fy.nc;
"""


def test_what_a_structure_declares():
    """As THREDDS writes it: grids with their maps, and what is no field."""
    found = {name: (one.kind, one.dims, one.shape, one.asked_as) for name, one in read_structure(DDS).items()}
    assert found == {
        "time": ("float64", ("time",), (2,), "time"),
        "t2m": ("float32", ("time", "lat"), (2, 3), "t2m.t2m"),
        "lat": ("float32", ("lat",), (3,), "t2m.lat"),
        "my name": ("int16", ("my name_0",), (3,), "my name"),
    }


def test_what_attributes_say():
    text = """Attributes {
    t2m { String units "K"; Float32 _FillValue NaN; Int16 valid_range 1, 3;
          String said "a \\"b\\"; c { d }"; t2m { String long_name "x"; } }
    NC_GLOBAL { String title "ERA5"; Alias a t2m.units; }
    DODS_EXTRA { String Unlimited_Dimension "time"; } }"""
    found = read_attributes(text)
    assert found["t2m"].pop("_FillValue") != 0
    np.testing.assert_array_equal(found["t2m"].pop("valid_range"), np.array([1, 3], np.int16))
    assert found["t2m"] == {"units": "K", "said": 'a "b"; c { d }', "long_name": "x"}
    assert found["NC_GLOBAL"]["title"] == "ERA5"
    with pytest.raises(InputError, match="no DAS of OPeNDAP"):
        read_attributes("Attributes { a { Float32 b x; } }")


@pytest.mark.parametrize(
    ("kind", "shape", "body", "expected"),
    [
        ("Byte", (3,), b"\0\0\0\3" * 2 + b"\1\2\xff\0", [1, 2, 255]),
        ("Int16", (2,), b"\0\0\0\2" * 2 + b"\xff\xff\xff\xfe\0\0\0\7", [-2, 7]),
        ("Float64", (), b"\x3f\xf8" + bytes(6), 1.5),
        ("UInt32", (1,), b"\0\0\0\1" * 2 + b"\xff\xff\xff\xff", [2**32 - 1]),
    ],
)
def test_numbers_on_their_way(kind, shape, body, expected):
    """Written by hand from the specification: bytes filled up to four, small integers as four bytes."""
    dims = "".join(f"[d = {n}]" for n in shape)
    declared = read_structure(f"Dataset {{ {kind} x{dims}; }} y;")["x"]
    answer = b"Dataset { ... } y;\nData:\n" + body
    np.testing.assert_array_equal(_values(answer, declared, list(shape)), expected)
    for wrong in (answer[:-1], answer + b"\0", b"Data:\n" + body):
        with pytest.raises(ConnectionError, match="not whole"):
            _values(wrong, declared, list(shape))
