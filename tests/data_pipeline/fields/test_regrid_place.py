"""`place`: a lazy source on another grid or part of one, with all else it says about itself."""

from __future__ import annotations

import logging

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from weatherfm.data_pipeline.fields.positions import STATE_DIMS
from weatherfm.data_pipeline.fields.regrid import Regridder, place
from weatherfm.data_pipeline.fields.source_data import ReadCost, SourceData
from weatherfm.data_pipeline.fields.target_grid import global_grid
from weatherfm.data_pipeline.store_config import Area, RegridConfig
from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.errors import InputError

CHANNELS = ["t850", "u850", "tp", "v10"]
GLOBE = regular_grid((45, 90))
CHUNKS = ((2, 3), (3, 1), 45, 90)


def source_data(grid=GLOBE, chunks=CHUNKS, values=None) -> SourceData:
    times = np.datetime64("2020-01-01", "ns") + np.arange(5) * np.timedelta64(6, "h")
    shape = (5, 4, *grid.shape)
    values = np.random.default_rng(0).normal(5, 3, shape).astype(np.float32) if values is None else values
    state = xr.DataArray(
        da.from_array(values, chunks=chunks),
        coords={
            "time": times,
            "channel": CHANNELS,
            "latitude": grid.latitude,
            "longitude": grid.longitude,
            "level": ("channel", [850.0, 850.0, np.nan, np.nan]),
        },
        dims=STATE_DIMS,
        name="state",
        attrs={"accumulated": ["tp"]},
    )
    static = xr.DataArray(
        values[0, :1], {"static": ["lsm"], **{d: state[d] for d in STATE_DIMS[2:]}}, ("static", *STATE_DIMS[2:])
    )
    return SourceData(
        state,
        static,
        {"title": "invented"},
        simulated=True,
        preliminary=np.array([False] * 4 + [True]),
        cost=lambda positions: ReadCost(requests=len(positions)),
        block_bytes=1000,
        together=((0, 1),),
        fetch=lambda: None,
    )


@pytest.mark.parametrize("method", ["conservative", "bilinear", "nearest"])
def test_blocks_in_dask_hold_the_bits_of_numpy(method):
    source = source_data()
    placed = place(source, None, RegridConfig(resolution=10, poles=True, method=method))
    target = global_grid(RegridConfig(resolution=10, poles=True))
    values = Regridder(GLOBE, target, method)(source.state.values, vector=np.array([False, True, False, True]))
    assert isinstance(placed.state.data, da.Array)
    assert placed.state.chunks == ((2, 3), (3, 1), (19,), (36,))
    assert placed.state.dtype == np.float32
    for scheduler in ("synchronous", "threads"):
        with dask.config.set(scheduler=scheduler, num_workers=4):
            assert placed.state.values.tobytes() == values.tobytes()
            part = placed.state.isel(time=[0, 3], channel=slice(1, 3)).values
            assert part.tobytes() == values[[0, 3], 1:3].tobytes()
    assert Grid(placed.state["latitude"].values, placed.state["longitude"].values) == target
    assert np.array_equal(placed.static.values, Regridder(GLOBE, target, method)(source.static.values))


def test_all_else_stays():
    source = source_data()
    placed = place(source, Area(north=60, west=-20, south=20, east=40), RegridConfig(resolution=5))
    assert (placed.preliminary, placed.cost, placed.fetch) == (source.preliminary, source.cost, source.fetch)
    assert (placed.simulated, placed.together) == (True, ((0, 1),))
    assert placed.attributes == {
        "title": "invented",
        "area": {"north": 60, "west": -20, "south": 20, "east": 40},
        "regrid": {"from": str(GLOBE), "method": "conservative"},
    }
    assert source.attributes == {"title": "invented"}
    assert placed.state.attrs == {"accumulated": ["tp"]}
    assert placed.state.name == "state"
    np.testing.assert_array_equal(placed.state["level"].values, source.state["level"].values)
    assert np.array_equal(placed.state["time"].values, source.state["time"].values)
    assert placed.static["static"].values.tolist() == ["lsm"]
    block = 4 * 3 * 3 * 45 * 90
    assert block < placed.block_bytes - source.block_bytes < block + 5 * 8 * 47 * 90


def test_nothing_asked_for_changes_nothing():
    source = source_data()
    assert place(source, None, None) is source


def test_the_same_grid_keeps_every_bit():
    source = source_data()
    for method in ("conservative", "bilinear", "nearest"):
        placed = place(source, None, RegridConfig(resolution=4, method=method))
        assert placed.state.values.tobytes() == source.state.values.tobytes()


def test_a_box_alone_cuts_the_fields():
    source = source_data()
    placed = place(source, Area(north=61, west=-20, south=20, east=9), None)
    longitude = np.arange(-20, 9, 4.0)
    assert np.array_equal(placed.state["longitude"].values, longitude)
    assert np.array_equal(placed.state["latitude"].values, np.arange(60, 19, -4.0))
    columns = (longitude / 4).astype(int) % 90
    expected = source.state.values[:, :, 7:18][..., columns]
    assert placed.state.values.tobytes() == expected.tobytes()
    assert placed.static.values.tobytes() == source.static.values[:, 7:18][..., columns].tobytes()
    assert "regrid" not in placed.attributes
    assert place(source_data(), Area(north=61, west=-20, south=20, east=9), None).attributes == placed.attributes


def test_a_field_in_pieces_is_joined_first():
    whole, pieces = source_data(), source_data(chunks=(5, 4, 10, 30))
    config = RegridConfig(resolution=10)
    assert place(whole, None, config).state.values.tobytes() == place(pieces, None, config).state.values.tobytes()


def test_a_source_without_static_fields():
    source = source_data()
    bare = SourceData(source.state, None, {}, simulated=False)
    assert place(bare, None, RegridConfig(resolution=10)).static is None


def test_winds_keep_their_direction_over_the_pole():
    """The flow straight over the pole from 180 E to 0 E: at the pole v is 1 along 180 E and -1 along 0 E."""
    lon = np.deg2rad(GLOBE.longitude)
    values = np.zeros((5, 4, *GLOBE.shape), np.float32)
    values[:, 1], values[:, 3] = np.sin(lon), -np.cos(lon)
    placed = place(source_data(values=values), None, RegridConfig(resolution=4, poles=True, method="bilinear"))
    np.testing.assert_allclose(placed.state.values[:, 1, 0], np.broadcast_to(np.sin(lon), (5, 90)), atol=1e-6)
    np.testing.assert_allclose(placed.state.values[:, 3, 0], np.broadcast_to(-np.cos(lon), (5, 90)), atol=1e-6)


def test_methods_of_points_warn_onto_much_coarser_grids(caplog):
    caplog.set_level(logging.WARNING)
    for method, resolution in (("conservative", 20), ("bilinear", 6), ("nearest", 2)):
        place(source_data(), None, RegridConfig(resolution=resolution, method=method))
    assert caplog.text == ""
    for method in ("bilinear", "nearest"):
        place(source_data(), None, RegridConfig(resolution=10, method=method))
        assert f"{method} from 45 x 90 global" in caplog.text
    assert "choose regrid.method: conservative" in caplog.text


@pytest.mark.parametrize(
    ("area", "regrid", "message"),
    [
        (Area(north=1, west=0, south=0, east=20), None, "only 1 rows and 6 columns of the 45 x 90 .* widen the box"),
        (Area(north=50, west=1, south=40, east=4), RegridConfig(resolution=5), "only 2 rows and 0 columns .* finer"),
    ],
)
def test_what_leaves_no_grid_is_refused(area, regrid, message):
    with pytest.raises(InputError, match=message):
        place(source_data(), area, regrid)
