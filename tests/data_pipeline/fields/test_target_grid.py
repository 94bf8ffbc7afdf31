"""Target grids: the ones in use, what a limited source and a box leave of them, and what is refused."""

from __future__ import annotations

import eccodes
import numpy as np
import pytest

from weatherfm.data_pipeline.fields.regrid_weights import longitude_bounds
from weatherfm.data_pipeline.fields.target_grid import cut, global_grid, target_grid
from weatherfm.data_pipeline.store_config import Area, RegridConfig
from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.errors import InputError

EUROPE = Grid(np.linspace(60, 30, 21), np.linspace(-20, 14.5, 24))
GLOBE = Grid(np.linspace(90, -90, 181), np.arange(360.0))
BAND = Grid(np.linspace(45, -45, 91), np.arange(360.0))


def box(north, west, south, east):
    return Area(north=north, west=west, south=south, east=east)


@pytest.mark.parametrize(
    ("settings", "shape", "first"),
    [
        ({"resolution": 5.625}, (32, 64), 87.1875),
        ({"resolution": 2.8125}, (64, 128), 88.59375),
        ({"resolution": 1.40625}, (128, 256), 89.296875),
        ({"resolution": 0.25}, (720, 1440), 89.875),
        ({"resolution": 0.25, "poles": True}, (721, 1440), 90),
        ({"resolution": 1.5, "poles": True}, (121, 240), 90),
        ({"gaussian": 32}, (64, 128), 87.8637988),
        ({"gaussian": 320}, (640, 1280), 89.7848769),
    ],
    ids=str,
)
def test_the_grids_in_use(settings, shape, first):
    grid = global_grid(RegridConfig(**settings))
    assert grid.shape == shape
    assert grid.latitude[0] == pytest.approx(first, abs=1e-7)
    np.testing.assert_allclose(grid.latitude, -grid.latitude[::-1], atol=1e-10)
    assert grid.periodic
    assert grid.longitude[0] == 0


@pytest.mark.parametrize("number", [16, 80, 320])
def test_gaussian_latitudes_are_those_of_eccodes(number):
    values = eccodes.codes_get_gaussian_latitudes(number)
    expected = [values[i] for i in range(2 * number)]
    np.testing.assert_allclose(global_grid(RegridConfig(gaussian=number)).latitude, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "settings", [{"resolution": 2.8125}, {"resolution": 5, "poles": True}, {"gaussian": 48}], ids=str
)
def test_a_limited_source_keeps_the_cells_or_points_within_it(settings):
    whole = global_grid(RegridConfig(**settings))
    cells = target_grid(EUROPE, RegridConfig(**settings), None)
    points = target_grid(EUROPE, RegridConfig(**settings, method="bilinear"), None)
    step = whole.longitude_step
    lat = whole.latitude[(whole.latitude <= 60) & (whole.latitude >= 30)]
    lon = np.arange(-20, 20) * step
    assert points == Grid(lat, lon[(lon >= -20) & (lon <= 14.5)])
    bounds = whole.latitude_bounds
    covered = (bounds[:-1] <= 60.75) & (bounds[1:] >= 29.25)
    assert cells == Grid(whole.latitude[covered], lon[(lon - step / 2 >= -20.75) & (lon + step / 2 <= 15.25)])
    assert longitude_bounds(cells)[0] >= -20.75


def test_a_band_round_the_earth_is_limited_in_latitude_alone():
    assert target_grid(BAND, RegridConfig(resolution=5), None) == Grid(np.arange(42.5, -43, -5), np.arange(72) * 5.0)
    points = target_grid(BAND, RegridConfig(resolution=5, poles=True, method="nearest"), None)
    assert points == Grid(np.arange(45, -46, -5.0), np.arange(72) * 5.0)


def test_a_source_without_rows_on_the_poles_covers_them_with_its_cells():
    for method in ("conservative", "bilinear", "nearest"):
        config = RegridConfig(resolution=2, poles=True, method=method)
        assert target_grid(regular_grid((32, 64)), config, None) == global_grid(config)


def test_a_box_keeps_centres_inside():
    part = cut(GLOBE, box(72, 200, 33, 240))
    assert part.grid == Grid(np.arange(72, 32, -1.0), np.arange(200, 241.0))
    field = np.arange(181 * 360).reshape(181, 360)
    assert np.array_equal(part(field), field[18:58, 200:241])


@pytest.mark.parametrize(
    ("west", "east", "longitudes"),
    [
        (-12, 42, np.arange(-12, 43)),
        (348, 360, np.arange(-12, 1)),
        (-30.5, -10, np.arange(330, 351)),
        (170, 190, np.arange(170, 191)),
        (-190 + 20, -165, np.arange(190, 196)),
        (0, 359, np.arange(360)),
        (-180, 180, np.arange(360)),
        (10, 360, np.arange(10, 361)),
        (-170, 180, np.arange(-170, 181)),
    ],
)
def test_a_box_may_cross_any_meridian(west, east, longitudes):
    part = cut(GLOBE, box(10, west, -10, east))
    assert np.array_equal(part.grid.longitude, longitudes)
    assert np.array_equal(part.columns, longitudes % 360)
    assert np.array_equal(part.grid.latitude, np.arange(10, -11, -1))


def test_a_box_in_a_limited_area():
    part = cut(EUROPE, box(50, 340, 40, 355))
    assert part.grid == Grid(np.arange(49.5, 39, -1.5), np.arange(340, 356, 1.5))
    assert part.columns.tolist() == list(range(11))
    across = cut(EUROPE, box(50, -10, 40, 10))
    assert across.grid == Grid(np.arange(49.5, 39, -1.5), np.arange(-9.5, 10.1, 1.5))


def test_source_and_box_both_limit_the_target():
    config = RegridConfig(resolution=2.5)
    target = target_grid(EUROPE, config, box(90, -10, 42, 5))
    assert target == Grid(np.arange(58.75, 42, -2.5), np.arange(-10, 5.1, 2.5))
    assert target_grid(GLOBE, config, box(20, 350, -20, 360)) == Grid(
        np.arange(18.75, -19, -2.5), np.arange(-10, 1, 2.5)
    )
    everything = box(90, 0, -90, 360)
    assert target_grid(GLOBE, config, everything) == global_grid(config)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: cut(GLOBE, box(10.5, 0, 9.5, 20)),
            r"only 1 rows and 21 columns .* box 9.5 .. 10.5 N, 0 .. 20 E; .*widen",
        ),
        (lambda: cut(EUROPE, box(50, 100, 40, 120)), r"only 7 rows and 0 columns"),
        (
            lambda: target_grid(EUROPE, RegridConfig(resolution=30), None),
            "only 1 rows and 1 columns .* the source, 21 x 24 limited area .*finer",
        ),
        (
            lambda: target_grid(EUROPE, RegridConfig(gaussian=16), box(10, 0, 0, 10)),
            "within the source, .* and the box",
        ),
        (lambda: cut(Grid([10, 0], np.arange(0, 320, 10.0)), box(20, -90, -20, 90)), "not neighbours: there are 2"),
    ],
)
def test_boxes_that_leave_no_grid_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
