"""WeatherBench2's ERA5: names of the copies, longitude before latitude, south first, units left out."""

from __future__ import annotations

import numpy as np
import pytest
from cloud_stores import WB2_GRID, values, write_arco, write_weatherbench2

from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.source_config import WeatherBench2Source
from weatherfm.data_pipeline.sources import open_source, weatherbench2
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError

FIELD = 32 * 64 * 4


def open_wb2(address, channels=("z500", "t850", "t2m"), **settings) -> SourceData:
    source = {"kind": "weatherbench2", "address": str(address)}
    return open_source(DataConfig(store="unused", source=source, channels=list(channels), **settings))


def check(data: SourceData) -> None:
    hours = data.state["time"].values.astype("datetime64[h]")
    assert (data.state["latitude"].values == WB2_GRID[0][::-1]).all()
    expected = {
        "z500": values("geopotential", hours, WB2_GRID, [500])[:, 0],
        "t850": values("temperature", hours, WB2_GRID, [850])[:, 0],
        "t2m": values("2m_temperature", hours, WB2_GRID),
        "tp": values("total_precipitation_6hr", hours, WB2_GRID),
    }
    for i, name in enumerate(data.state["channel"].values):
        np.testing.assert_array_equal(data.state.values[:, i], expected[name][:, ::-1])


def test_fields_are_turned_to_our_order(tmp_path):
    data = open_wb2(write_weatherbench2(tmp_path), ["z500", "t850", "t2m", "tp"], static=["orography", "lsm"])
    assert len(data.state["time"]) == 32
    check(data)
    surface = values("geopotential_at_surface", np.array(["2020-01-01T00"], "datetime64[h]"), WB2_GRID)[0, ::-1]
    np.testing.assert_array_equal(data.static[0], surface)
    assert data.attributes["accumulation"]["tp"] == {"window_hours": 6, "source_hours": 6}
    assert not data.simulated


def test_units_left_out_are_those_of_era5(tmp_path):
    silent = ("geopotential", "2m_temperature", "total_precipitation_6hr", "geopotential_at_surface")
    path = write_weatherbench2(tmp_path, silent=silent)
    check(open_wb2(path, ["z500", "t850", "t2m", "tp"], static=["orography"]))
    source = {"kind": "files", "paths": [str(path)]}
    with pytest.raises(InputError, match="2m_temperature does not say its units"):  # no guess for a user's own files
        open_source(DataConfig(store="x", source=source, channels=["t2m"]))


def test_without_consolidated_metadata(tmp_path):
    check(open_wb2(write_weatherbench2(tmp_path, consolidated=False)))


@pytest.mark.parametrize(
    ("resolution", "name"),
    [
        ("64x32", "1959-2023_01_10-6h-64x32_equiangular_conservative.zarr"),
        ("240x121", "1959-2023_01_10-6h-240x121_equiangular_with_poles_conservative.zarr"),
        ("512x256", "1959-2022-6h-512x256_equiangular_conservative.zarr"),
        ("1440x721", "1959-2023_01_10-wb13-6h-1440x721_with_derived_variables.zarr"),
    ],
)
def test_each_resolution_has_its_address(monkeypatch, resolution, name):
    asked = []

    def stop(address, source):
        asked.append(address)
        raise InputError("no network in tests")

    monkeypatch.setattr(weatherbench2, "store_at", stop)
    source = WeatherBench2Source(kind="weatherbench2", resolution=resolution)
    with pytest.raises(InputError, match="no network"):
        open_source(DataConfig(store="x", source=source, channels=["t2m"]))
    assert asked == [f"gs://weatherbench2/datasets/era5/{name}"]


def test_long_chunks_are_read_whole_and_once(tmp_path):
    data = open_wb2(write_weatherbench2(tmp_path, days=25, time_chunk=40))
    assert data.state.chunks[0] == (100,)  # 25 MB are one block
    cost = data.cost(np.arange(100))
    assert cost.requests == 3 * 3
    assert cost.moved == 3 * 40 * (13 + 13 + 1) * FIELD
    assert cost.wanted == 100 * 3 * FIELD
    sparse = data.cost(np.arange(0, 100, 10))
    assert sparse.moved == cost.moved
    assert sparse.advice[0].startswith(
        "the source keeps geopotential, temperature with 13 levels in one chunk, of which 1 is asked for and 40 times "
        "in one chunk, of which one in 12 is asked for: 156 times more"
    )
    assert sparse.advice[1].startswith("the source keeps 2m_temperature with 40 times in one chunk")


def test_blocks_end_where_chunks_end(tmp_path, monkeypatch):
    import weatherfm.data_pipeline.formats.reading.blocks as blocks

    monkeypatch.setattr(blocks, "BLOCK_BYTES", 60 * FIELD)
    path = write_weatherbench2(tmp_path, days=8, time_chunk=8)
    assert open_wb2(path, ["z500", "t850", "t2m"]).state.chunks[0] == (16, 16)
    daily = open_wb2(path, ["z500", "t850", "t2m"], step="24h", period="2020-01-02/2020-01-08")
    assert daily.state.chunks[0] == (7,)
    assert open_wb2(path, ["t2m"], period="2020-01-02/2020-01-08").state.chunks[0] == (28,)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 5 * FIELD)
    assert open_wb2(path, ["t2m"], period="2020-01-02/2020-01-08").state.chunks[0] == (4, 8, 8, 8)
    monkeypatch.setattr(blocks, "LARGEST_BLOCK_BYTES", 6 * FIELD)
    assert open_wb2(path, ["t2m"], period="2020-01-02/2020-01-08").state.chunks[0] == (4, 6, 2, 6, 2, 6, 2)


def test_another_store_by_address(tmp_path):
    """ARCO's is no WeatherBench2 copy: its padded time axis shows."""
    path = write_arco(tmp_path, ("2020-01-01", "2020-01-02"), ("2m_temperature",))
    data = open_wb2(path, ["t2m"], period="2020-01-02/2020-01-02")
    with pytest.raises(InputError, match=r" at 2020-01-02T.*: chunk 2m_temperature/10519\d\d\.0\.0 is not"):
        data.state.values  # noqa: B018


def test_no_store_there(tmp_path):
    with pytest.raises(InputError, match=r"no file matches '.*nowhere\.zarr'"):
        open_wb2(tmp_path / "nowhere.zarr")
    (tmp_path / "x.nc").write_bytes(b"CDF\x01" + bytes(20))
    with pytest.raises(InputError, match=r"x\.nc: it is no Zarr store; read it with source\.kind=files"):
        open_wb2(tmp_path / "x.nc")
