"""Regridder: constants, area means, bounds, identity, missing values, the date line, blocks, and what it refuses."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest
from dask.base import tokenize

from weatherfm.data_pipeline.fields.regrid import Regridder
from weatherfm.data_pipeline.fields.target_grid import global_grid, target_grid
from weatherfm.data_pipeline.store_config import RegridConfig
from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.errors import InputError

EUROPE = Grid(np.linspace(60, 30, 21), np.linspace(-20, 14.5, 24))
SOURCES = {
    "1 deg, poles": Grid(np.linspace(90, -90, 181), np.arange(360.0)),
    "3 deg, from 1.5 E": regular_grid((60, 120)),
    "Gaussian F16": global_grid(RegridConfig(gaussian=16)),
    "tropics": Grid(np.arange(30, -30.1, -1.5), np.arange(0, 360, 1.5)),
    "Europe": EUROPE,
}
SOURCES["3 deg, from 1.5 E"] = Grid(SOURCES["3 deg, from 1.5 E"].latitude, np.arange(120) * 3 + 1.5)
TARGETS = {
    "5.625 deg": RegridConfig(resolution=5.625),
    "2.8125 deg": RegridConfig(resolution=2.8125),
    "4 deg, poles": RegridConfig(resolution=4, poles=True),
    "Gaussian F16": RegridConfig(gaussian=16),
    "Gaussian F40": RegridConfig(gaussian=40),
}
METHODS = ["conservative", "bilinear", "nearest"]
GLOBAL = ["1 deg, poles", "3 deg, from 1.5 E", "Gaussian F16"]


def regridder(source: str, target: str, method: str = "conservative") -> Regridder:
    config = TARGETS[target].model_copy(update={"method": method})
    return Regridder(SOURCES[source], target_grid(SOURCES[source], config, None), method)


def noise(grid, *lead, seed=0):
    return (np.random.default_rng(seed).normal(0, 10, (*lead, *grid.shape)) + 280).astype(np.float32)


def interval_shares(source, target):
    """[target, source] overlap of every pair of intervals (low, high), written out."""
    low = np.maximum(target[0][:, None], source[0])
    return np.maximum(np.minimum(target[1][:, None], source[1]) - low, 0)


def dense_weights(source, target):
    """([target lat, source lat], [target lon, source lon]) areas shared, without any of the package's arithmetic."""

    def rows(grid):
        return np.sin(np.deg2rad(grid.latitude_bounds[1:])), np.sin(np.deg2rad(grid.latitude_bounds[:-1]))

    def columns(grid, turn):
        half = grid.longitude_step / 2
        return grid.longitude - half + turn, grid.longitude + half + turn

    lat = interval_shares(rows(source), rows(target))
    lon = sum(interval_shares(columns(source, 360 * k), columns(target, 0)) for k in range(-3, 4))
    return lat, lon


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_conservative_is_the_mean_over_shared_areas(source, target):
    """Against full overlap matrices, with a sixth of the values missing; a cell needs half of its area."""
    one = regridder(source, target)
    field = noise(one.source)
    field[np.random.default_rng(1).random(field.shape) < 1 / 6] = np.nan
    field[5:12, 3:20] = np.nan
    lat, lon = dense_weights(one.source, one.target)
    there = np.isfinite(field)
    area = lat @ there.astype(float) @ lon.T
    share = area / (lat.sum(1)[:, None] * lon.sum(1))
    expected = lat @ np.where(there, field, 0).astype(float) @ lon.T / np.where(area > 0, area, np.nan)
    clear = np.abs(share - 0.5) > 1e-6  # not on the threshold, where rounding decides
    result = one(field)
    assert (np.isnan(result) == (share < 0.5))[clear].all()
    both = np.isfinite(result) & clear
    np.testing.assert_allclose(result[both], expected[both], rtol=1e-6)  # float32


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_constants_come_back_exactly_and_nothing_leaves_the_range(source, target, method):
    one = regridder(source, target, method)
    for value in (273.15, -1e-7, 0.0, 1.2345e30):
        assert (one(np.full(one.source.shape, value, np.float32)) == np.float32(value)).all()
    field = noise(one.source)
    result = one(field)
    assert result.dtype == np.float32
    assert result.min() >= field.min()
    assert result.max() <= field.max()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", GLOBAL)
def test_conservative_keeps_the_area_mean(source, target):
    one = regridder(source, target)
    field = noise(one.source) + 30 * np.cos(np.deg2rad(one.source.latitude))[:, None].astype(np.float32)
    before = np.mean(field * one.source.area_weights)
    after = np.mean(one(field) * one.target.area_weights)
    assert abs(after - before) < 1e-6 * before


def test_a_quarter_degree_keeps_its_area_mean_on_the_grids_in_use():
    source = global_grid(RegridConfig(resolution=0.25, poles=True))
    field = noise(source)
    before = np.mean(field * source.area_weights)
    for resolution in (1.40625, 2.8125, 5.625):
        one = Regridder(source, global_grid(RegridConfig(resolution=resolution)), "conservative")
        assert abs(np.mean(one(field) * one.target.area_weights) - before) < 1e-6 * before


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("source", SOURCES)
def test_its_own_grid_gives_the_same_bits(source, method):
    grid = SOURCES[source]
    field = noise(grid, 2)
    field[0, 3, 4] = np.nan
    rounded = Grid(grid.latitude.astype(np.float32), grid.longitude.astype(np.float32))
    result = Regridder(grid, rounded, method)(field)
    assert result.tobytes() == field.tobytes()
    assert result is not field


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", ["5.625 deg", "4 deg, poles", "Gaussian F16"])
def test_turning_the_globe_by_whole_cells_turns_the_result(target, method):
    """Weights differ by rounding alone."""
    one = regridder("1 deg, poles", target, method)
    field = noise(one.source)
    for degrees in (d for d in (45, 180, 300) if d % one.target.longitude_step == 0):
        turned = one(np.roll(field, degrees, axis=1))
        expected = np.roll(one(field), round(degrees / one.target.longitude_step), axis=1)
        np.testing.assert_allclose(turned, expected, rtol=2e-7)


@pytest.mark.parametrize("method", METHODS)
def test_the_turn_a_longitude_is_counted_in_does_not_matter(method):
    """The same stretch of a global field, cut out as -20 .. 20 and as 340 .. 360 and 0 .. 20."""
    source = SOURCES["1 deg, poles"]
    west = Grid([42, 38, 34], np.arange(-18, 19, 4.0))
    east = Grid([42, 38, 34], np.arange(342, 360, 4.0)), Grid([42, 38, 34], np.arange(2, 19, 4.0))
    field = noise(source)
    whole = Regridder(source, west, method)(field)
    parts = [Regridder(source, part, method)(field) for part in east]
    np.testing.assert_allclose(whole, np.concatenate(parts, axis=1), rtol=2e-7)


def test_refining_by_way_of_nested_cells_changes_nothing():
    """1.40625 -> 2.8125 -> 5.625 degrees where the edges of coarse cells are edges of fine ones."""

    def nested(n):
        return Grid(regular_grid((n, 2 * n)).latitude, (np.arange(2 * n) + 0.5) * 180 / n)

    fine, middle, coarse = nested(128), nested(64), nested(32)
    field = noise(fine)
    by_steps = Regridder(middle, coarse, "conservative")(Regridder(fine, middle, "conservative")(field))
    direct = Regridder(fine, coarse, "conservative")(field)
    np.testing.assert_allclose(by_steps, direct, rtol=2e-7)  # one more rounding to float32


def test_to_finer_cells_copies_the_coarse_value():
    coarse, fine = regular_grid((4, 8)), Grid(regular_grid((12, 24)).latitude, np.arange(24) * 15.0)
    field = noise(coarse)
    finer = Regridder(coarse, fine, "conservative")(field)
    assert np.array_equal(finer, np.roll(np.repeat(np.repeat(field, 3, 0), 3, 1), -1, axis=1))


def test_bilinear_leaves_missing_neighbours_out_down_to_half_the_weight():
    source, target = Grid([2, 0], [0, 4, 8]), Grid([2, 1.5], [1, 4])
    field = np.array([[10, np.nan, 30], [50, 60, 70]], np.float32)
    result = Regridder(source, target, "bilinear")(field)
    assert result[0, 0] == 10  # three quarters of the weight are there
    assert np.isnan(result[0, 1])  # on the missing point itself
    there = 0.75 * 0.75 * 10 + 0.25 * (0.75 * 50 + 0.25 * 60)
    assert result[1, 0] == pytest.approx(there / (1 - 0.75 * 0.25))
    assert np.isnan(result[1, 1])  # three quarters missing


def test_a_missing_neighbour_without_weight_is_no_neighbour():
    source, target = Grid(np.linspace(90, -90, 19), np.arange(36) * 10.0), regular_grid((18, 36))
    field = noise(source)
    field[:, 1::2] = np.nan
    result = Regridder(source, target, "bilinear")(field)
    assert np.isfinite(result[:, ::2]).all()
    assert np.isnan(result[:, 1::2]).all()


def test_nearest_takes_the_nearest_and_of_two_the_northern_or_western():
    source = Grid([60, 20, -20, -60], np.arange(0, 360, 45.0))
    field = np.arange(32, dtype=np.float32).reshape(4, 8)
    target = Grid([89, 40, 1, 0, -1, -90], np.arange(22.5, 360, 45))
    result = Regridder(source, target, "nearest")(field)
    assert result[:, 0].tolist() == [0, 0, 8, 8, 16, 24]
    assert result[0].tolist() == list(range(8))  # each target lies midway between two columns
    east = Regridder(source, Grid([60, 20], np.arange(22.6, 360, 45)), "nearest")(field)
    assert east[0].tolist() == [1, 2, 3, 4, 5, 6, 7, 0]
    field[0, 0] = np.nan
    assert np.isnan(Regridder(source, target, "nearest")(field)[0, 0])


def test_poles_of_scalars_are_the_mean_of_the_last_row_and_of_winds_its_wave_one():
    source, target = regular_grid((18, 36)), Grid(np.linspace(90, -90, 37), np.arange(36) * 10.0)
    lon = np.deg2rad(source.longitude)
    field = np.broadcast_to(3 + 2 * np.cos(lon - 0.5) + np.cos(3 * lon), source.shape).astype(np.float32)
    scalar, wind = Regridder(source, target, "bilinear")(np.stack([field, field]), vector=np.array([False, True]))
    np.testing.assert_allclose(scalar[[0, -1]], 3, rtol=1e-6)
    np.testing.assert_allclose(wind[[0, -1]], [2 * np.cos(lon - 0.5)] * 2, atol=1e-6)
    assert np.array_equal(scalar[1:-1], wind[1:-1])  # 85 degrees is the last row itself
    field = field.copy()
    field[0, :10] = np.nan
    one = Regridder(source, target, "bilinear")
    assert one(field)[0] == pytest.approx(np.nanmean(field[0]), rel=1e-6)
    assert np.isnan(one(field, vector=True)[0]).all()  # a wave needs the whole row
    field[0, :19] = np.nan
    assert np.isnan(one(field)[0]).all()


@pytest.mark.parametrize("method", METHODS)
def test_blocks_of_any_shape_give_the_same_bits(method):
    one = regridder("1 deg, poles", "5.625 deg", method)
    fields = noise(one.source, 3, 4)
    fields[1, 2, 60:90] = np.nan
    fields[2, 0, 0, 5] = np.inf
    vector = np.array([False, True, False, True])
    whole = one(fields, vector)
    for time, channel in np.ndindex(3, 4):
        part = np.asfortranarray(fields[time, channel])
        assert one(part, vector[channel]).tobytes() == whole[time, channel].tobytes()
    assert pickle.loads(pickle.dumps(one))(fields, vector).tobytes() == whole.tobytes()


def test_equal_regridders_have_one_name_in_a_graph():
    names = [tokenize(regridder("Europe", "2.8125 deg", method)) for method in [*METHODS, *METHODS]]
    assert names[:3] == names[3:]
    assert len(set(names)) == 3


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_memory_is_bounded_whatever_the_block(method, missing):
    source = global_grid(RegridConfig(resolution=0.5, poles=True))
    one = Regridder(source, global_grid(RegridConfig(resolution=5.625)), method)
    fields = noise(source, 12)
    if missing:
        fields[:, 100:200, 300:400] = np.nan
    one(fields[:1])  # what is computed once
    tracemalloc.start()
    result = one(fields)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - result.nbytes <= one.workspace_bytes + 2**18
    assert one.workspace_bytes < 6 * fields[0].nbytes + 2**20


def test_weights_stay_sparse():
    one = Regridder(
        global_grid(RegridConfig(resolution=0.25, poles=True)),
        global_grid(RegridConfig(resolution=1.40625)),
        "conservative",
    )
    assert len(pickle.dumps(one)) < 200_000  # the full operator would have 3e10 entries, a dense pair 4e5


@pytest.mark.parametrize(
    ("target", "method", "message"),
    [
        (Grid([70, 65], [0, 4]), "conservative", "covers 0 % of the cells at latitude 70"),
        (Grid([60, 50], [0, 20]), "conservative", "covers 26 % of the cells at longitude 20"),
        (Grid([60.5, 50], [0, 4]), "bilinear", "latitude 60.5 lies beyond"),
        (Grid([50, 20], [0, 4]), "nearest", "latitude 20 lies beyond"),
        (Grid([50, 40], [-21, 4]), "bilinear", "longitude -21 lies beyond"),
        (Grid([50, 40], [300, 360]), "nearest", "longitude 300 lies beyond"),
        (regular_grid((8, 16)), "nearest", "lies beyond"),
    ],
)
def test_a_target_beyond_the_source_is_refused(target, method, message):
    with pytest.raises(InputError, match=message):
        Regridder(EUROPE, target, method)


def test_other_misuse_is_refused():
    with pytest.raises(ValueError, match="method must be conservative"):
        Regridder(EUROPE, EUROPE, "cubic")
    with pytest.raises(ValueError, match=r"\[\.\.\., lat, lon\] of the source"):
        regridder("Europe", "2.8125 deg")(np.zeros((24, 21), np.float32))
