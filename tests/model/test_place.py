"""Position by place: continuous round the Earth and over its poles, the same on every grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_model import inputs, make_domain, make_model

from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.model.place import FEATURES, WAVES, features_at, place_features
from weatherfm.model.position import sincos_position

SIZE = (5.0, 5.0)


def rows_of(grid, patch):
    """[row, column, feature]."""
    counts = [-(-size // step) for size, step in zip(grid.shape, patch, strict=True)]
    return place_features(grid, patch).reshape(*counts, FEATURES)


def test_longitude_is_a_circle_and_a_pole_is_one_point():
    longitude = np.array([0.0, 90.0, 200.0, 359.0])
    for latitude in (90.0, -90.0):
        pole = features_at(latitude, longitude, *SIZE)
        np.testing.assert_allclose(pole, pole[:1].repeat(4, 0), atol=1e-12)
    np.testing.assert_allclose(
        features_at(40.0, longitude - 360, *SIZE), features_at(40.0, longitude, *SIZE), atol=1e-10
    )
    over_pole = [features_at(89.99, lon, *SIZE)[0] for lon in (10.0, 190.0)]
    np.testing.assert_allclose(*over_pole, atol=2e-2)
    far = np.abs(features_at(0.0, longitude, *SIZE)[:1] - features_at(0.0, longitude, *SIZE)[1:]).max(1)
    assert far[:2].min() > 0.5  # a quarter of the Earth away
    assert far[2] < 0.6  # one degree away


@pytest.mark.parametrize("patch", [(1, 1), (4, 4), (3, 5)], ids=str)
@pytest.mark.parametrize("poles", [False, True])
def test_neighbours_across_the_prime_meridian_are_as_close_as_others(patch, poles):
    latitude = np.linspace(90, -90, 33) if poles else regular_grid((32, 64)).latitude
    grid = Grid(latitude, np.arange(60) * 6.0)
    found = rows_of(grid, patch)
    assert np.isfinite(found).all()
    step = np.linalg.norm(np.roll(found, -1, 1) - found, axis=-1)  # [row, column]
    across, others = step[:, -1], step[:, :-1].max(1)
    assert (across <= 1.3 * others).all()
    assert (step[0] < 0.9 * step[len(step) // 2]).all()  # columns come closer towards a pole


def test_waves_fade_as_in_the_mean_over_a_patch_along_them():
    """At 90 E on the equator x falls with longitude, one for one."""
    size = 12.0
    points = 90 + ((np.arange(400) + 0.5) / 400 - 0.5) * size
    mean = features_at(0.0, points, 1e-6, 1e-6)[:, :WAVES].mean(0).reshape(2, 3, -1)[:, 0]
    found = features_at(0.0, 90.0, size, size)[0, :WAVES].reshape(2, 3, -1)[:, 0]
    np.testing.assert_allclose(found[:, :4], mean[:, :4], atol=0.02)  # down to twice the patch; then a sinc rings
    assert (np.diff(found[1]) < 0).all()
    assert np.abs(found[:, -1]).max() < 1e-2  # 200 km in a patch of 1,300


def test_sizes_are_of_the_earth():
    equator, north = features_at(np.array([2.0, 60.0]), 0.0, 5.0, np.array([5.0, 2.5]))[:, WAVES:]
    np.testing.assert_allclose(equator, 0, atol=1e-12)
    np.testing.assert_allclose(north, [0, np.log(0.5) / 2], atol=1e-12)
    rows = rows_of(regular_grid((32, 64)), (4, 4))[:, 0, WAVES:]
    np.testing.assert_allclose(rows[:, 0], np.log(22.5 / 5) / 2)
    assert (np.diff(rows[:4, 1]) > 0).all()


def test_a_patch_beyond_the_edge_is_what_of_it_lies_on_the_grid():
    grid = Grid(np.arange(60.0, 29.0, -5.0), np.arange(0.0, 31.0, 5.0))  # 7 x 7 points, patches of 4
    found = rows_of(grid, (4, 4))
    rest = features_at(35.0, 25.0, 15.0, 15.0 * np.cos(np.deg2rad(35.0)))[0]  # of 40, 35 and 30 N, 20, 25 and 30 E
    np.testing.assert_allclose(found[1, 1], rest, atol=1e-10)
    whole = features_at(52.5, 7.5, 20.0, 20.0 * np.cos(np.deg2rad(52.5)))[0]
    np.testing.assert_allclose(found[0, 0], whole, atol=1e-10)


def test_the_same_area_of_a_limited_grid_and_of_the_globe_is_the_same_place():
    globe = regular_grid((32, 64))
    area = Grid(globe.latitude[4:16], globe.longitude[8:24])
    np.testing.assert_allclose(rows_of(area, (4, 4)), rows_of(globe, (4, 4))[1:4, 2:6], atol=1e-10)


def test_one_models_weights_run_on_any_grid():
    def on(grid, patch=4):
        model = make_model(make_domain(grid), position="place", patch_size=patch, width=64, mlp_convolution=True)
        return model.eval()

    first = on(regular_grid((32, 64)))
    torch.nn.init.normal_(first.to_patches.weight)
    for grid in (regular_grid((24, 48)), Grid(np.arange(60.0, 29.0, -2.0), np.arange(-20.0, 21.0, 2.0))):
        other = on(grid)
        other.load_state_dict(first.state_dict())
        history, forcings, lead = inputs(other)
        forecast = other(history, forcings, lead)
        assert forecast.shape == (2, 3, *grid.shape)
        assert forecast.isfinite().all()
    named = {name: value.shape for name, value in first.named_parameters()}
    assert named == {name: value.shape for name, value in other.named_parameters()}


@pytest.mark.parametrize("shape", [(32, 64), (64, 128), (128, 256)], ids=str)
def test_it_starts_about_as_large_as_the_table(shape):
    model = make_model(make_domain(regular_grid(shape)), position="place", width=128)
    tokens = torch.zeros(1, model.tokens[0] * model.tokens[1], 128)
    found = model.position(tokens, model.places).square().mean().sqrt()
    table = sincos_position(model.tokens, 128).square().mean().sqrt()
    assert 0.55 * table < found < 1.1 * table


def test_patches_of_a_fine_grid_are_told_apart():
    found = torch.from_numpy(rows_of(regular_grid((128, 256)), (4, 4))[::4].reshape(-1, FEATURES))
    apart = torch.cdist(found, found) + torch.eye(len(found)) * 9
    assert apart.min() > 0.1


def test_a_rank_adds_its_own_positions():
    model = make_model(position="place")
    x = torch.randn(2, 8, 32)
    whole = model.position(x, model.places)
    model.position.rows = slice(4, 8)
    torch.testing.assert_close(model.position(x[:, 4:], model.places), whole[:, 4:])
