"""Real files of every kind of grid through the `files` source onto others, checked against independent arithmetic."""

from __future__ import annotations

import logging

import cfgrib
import numpy as np
import pytest

from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.earth.grid import Grid


def opened(folder, paths, channels, regrid=None, static=(), more=(), **source):
    """`open_source` on real files."""
    settings = {
        "store": "unused",
        "source": {"kind": "files", "paths": [str(folder / path) for path in paths], **source},
        "channels": channels,
        "static": list(static),
        "regrid": regrid,
    }
    return open_source(DataConfig.model_validate(settings | dict(more)))


def grid_of(source):
    return Grid(source.state["latitude"].values, source.state["longitude"].values)


def means(source):
    """[time, channel] area means, in float64."""
    return (source.state.values.astype(float) * grid_of(source).area_weights).mean((-2, -1))


def check_means(before, after, channels):
    """To 1e-6, of the typical size of the values where they cancel out."""
    size = np.abs(before.state.values).mean((-2, -1))
    assert (np.abs(means(after) - means(before)) <= 1e-6 * size).all(), channels


@pytest.mark.parametrize("method", ["conservative", "bilinear", "nearest"])
def test_a_pair_of_grib_and_netcdf_gives_the_same_fields(real_data, method, caplog):
    """To half a step of the 16-bit packing of the NetCDF file: each method is an average of such differences."""
    caplog.set_level(logging.ERROR)
    config = {"resolution": 5.625, "method": method}
    grib, netcdf = (
        opened(real_data, [f"pairs/test4.{kind}"], ["z500", "t850"], config).state.values for kind in ("grib", "nc")
    )
    raw = [opened(real_data, [f"pairs/test4.{kind}"], ["z500", "t850"]).state.values for kind in ("grib", "nc")]
    assert grib.shape == (1, 2, 32, 64)
    for channel in range(2):
        packing = np.abs(raw[0][:, channel] - raw[1][:, channel]).max()
        rounding = np.spacing(np.abs(grib[:, channel]).max())
        assert np.abs(grib[:, channel] - netcdf[:, channel]).max() <= packing + rounding
        assert grib[:, channel].min() >= raw[0][:, channel].min()
        assert grib[:, channel].max() <= raw[0][:, channel].max()


GRIDS = {
    "1.4": {"resolution": 1.40625},
    "5.6": {"resolution": 5.625},
    "poles": {"resolution": 4, "poles": True},
    "T31": {"gaussian": 16},
}


@pytest.mark.parametrize("regrid", GRIDS)
@pytest.mark.parametrize(
    ("paths", "channels", "more"),
    [
        (["pairs/test4.grib"], ["z500", "t850"], {}),
        (["era5_members/*.grib"], ["z500", "t850"], {"number": 3}),
        (["era5_global_state/*.nc"], ["z500", "t850", "q700", "u500"], {}),
    ],
    ids=["1 deg", "3 deg member", "Gaussian, south first"],
)
def test_area_means_stay(real_data, paths, channels, more, regrid):
    before = opened(real_data, paths, channels, **more)
    after = opened(real_data, paths, channels, GRIDS[regrid], **more)
    check_means(before, after, channels)
    assert after.attributes["regrid"] == {"from": str(grid_of(before)), "method": "conservative"}


def test_gaussian_onto_its_own_grid_keeps_every_bit(real_data):
    paths, channels = ["era5_global_state/*.nc"], ["t850", "u850"]
    before, after = (opened(real_data, paths, channels, regrid) for regrid in (None, {"gaussian": 16}))
    assert after.state.values.tobytes() == before.state.values.tobytes()


def overlap(source, target):
    """[target, source] length shared by intervals given as (low, high)."""
    high = np.minimum(source[1], target[1][:, None])
    return np.maximum(high - np.maximum(source[0], target[0][:, None]), 0)


def test_gfs_winds_are_means_over_the_cells(real_data):
    """1 degree with rows on the poles -> 5.625 degrees, against a full overlap matrix on values read by cfgrib."""
    path = real_data / "gfs_wind_global" / "gfs.t00z.pgrb2.1p00.f000.2018101306"
    placed = opened(real_data, [path], ["u10", "v10"], {"resolution": 5.625})
    north, south = np.minimum(np.arange(90.5, -90, -1), 90), np.maximum(np.arange(89.5, -91, -1), -90)
    edges = 90 - np.arange(33) * 5.625
    lat = overlap(*(np.sin(np.deg2rad(pair)) for pair in ((south, north), (edges[1:], edges[:-1]))))
    west, cell_west = np.arange(-0.5, 359), np.arange(64) * 5.625 - 2.8125
    lon = sum(overlap((west + turn, west + turn + 1), (cell_west, cell_west + 5.625)) for turn in (-360, 0, 360))
    for index, name in enumerate(("10u", "10v")):
        field = cfgrib.open_dataset(path, indexpath="", filter_by_keys={"shortName": name})
        values = next(iter(field.data_vars.values())).values.astype(float)
        expected = lat @ values @ lon.T / (lat.sum(1)[:, None] * lon.sum(1))
        np.testing.assert_allclose(placed.state.values[0, index], expected, rtol=1e-6, atol=1e-6)


def test_a_limited_area_keeps_the_cells_within_it(real_data):
    paths = ["era_interim_europe/t850*.nc"]
    more = {"period": "2000-01-01/2000-01-03"}
    source = opened(real_data, paths, ["t850"], more=more.items(), levels={"t": 850})
    placed = opened(real_data, paths, ["t850"], {"resolution": 2.8125}, more=more.items(), levels={"t": 850})
    assert placed.state.shape == (3, 1, 10, 11)
    assert placed.state["longitude"].values[[0, -1]].tolist() == [-16.875, 11.25]
    assert placed.state["latitude"].values[[0, -1]].tolist() == [57.65625, 32.34375]
    inside = source.state.sel(latitude=slice(57, 33), longitude=slice(-16, 10)).mean(("latitude", "longitude"))
    difference = placed.state.mean(("latitude", "longitude")) - inside
    assert np.abs(difference).max() < 0.5  # K; nearly the same region


def test_a_box_of_real_winds_goes_across_the_prime_meridian(real_data):
    paths = ["gfs_wind_global/gfs.t00z.pgrb2.1p00.f000.2018101306"]
    whole = opened(real_data, paths, ["u10", "v10"])
    box = {"area": {"north": 72, "west": -12, "south": 33, "east": 42}}
    part = opened(real_data, paths, ["u10", "v10"], more=box.items())
    assert part.state.shape[2:] == (40, 55)
    for west in (-12, -1, 0, 42):
        column = part.state.sel(longitude=west).values
        assert np.array_equal(column, whole.state.sel(longitude=west % 360, latitude=slice(72, 33)).values)
