"""Grid: rules, cell areas against the sphere, limited areas, Gaussian grids, poles."""

from __future__ import annotations

import json

import numpy as np
import pytest

from weatherfm.data_pipeline.fields.plausible import is_global
from weatherfm.earth.grid import Grid, Plane, plane_of, regular_grid
from weatherfm.errors import InputError
from weatherfm.model.neighbours import Edges

LON = np.arange(8) * 45.0


def with_poles(n=5):
    return Grid(np.linspace(90, -90, n), LON)


@pytest.mark.parametrize("grid", [regular_grid((32, 64)), with_poles(), with_poles(181)], ids=str)
def test_area_weights_are_cell_areas_of_the_whole_sphere(grid):
    assert grid.periodic
    assert abs(grid.area_weights.mean() - 1) < 1e-12
    edges = grid.latitude_bounds
    assert (edges[0], edges[-1]) == (90, -90)
    areas = np.sin(np.deg2rad(edges[:-1])) - np.sin(np.deg2rad(edges[1:]))
    assert abs(areas.sum() - 2) < 1e-12
    np.testing.assert_allclose(grid.area_weights[:, 0], areas / 2 * grid.shape[0], rtol=1e-12)


def test_weights_integrate_legendre_polynomials():
    """Cell areas are exact: the mean of sin(lat)^2 over the sphere is 1/3, reached at second order."""
    errors = []
    for n in (32, 64):
        grid = regular_grid((n, 2 * n))
        field = np.sin(np.deg2rad(grid.latitude))[:, None] ** 2 * np.ones(2 * n)
        errors.append(abs((field * grid.area_weights).mean() - 1 / 3))
    assert errors[0] < 1e-3
    assert 3.5 < errors[0] / errors[1] < 4.5


def test_a_polar_row_has_a_cap_not_zero():
    weights = with_poles(19).area_weights  # 10 degrees
    cap = 1 - np.sin(np.deg2rad(85))
    band = np.sin(np.deg2rad(85)) - np.sin(np.deg2rad(75))
    assert weights[0, 0] / weights[1, 0] == pytest.approx(cap / band)  # cos(90) would say 0


def test_limited_area_keeps_its_own_edges():
    grid = Grid(np.linspace(60, 30, 21), np.linspace(-20, 14.5, 24))
    assert not grid.periodic
    assert grid.latitude_bounds[0] == pytest.approx(60.75)
    assert grid.latitude_bounds[-1] == pytest.approx(29.25)
    assert abs(grid.area_weights.mean() - 1) < 1e-12
    assert "limited area" in str(grid)


def test_gaussian_grid_reaches_the_poles():
    nodes, weights = np.polynomial.legendre.leggauss(32)
    grid = Grid(np.rad2deg(np.arcsin(nodes[::-1])), np.arange(64) * 5.625)
    assert grid.latitude_bounds[0] == 90
    # cells by midpoints are near the Gaussian quadrature weights: 6 % at the smallest row, by a pole, elsewhere 0.2 %
    np.testing.assert_allclose(grid.area_weights[:, 0], weights[::-1] * 16, rtol=0.06)
    np.testing.assert_allclose(grid.area_weights[1:-1, 0], weights[-2:0:-1] * 16, rtol=2e-3)


def test_round_trip_and_equality_within_archive_precision():
    grid = regular_grid((4, 8))
    assert Grid.from_dict(grid.to_dict()) == grid
    assert Grid(grid.latitude.astype(np.float32), grid.longitude) == grid
    assert grid != regular_grid((8, 16))
    assert grid != Grid(grid.latitude - 1, grid.longitude)


@pytest.mark.parametrize(
    ("latitude", "longitude", "message"),
    [
        ([-80, 0, 80], LON, "latitude must descend"),
        ([80, 80, 0], LON, "latitude must descend"),
        ([9.97e36, 9.97e36], LON, "coordinates are damaged"),
        ([np.nan, 0], LON, "coordinates are damaged"),
        ([80, 0], [0, 90, 45], "longitude must ascend"),
        ([80, 0], [0, 45, 100], "equal steps"),
        ([80, 0], np.arange(9) * 45.0, "more than once"),
        ([80, 0], LON - 180, "start in"),
        ([80], LON, "at least 2 points"),
        ([80, 0], [[0, 1], [2, 3]], "one-dimensional"),
        ([80, 0], [300, 361, 422], "must lie in"),
    ],
)
def test_wrong_coordinates_are_refused(latitude, longitude, message):
    with pytest.raises(InputError, match=message):
        Grid(np.array(latitude), np.array(longitude))


# --- planes of pixels ---


def test_a_plane_counts_every_pixel_alike_and_has_edges():
    plane = plane_of((3, 360))
    assert plane.shape == (3, 360)
    assert plane.plane
    assert not plane.periodic
    assert (plane.area_weights == 1).all()
    assert plane.latitude_bounds.tolist() == [-0.5, 0.5, 1.5, 2.5]
    assert plane.longitude_step == 1
    assert str(plane) == "3 x 360 pixels"
    assert not is_global(plane_of((180, 360)))
    edges = Edges.of(plane)
    assert not edges.periodic
    assert edges.north is None
    assert edges.south is None


def test_a_plane_survives_json_and_is_no_grid_on_earth():
    plane = plane_of((4, 5))
    again = Grid.from_dict(json.loads(json.dumps(plane.to_dict())))
    assert isinstance(again, Plane)
    assert again == plane
    assert again != plane_of((5, 4))
    earth = Grid(np.arange(3, -1, -1.0), np.arange(5.0))
    assert earth != plane
    assert plane != earth
    assert Grid.from_dict({"latitude": [3, 2], "longitude": [0, 1]}) == Grid(np.array([3, 2]), np.array([0, 1]))


@pytest.mark.parametrize("rows", [[0], [1, 2], [1, 0], [0, 2], [0, np.nan]])
def test_rows_of_a_plane_are_counted(rows):
    with pytest.raises(InputError, match="rows of a plane of pixels are 0, 1, 2"):
        Plane(np.array(rows), np.arange(4))
    with pytest.raises(InputError, match="columns of a plane"):
        Plane(np.arange(4), np.array(rows))
