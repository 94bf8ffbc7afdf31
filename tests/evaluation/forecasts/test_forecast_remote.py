"""Forecasts at an address: the same values as in a folder, each chunk fetched once, and failures said."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cloud_stores import serving
from foreign_forecasts import CHANNELS, GRID, INITS, LEADS, dataset, expected, write

from weatherfm.data_pipeline.formats.zarr import retries
from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError, OutsideError
from weatherfm.evaluation.forecasts.address import locate, name_of
from weatherfm.evaluation.forecasts.reader import ForecastFile

OUR_GRID = Grid(GRID[0][::-1], GRID[1])
ALL = np.arange(len(INITS))
ALL_LEADS = {"prediction_timedelta": len(LEADS), "time": 3}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(retries, "WAITS", (0.01, 0.02))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cloud")
    write(dataset(), folder / "hres.zarr", chunks=ALL_LEADS)
    write(dataset(members=3), folder / "ens.zarr", chunks=ALL_LEADS)
    write(dataset(), folder / "plain.zarr", zarr_format=3)
    return folder


@pytest.fixture
def server(folder):
    """A new port a test: stores are kept open by their address."""
    with serving(folder) as server:
        yield server


@pytest.mark.parametrize(("name", "members"), [("hres", None), ("ens", 3)])
def test_same_values_as_in_a_folder_and_no_chunk_twice(server, name, members):
    made = dataset(members=members)
    file = ForecastFile(f"{server.address}/{name}.zarr/")
    assert (file.path, file.name, file.members) == (f"{server.address}/{name}.zarr", name, members)
    file.require(CHANNELS, LEADS, OUR_GRID)
    with ThreadPoolExecutor(3) as pool:
        for block in (ALL[:3], ALL[3:]):
            found = pool.map(lambda lead, block=block: file.read(block, lead, CHANNELS), LEADS)
            for lead, fields in zip(LEADS, found, strict=True):
                np.testing.assert_array_equal(fields, expected(made, lead)[block])
    chunks = server.chunks(name)
    assert len(chunks) == len(set(chunks)) == 2 * 2 * (members or 1)


def test_version_3_of_zarr(server):
    file = ForecastFile(f"{server.address}/plain.zarr")
    np.testing.assert_array_equal(file.read(ALL, 12, CHANNELS), expected(dataset(), 12))


def test_moments_without_network_are_waited_out(server):
    server.faults = {"2m_temperature/0": ["503", "reset"]}
    file = ForecastFile(f"{server.address}/hres.zarr")
    np.testing.assert_array_equal(file.read(ALL[:3], 6, CHANNELS), expected(dataset(), 6)[:3])
    server.down_after = len(server.asked)
    with pytest.raises(OutsideError, match=r"network: .*hres\.zarr/.* could not be read in 3 tries"):
        file.read(ALL[3:], 6, CHANNELS)


def test_a_chunk_that_is_not_there_is_never_filled_in(server):
    server.faults = {"2m_temperature/1.0": ["404"]}
    file = ForecastFile(f"{server.address}/hres.zarr")
    file.read(ALL[:3], 6, CHANNELS)
    said = r"hres\.zarr: 2m_temperature at 2020-01-02T12:00: chunk .* is not there"
    with pytest.raises(InputError, match=said) as told:
        file.read(ALL, 6, CHANNELS)
    assert "left out for being empty), or choose" in str(told.value)


def test_nothing_at_the_address(server):
    with pytest.raises(InputError, match=r"http://.*/nothing\.zarr is no readable Zarr store .*correct the address"):
        ForecastFile(f"{server.address}/nothing.zarr")
    with pytest.raises(InputError, match="such an address is not understood"):
        ForecastFile("nowhere://bucket/f.zarr")


def test_paths_and_addresses(tmp_path, folder):
    assert locate("gs://weatherbench2/datasets/pangu/2018.zarr//") == "gs://weatherbench2/datasets/pangu/2018.zarr"
    assert locate(str(tmp_path)) == tmp_path
    assert name_of("gs://bucket/a/pangu_hres_init.64x32.zarr") == "pangu_hres_init"
    assert name_of("s3://bucket/graphcast.zarr") == "graphcast"
    assert name_of(tmp_path / "mine.v2.zarr") == "mine"
    file = ForecastFile(f"file://{folder}/hres.zarr")
    assert file.path == folder / "hres.zarr"
    np.testing.assert_array_equal(file.read(ALL, 6, CHANNELS), expected(dataset(), 6))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_damaged_chunk_is_told_with_its_forecast(tmp_path, zarr_format):
    """It ended in a traceback that named no file."""
    path = write(dataset(), tmp_path / "f.zarr", zarr_format)
    for file in (path / "2m_temperature").rglob("*"):
        if file.is_file() and not file.name.startswith((".", "zarr")):
            file.write_bytes(file.read_bytes()[:20])
    found = ForecastFile(path)
    with pytest.raises(InputError, match=r"damaged") as told:
        found.read(ALL[:1], LEADS[1], ["t2m"])
    assert "f.zarr" in str(told.value)
    assert "2m_temperature" in str(told.value)
